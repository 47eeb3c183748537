"""systemd is told the truth: a service that stands still is not fed."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys

import pytest
from helpers.patience import until
from helpers.service_manager import UNIT, Systemd

from hvq_edge.errors import MissingCapability
from hvq_edge.stream.statistics import CameraStatistics, Counts, Statistics
from hvq_edge.stream.watchdog import Watchdog, pace


class Counting:
    """An inspector whose counts a test moves."""

    def __init__(self) -> None:
        self.passed = self.lost = self.waiting = 0
        self.due = True

    def __call__(self) -> Statistics:
        frames = self.passed + self.lost + self.waiting
        counts = Counts(frames=frames, passed=self.passed, no_decision=self.lost)
        return Statistics(1.0, (CameraStatistics("camera", counts, True, due=self.due),), ())


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    other = Systemd(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(other.path))
    monkeypatch.setenv("WATCHDOG_USEC", "80000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    yield other
    other.close()


def test_it_feeds_the_watchdog_only_while_frames_get_somewhere(systemd):
    counting = Counting()
    with Watchdog(counting):
        systemd.wait_for("READY=1")
        counting.waiting = 5  # frames that come and are not decided: the engine hangs
        assert "WATCHDOG=1" not in systemd.listen(0.15)
        counting.passed = 1
        systemd.wait_for("WATCHDOG=1")
        systemd.heard.clear()
        assert "WATCHDOG=1" not in systemd.listen(0.15)
        counting.lost = 1  # a camera that is known to be lost is no reason to start again
        systemd.wait_for("WATCHDOG=1")
        assert any("STATUS=7 frames: 1 pass" in line for line in systemd.heard)
        assert "STOPPING=1" not in systemd.heard
    assert systemd.listen()[-1] == "STOPPING=1"


def test_a_pause_between_two_triggers_is_no_fault_and_a_part_that_hangs_is_one(systemd):
    counting = Counting()
    counting.due = False
    with Watchdog(counting):
        systemd.wait_for("WATCHDOG=1")
        counting.waiting = 1  # a trigger's frame that is not decided
        until(lambda: not systemd.hears("WATCHDOG=1", 0.15), "it is not fed")
        assert not systemd.hears("WATCHDOG=1", 0.3)


def test_closing_twice_says_so_once(systemd):
    watchdog = Watchdog(Counting())
    watchdog.close()
    watchdog.close()
    assert systemd.listen() == ["READY=1", "STOPPING=1"]


def test_outside_systemd_it_does_nothing():
    with Watchdog(Counting(), environment={}) as watchdog:
        assert not watchdog._thread.is_alive()


def test_without_its_package_a_service_says_what_is_missing(systemd, monkeypatch):
    monkeypatch.setitem(sys.modules, "sdnotify", None)
    with pytest.raises(MissingCapability, match="sdnotify is missing"):
        Watchdog(Counting())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (False, 5.0)),
        ({"WATCHDOG_USEC": "8000000"}, (True, 2.0)),
        ({"WATCHDOG_USEC": "60000000"}, (True, 5.0)),
        ({"WATCHDOG_USEC": "8000000", "WATCHDOG_PID": str(os.getpid())}, (True, 2.0)),
        ({"WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "1"}, (False, 5.0)),
        ({"WATCHDOG_USEC": "soon"}, (False, 5.0)),
        ({"WATCHDOG_USEC": "0"}, (False, 5.0)),
    ],
)
def test_it_looks_four_times_as_often_as_systemd_asks(environment, expected):
    assert pace(environment) == expected


@pytest.fixture
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def test_the_unit_restarts_watches_and_confines(unit):
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "always"
    assert int(service["WatchdogSec"]) >= 10
    assert service["User"] not in ("", "root")
    assert "video" in service["SupplementaryGroups"].split()
    assert service["StateDirectory"] == "hvq-edge"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0", "else systemd gives up after a while"
    for key in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "ProtectKernelModules"):
        assert service[key] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_no_fault_in_the_unit(tmp_path):
    here = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    here.write_text(text.replace("/opt/hvq-edge/bin/hvq-edge", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_the_unit_calls_options_that_exist(unit):
    import click
    import typer.main

    from hvq_edge.cli.app import app

    command = unit["Service"]["ExecStart"].split()
    stream = typer.main.get_command(app).commands["stream"]
    options = stream.get_params(click.Context(stream))  # stream makes its options when asked
    known = {name for option in options for name in (*option.opts, *option.secondary_opts)}
    assert command[1] == "stream"
    assert {word for word in command if word.startswith("--")} <= known


def test_a_look_that_fails_does_not_end_the_feeding(systemd):
    counting, failures = Counting(), [OSError("no descriptors are left")]

    def statistics() -> Statistics:
        if failures:
            raise failures.pop()
        return counting()

    with Watchdog(statistics):
        until(lambda: not failures)
        counting.passed = 1
        systemd.wait_for("WATCHDOG=1")
