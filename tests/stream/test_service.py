"""The command as systemd runs it: what it says to the service manager, and when it says nothing."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from helpers.commands import run as run_help
from helpers.paths import ROOT
from helpers.patience import Stopwatch, until
from helpers.running_line import LONGEST_STOP, RunningLine, save_film, save_line_bundle
from helpers.service_manager import UNIT, Systemd

WATCHDOG_SECONDS = 1.0


@pytest.fixture
def systemd(tmp_path):
    other = Systemd(tmp_path)
    yield other
    other.close()


def environment_of(systemd: Systemd) -> dict[str, str]:
    microseconds = str(round(WATCHDOG_SECONDS * 1e6))
    return {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": microseconds}


def test_a_service_that_works_says_so(tmp_path, systemd):
    bundle = save_line_bundle(tmp_path / "bundle")
    film = save_film(tmp_path / "film.avi", 60)
    arguments = ["--bundle", bundle.path, "--camera", film, "--play", "--page-port", 0]
    with RunningLine(tmp_path, *arguments, environment=environment_of(systemd)) as line:
        systemd.wait_for("READY=1")
        systemd.wait_for("WATCHDOG=1")
        systemd.heard.clear()
        with Stopwatch() as stopwatch:
            until(lambda: systemd.listen().count("WATCHDOG=1") == 2, "it is fed")
        assert stopwatch.seconds < WATCHDOG_SECONDS, stopwatch
        film.unlink()  # lost frames are progress: starting again would not bring the film back
        line.wait_for(1, "no_decision")
        systemd.heard.clear()
        systemd.wait_for("WATCHDOG=1")
        until(lambda: any("no decision" in message for message in systemd.listen()), "its status")
        assert "STOPPING=1" not in systemd.heard
        assert line.stop() < LONGEST_STOP
    assert systemd.listen()[-1] == "STOPPING=1"
    line.assert_it_fits()


HANGS = """
import os, time
opened = os.open

def open_or_hang(path, *given, **named):
    if os.fspath(path).endswith("1.jpg"):
        time.sleep(10**6)
    return opened(path, *given, **named)

os.open = open_or_hang
"""


def test_a_camera_that_hangs_for_ever_starves_the_watchdog(tmp_path, systemd):
    """A driver that never returns from a read: here the opening of the second image."""
    bundle = save_line_bundle(tmp_path / "bundle")
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(ROOT / "docs/pictures/overlay.jpg", folder / "0.jpg")
    shutil.copy(folder / "0.jpg", folder / "1.jpg")
    (tmp_path / "sitecustomize.py").write_text(HANGS, encoding="utf-8")
    arguments = ["--bundle", bundle.path, "--camera", folder]
    environment = {**environment_of(systemd), "PYTHONPATH": str(tmp_path)}
    with RunningLine(tmp_path, *arguments, environment=environment) as line:
        systemd.wait_for("WATCHDOG=1")
        line.wait_for(1 - len(line.decisions()))
        until(lambda: not systemd.hears("WATCHDOG=1", WATCHDOG_SECONDS), "it is not fed")
        assert not systemd.hears("WATCHDOG=1", 1.5 * WATCHDOG_SECONDS)
        assert line.stop() < LONGEST_STOP, "it still ends when it is asked to"
    assert systemd.listen()[-1] == "STOPPING=1"


def test_the_unit_starts_a_command_that_exists():
    (start,) = [
        line.partition("=")[2]
        for line in UNIT.read_text(encoding="utf-8").splitlines()
        if line.startswith("ExecStart=")
    ]
    words = shlex.split(start)
    assert Path(words[0]).name == "hvq-edge"
    assert words[1] == "stream"
    listed = run_help("stream", "--help").stdout
    options = [word for word in words if word.startswith("--")]
    assert "--page" in options
    assert "--out" in options
    for option in options:
        assert option in listed
