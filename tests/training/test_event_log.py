"""TensorBoard reads back what was written, a resumed run once, and a failure costs only curves."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.patience import HANG_SECONDS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hvq_edge.training.event_log import EventLog


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) as TensorBoard shows them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_reads_what_was_written(tmp_path, caplog):
    with EventLog(tmp_path / "events", first_epoch=1) as log:
        for epoch in (1, 2, 3):
            log.write(epoch, {"loss/feature": 1 / epoch, "codes/used level 0": 8 * epoch})
    assert not caplog.messages
    assert curve(tmp_path / "events", "loss/feature") == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]
    assert curve(tmp_path / "events", "codes/used level 0") == [(1, 8.0), (2, 16.0), (3, 24.0)]


def test_an_epoch_is_on_disk_when_write_returns(tmp_path):
    """One watches a training while it runs."""
    log = EventLog(tmp_path, first_epoch=1)
    log.write(1, {"loss": 2.0})
    assert curve(tmp_path, "loss") == [(1, 2.0)]
    log.close()
    log.write(2, {"loss": 1.0})  # ignored, as documented
    assert curve(tmp_path, "loss") == [(1, 2.0)]
    log.close()


_KILLED_IN_EPOCH_5 = """
import os, signal, sys
from pathlib import Path
from hvq_edge.training.event_log import EventLog
log = EventLog(Path(sys.argv[1]), first_epoch=1)
for epoch in range(1, 6):
    log.write(epoch, {"loss": 10.0 + epoch})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_and_resumed_run_shows_each_epoch_once(tmp_path):
    """Killed after epoch 5; the state on disk was that of epoch 3, and the file is cut short."""
    killed = subprocess.run([sys.executable, "-c", _KILLED_IN_EPOCH_5, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (file,) = tmp_path.iterdir()
    assert [step for step, _ in curve(tmp_path, "loss")] == [1, 2, 3, 4, 5]
    os.truncate(file, file.stat().st_size - 3)
    # TensorBoard reads files in the order of the second in their name; loading PyTorch takes a
    # resumed run longer than that, but not this test.
    second = file.name.split(".")[3]
    file.rename(file.with_name(file.name.replace(second, str(int(second) - 60))))
    with EventLog(tmp_path, first_epoch=4) as log:
        for epoch in (4, 5, 6):
            log.write(epoch, {"loss": 20.0 + epoch})
    assert curve(tmp_path, "loss") == [
        (1, 11.0), (2, 12.0), (3, 13.0), (4, 24.0), (5, 25.0), (6, 26.0),
    ]  # fmt: skip


def test_a_run_killed_before_its_first_state_starts_over(tmp_path):
    for loss in (5.0, 7.0):  # one process: the files are told apart by a counter
        with EventLog(tmp_path, first_epoch=1) as log:
            log.write(1, {"loss": loss})
    assert curve(tmp_path, "loss") == [(1, 7.0)]


def test_without_the_package_a_warning_says_so_and_no_folder_is_made(tmp_path, monkeypatch, caplog):
    real_import = builtins.__import__

    def without_tensorboard(name, *arguments, **keywords):
        if name.partition(".")[0] == "tensorboard":
            raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")
        return real_import(name, *arguments, **keywords)

    for module in [m for m in sys.modules if m.startswith(("tensorboard", "torch.utils.tens"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without_tensorboard)
    with EventLog(tmp_path / "events", first_epoch=1) as log:
        log.write(1, {"loss": 1.0})
    (warning,) = caplog.messages
    assert "pip install tensorboard" in warning
    assert not (tmp_path / "events").exists()


def test_a_place_that_cannot_be_written_is_said(tmp_path, caplog):
    (tmp_path / "events").write_text("a file where the folder should be")
    with EventLog(tmp_path / "events", first_epoch=1) as log:
        log.write(1, {"loss": 1.0})
    (warning,) = caplog.messages
    assert str(tmp_path / "events") in warning


_FILE_CANNOT_GROW = """
import resource, sys
from pathlib import Path
from hvq_edge.training.event_log import EventLog
with EventLog(Path(sys.argv[1]), first_epoch=1) as log:
    log.write(1, {"loss": 3.0})
    (file,) = Path(sys.argv[1]).iterdir()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 20, hard))
    for epoch in (2, 3, 4):
        log.write(epoch, {"loss": 2.0})
"""


def test_a_full_disk_ends_the_curves_and_not_the_training(tmp_path):
    """The writer's own thread fails; what was written before stays readable."""
    command = [sys.executable, "-c", _FILE_CANNOT_GROW, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"TensorBoard events end here: cannot write {tmp_path}" in done.stderr
    assert curve(tmp_path, "loss") == [(1, 3.0)]
