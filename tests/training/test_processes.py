"""Two processes train as one would: gloo on this machine, started by torchrun."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import run_here
from helpers.patience import HANG_SECONDS

from hvq_edge.data.images import read_frame
from hvq_edge.errors import MissingCapability
from hvq_edge.model import load_run
from hvq_edge.training import processes

SETTINGS = """
[model]
input_side = 64
width = 16
heads = 2
feedforward = 32
layers = 2
codes = 16
[training]
epochs = 3
batch_size = 4
versions = 2
autocast = "off"  # bfloat16 rounds the halves of a batch otherwise than the whole
"""


def arguments_of(data: Path, out: Path) -> list[str]:
    settings = out.with_suffix(".toml")
    settings.write_text(SETTINGS)
    arguments = ["train", "--device", "cpu", "--preset", "tiny", "--json"]
    return [*arguments, "--data", str(data), "--settings", str(settings), "--out", str(out)]


def train_alone(data: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """``hvq-edge train --json`` in this process, which has loaded what a child would load first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run_here(*arguments_of(data, out))
    finally:
        torch.set_num_threads(threads)


def train_in_two(data: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The same in two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    program += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    return subprocess.run(
        [*program, "-m", "hvq_edge", *arguments_of(data, out)],
        cwd=out.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )


def files_of(run: Path) -> list[str]:
    """All files below a run, event files without their time and process number."""
    return sorted(
        path.relative_to(run).as_posix().partition(".tfevents")[0]
        for path in run.rglob("*")
        if path.is_file()
    )


@pytest.mark.long
def test_two_processes_train_as_one_does(mvtec_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    for train, run in ((train_alone, one), (train_in_two, two)):
        done = train(mvtec_folder, run)
        assert done.returncode == 0, done.stderr
        # One speaks, and once.
        assert json.loads(done.stdout)["run"] == str(run)
        assert done.stderr.count("backbone features: 14/14") == 1
        assert done.stderr.count("training: 3/3") == 1
        assert "Warning" not in done.stderr
        assert Path(tmp_path / "runs" / "latest").resolve() == run.resolve()
    assert files_of(one) == files_of(two)
    assert not [name for name in files_of(two) if name.startswith(".") or "state" in name]

    (model, record), (shared, shared_record) = load_run(one), load_run(two)
    changing = {"created", "metrics", "checkpoint_sha256"}
    assert record.model_dump(exclude=changing) == shared_record.model_dump(exclude=changing)
    for name in ("feature_loss", "commitment", "held_out_loss"):
        assert shared_record.metrics[name] == pytest.approx(record.metrics[name], rel=1e-5)
    # Sums in another order: rounding, which AdamW's first steps make larger where a gradient is
    # rounding itself (keys' biases).
    state = shared.state_dict()
    for name, value in model.state_dict().items():
        close = torch.allclose(value.float(), state[name].float(), rtol=1e-3, atol=1e-4)
        assert close, name
    frames = np.stack(
        [read_frame(path, 64) for path in sorted(mvtec_folder.glob("*/test/*/*.png"))]
    )
    with torch.inference_mode():
        out, other = (m(torch.from_numpy(frames)) for m in (model, shared))
    assert (out["codes"] == other["codes"]).float().mean() > 0.99
    torch.testing.assert_close(out["score"], other["score"], rtol=1e-2, atol=1e-2)


def test_when_the_first_fails_the_others_end_without_a_traceback(tmp_path):
    done = train_in_two(tmp_path / "nowhere", tmp_path / "run")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("nowhere does not exist") == 1
    assert "hvq_edge/training" not in done.stderr, "a traceback of ours"
    assert not (tmp_path / "run").exists()


def test_alone_nothing_is_joined():
    with processes.joined("cpu") as device:
        assert device == "cpu"
        assert (processes.rank(), processes.count()) == (0, 1)
        assert processes.from_first("run") == "run"
        values = torch.ones(3)
        assert processes.summed(values) is values
        module = torch.nn.Linear(1, 1)
        assert processes.shared(module) is module
        processes.wait_for_all()
    assert not torch.distributed.is_initialized()


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(MissingCapability, match=r"2 processes .* with 1 GPU"),
        processes.joined("cuda"),
    ):
        raise AssertionError("it was joined")
    assert not torch.distributed.is_initialized()
