"""Kills ``hvq-edge stream`` at random moments and looks at what it left after each kill.

``PYTHONPATH=tests python -m helpers.killed_inspector FOLDER ROUNDS`` prints what it counted; the
test runs few rounds, docs/explanation/line.md says what many gave. Each inspector is forked from a
process that has everything loaded, so that a round takes little time and most kills hit frames,
not imports.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from helpers.patience import until
from helpers.receivers import HttpReceiver
from helpers.running_line import rows_of, save_film, save_line_bundle

from hvq_edge.cli.app import main as run_command
from hvq_edge.stream.log.deliveries import Deliveries
from hvq_edge.stream.log.verification import verify_log

LONGEST_SECONDS = 1.2
"""From an inspector's first moment, or every other time from its first decision."""
REJECTS_TO_END_WITH = 2
SETTINGS = """
[sinks.webhook]
url = "{url}"
batch = 3

[sinks.log]
file_megabytes = 0.05
commit_ms = 5.0

[sinks.rejects]
context_frames = 1
"""


def load() -> None:
    """Import what the command imports as it runs, without opening an engine or a thread."""
    import hvq_edge.cli.stream_view
    import hvq_edge.runtime.cpu.onnxruntime_engine
    import hvq_edge.stream.capture.open_cameras
    import hvq_edge.stream.from_settings
    import hvq_edge.stream.inspector
    import hvq_edge.stream.sinks.network.delivery
    import hvq_edge.stream.sinks.network.open_receivers
    import hvq_edge.stream.sinks.network.webhook
    import hvq_edge.stream.sinks.open_sinks  # noqa: F401


def start(folder: Path) -> int:
    """Fork an inspector; return its process."""
    child = os.fork()
    if child:
        return child
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    arguments = ["stream", "--config", folder / "stream.toml", "--bundle", folder / "bundle"]
    arguments += ["--camera", folder / "film.avi", "--play", "--out", folder / "out"]
    arguments += ["--backend", "onnxruntime", "--no-display", "--no-video", "--json"]
    run_command([str(argument) for argument in arguments])
    os._exit(0)


def decisions_said(folder: Path) -> int:
    """How many decisions all inspectors have printed so far."""
    said = folder / "said"
    return said.read_text().count('"verdict"') if said.exists() else 0


def kill(child: int, number: int = signal.SIGKILL) -> int:
    """Send a signal and return how it ended."""
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check_files(rejects: Path) -> int:
    """Read all that stands there under its final name; return how many rejects are whole."""
    for path in rejects.glob("[!.]*"):
        if path.suffix == ".npy":
            assert np.load(path).size, path
        else:
            assert path.suffix in (".png", ".jpg"), path
            assert cv2.imread(str(path)) is not None, path
    whole = list(rejects.glob("[!.]*.png"))
    for image in whole:
        assert image.with_suffix(".npy").exists(), image
        assert image.with_name(f"{image.stem}_overlay.jpg").exists(), image
    return len(whole)


def main(folder: Path, rounds: int) -> None:
    http = HttpReceiver()
    folder.mkdir(parents=True, exist_ok=True)
    save_line_bundle(folder / "bundle")
    save_film(folder / "film.avi", 100, rate=100)
    (folder / "stream.toml").write_text(SETTINGS.format(url=http.url))
    load()
    out = folder / "out"
    log = out / "decisions.sqlite"
    moments = random.Random(0)
    committed = 0
    for number in range(rounds):
        said = decisions_said(folder)
        child = start(folder)
        if number % 2 == 0:  # else anything from its first moment on may be hit
            until(lambda before=said: decisions_said(folder) > before, "it inspects")
        time.sleep(moments.uniform(0.0, LONGEST_SECONDS))
        assert kill(child) == -signal.SIGKILL, (folder / "said").read_text()
        if not log.exists():  # killed before the first row
            continue
        found = verify_log(log)
        assert found.whole, found.faults
        assert (found.last_id or 0) >= committed, "a row that was there is gone"
        committed = found.last_id or 0
        check_files(out / "rejects")
    child = start(folder)  # the last one may live until all is delivered
    sent = len(http.taken)
    until(lambda: len(http.taken) >= sent + REJECTS_TO_END_WITH, "rejects are delivered again")
    assert kill(child, signal.SIGTERM) == 0, (folder / "said").read_text()
    found = verify_log(log)
    assert found.whole, found.faults
    rows = rows_of(out)
    log_id = json.loads(rows[0]["more"])["log"]
    rejects = {f"{log_id}:{row['id']}" for row in rows if row["verdict"] == "reject"}
    got = {event["id"] for event in http.taken}
    assert got == rejects, "every committed reject was delivered, and nothing that is not committed"
    assert Deliveries(log).lowest_cursor(["webhook", "mqtt"]) is not None
    assert found.lost_sessions == found.sessions - 1
    counts = json.loads(rows[-1]["more"])["counts"]
    decided = counts["passed"] + counts["rejected"] + counts["no_decision"]
    assert counts["frames"] == decided + counts["dropped"]
    http.close()
    result = {
        "kills": rounds,
        "sessions killed": found.lost_sessions,
        "decisions": found.decisions,
        "files of the log": len(found.files),
        "rejects": len(rejects),
        "rejects delivered": len(got),
        "delivered twice": len(http.taken) - len(got),
        "rejects on disk": check_files(out / "rejects"),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
