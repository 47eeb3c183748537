"""Signals end ``hvq-edge stream`` cleanly from its first moment on, also with its terminal gone."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.patience import PATIENCE_SECONDS, until
from helpers.running_line import RunningLine, rows_of, save_film, save_line_bundle

from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.log.head import head_path, read_head
from hvq_edge.stream.log.verification import verify_log


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A bundle and a film, as arguments."""
    folder = tmp_path_factory.mktemp("line")
    save_line_bundle(folder / "bundle")
    save_film(folder / "film.avi", 20)
    return ["--bundle", folder / "bundle", "--camera", folder / "film.avi", "--play"]


def catches(process: int, number: int) -> bool:
    """Whether a process has a handler for a signal, as the kernel says it."""
    status = Path(f"/proc/{process}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_cameras_run_is_an_end_like_any_other(tmp_path, line, number):
    with RunningLine(tmp_path, *line) as running:
        until(lambda: catches(running.process.pid, number), "it takes signals")
        running.stop(number)
        assert "Traceback" not in running.said


def test_a_signal_at_any_moment_of_the_opening_leaves_no_session_open(tmp_path, line):
    """From the log's first row on."""
    for pause in (0.0, 0.01, 0.05, 0.2):
        with RunningLine(tmp_path / str(pause), *line) as running:
            log = running.out / "decisions.sqlite"
            until(lambda log=log: log.exists(), "it begins", pause=0)
            time.sleep(pause)
            running.stop()
        if not chain_files(running.out):  # it came between the first head and its row
            assert read_head(head_path(running.out)).id == 1
            continue
        found = verify_log(running.out)
        assert found.faults == []
        kinds = [row["kind"] for row in rows_of(running.out)]
        assert kinds.count("session_start") == kinds.count("session_end")
        assert kinds[-1] in ("file", "session_end")


def test_a_terminal_that_goes_away_ends_the_session(tmp_path, line):
    """The kernel sends SIGHUP, and whatever is said from then on cannot be written."""
    out = tmp_path / "out"
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "hvq_edge", "stream", *map(str, line), "--out", str(out)]
    command += ["--backend", "onnxruntime", "--no-video", "--no-display"]
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        until(
            lambda: (out / "decisions.sqlite").exists() and any(r["verdict"] for r in rows_of(out))
        )
        os.close(ours)
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
    assert rows_of(out)[-1]["kind"] == "session_end"


DRAWS_FOR_EVER = """
import cv2, numpy
from hvq_edge.stream.sinks.files.reject_images import RejectImages

def write(*_):
    image = numpy.zeros((64, 64, 3), numpy.uint8)
    while True:
        cv2.GaussianBlur(image, (5, 5), 1.0)

RejectImages.write = write
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_sink_that_still_draws_does_not_change_how_it_ends(tmp_path, line, number, code):
    """Python would end its thread within OpenCV, which aborts the process."""
    (tmp_path / "sitecustomize.py").write_text(DRAWS_FOR_EVER)
    environment = {"PYTHONPATH": str(tmp_path)}
    with RunningLine(tmp_path, *line, environment=environment) as running:
        running.wait_for(1, "reject")
        running.stop(number, code)
        assert "rejects: it did not finish within" in running.said
    assert running.rows()[-1]["kind"] == "session_end"


BELOW_NOHUP = """
import os, signal
from hvq_edge.cli.interruption import StopSignals

signal.signal(signal.SIGHUP, signal.SIG_IGN)
try:
    with StopSignals():
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
except SystemExit as stop:
    assert stop.code == 0
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    print("ended")
"""


def test_nohup_is_respected():
    """In a process of its own: a signal to this one would be the suite's."""
    done = subprocess.run([sys.executable, "-c", BELOW_NOHUP], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("ended\n", "")
