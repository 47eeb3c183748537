"""The line under test: ``hvq-edge stream`` with every sink, its sessions and what is seen of it."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import tomli_w
from helpers.receivers import free_port
from helpers.running_line import RunningLine, save_film, save_line_bundle

from benchmarks.chaotic_line.peers import Controller, Mqtt, Webhook

FRAMES, FRAMES_PER_SECOND = 20, 4.0
POLL_SECONDS = 0.5
ANSWER_SECONDS = 60.0
CLOCK = """
import mmap, os, struct, time

with open(os.environ["CHAOS_CLOCK"], "rb") as _file:
    _offset = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)
_time, _time_ns, _replace = time.time, time.time_ns, os.replace

def _ahead():
    return struct.unpack("<q", _offset[:8])[0]

def _replaced(source, target, **given):
    os.utime(source, (time.time(), time.time()))
    _replace(source, target, **given)

time.time = lambda: _time() + _ahead()
time.time_ns = lambda: _time_ns() + _ahead() * 10**9
os.replace = _replaced
"""
"""Python runs it in the line's process before anything else (``sitecustomize``): its clock is ahead
by the seconds in a file, and so are the dates of the files that it writes. (libfaketime makes some
starts on a busy machine end with EINVAL.)"""
HOLD_SECONDS = 1.5
"""The reject output is on for more than half of the time: whatever ends the line may find it so."""
BELT, FOLDER = "belt", "folder"


@dataclass(frozen=True)
class Poll:
    """One look at /healthz and at the process."""

    moment: float
    status: int
    """0: there was no answer."""
    named: tuple[str, ...]
    """What it says is wrong, failing first."""
    fault: str
    """Why the answer is none of /healthz's."""
    seconds: float
    """Until it came."""


@dataclass
class Session:
    """One process."""

    number: int
    running: RunningLine
    began: float
    printed: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    """Decisions and when they were seen."""
    polls: list[Poll] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    """Megabytes at each poll."""
    descriptors: list[int] = field(default_factory=list)
    up: bool = False
    """Whether it has ever said how it is."""
    ending: bool = False
    killed: bool = False
    cut: bool = False
    """Whether its last decisions may be in no log: it was killed, or nothing could be recorded."""
    _read: int = 0

    def tail(self, path: Path) -> None:
        """Read the decisions that were printed meanwhile."""
        with path.open("rb") as file:
            file.seek(self._read)
            whole, _, _ = file.read().rpartition(b"\n")
        if whole:
            self._read += len(whole) + 1
            now = time.monotonic()
            self.printed += [(now, json.loads(line)) for line in whole.split(b"\n")]


class Line:
    """The command with its settings, started again and again.

    Args:
        folder: for everything but what is recorded.
        disk: what is recorded goes into a folder here.
    """

    def __init__(
        self,
        folder: Path,
        disk: Path,
        webhook: Webhook,
        mqtt: Mqtt | None,
        controller: Controller,
        *,
        video: bool,
    ) -> None:
        self.folder, self.disk, self.out = folder, disk, disk / "out"
        self.film = save_film(folder / "film.avi", FRAMES, FRAMES_PER_SECOND)
        self.watched = folder / "watched"
        self.watched.mkdir()
        self.port = free_port()
        self.sessions: list[Session] = []
        self._bundle = save_line_bundle(folder / "bundle").path
        self._video = ["--video"] if video else []
        self._clock = folder / "clock"
        self.set_clock(0)
        (folder / "python").mkdir()
        (folder / "python" / "sitecustomize.py").write_text(CLOCK)
        self._opener = build_opener(ProxyHandler({}))
        sinks: dict[str, dict[str, object]] = {
            "log": {"commit_ms": 20.0, "file_megabytes": 0.2, "head_seconds": 1.0},
            "rejects": {"context_frames": 1, "keep_megabytes": 0.5},
            "video": {"segment_minutes": 0.5, "keep_megabytes": 1.0},
            "webhook": {
                "url": f"http://127.0.0.1:{webhook.port}/",
                "batch": 5,
                "timeout_seconds": 1.0,
            },
            "modbus": {
                "host": "127.0.0.1",
                "port": controller.port,
                "reject_coil": Controller.REJECT,
                "heartbeat_coil": Controller.HEARTBEAT,
                "hold_ms": HOLD_SECONDS * 1000.0,
                "timeout_seconds": 1.0,
            },
        }
        sinks["log"]["json_lines"] = True
        if mqtt is not None:
            sinks["mqtt"] = {
                "host": "127.0.0.1",
                "port": mqtt.broker.port,
                "timeout_seconds": 2.0,
            }
        belt = {"camera": str(self.film), "name": BELT, "play": True}
        self._save("line.toml", sinks, [belt, {"camera": f"watch:{self.watched}", "name": FOLDER}])
        (folder / "nothing").mkdir()
        self._save("silent.toml", sinks, [{"camera": f"watch:{folder / 'nothing'}"}])
        self._poller = threading.Thread(target=self._poll_for_ever, daemon=True)
        self._closed = threading.Event()
        self._poller.start()

    def _save(self, name: str, sinks: dict[str, Any], cameras: list[dict[str, Any]]) -> None:
        settings = {"cameras": cameras, "sinks": sinks, "page": {"port": self.port}}
        (self.folder / name).write_text(tomli_w.dumps(settings))

    def process(
        self, name: str, settings: str = "line.toml", out: Path | None = None
    ) -> RunningLine:
        """Start the command; what it prints goes into a folder of this name."""
        return RunningLine(
            self.folder / name,
            *("--config", self.folder / settings, "--bundle", self._bundle, *self._video),
            environment={
                "CHAOS_CLOCK": str(self._clock),
                "PYTHONPATH": os.pathsep.join(
                    (str(self.folder / "python"), os.environ.get("PYTHONPATH", ""))
                ).rstrip(os.pathsep),
            },
            out=out or self.out,
        )

    def set_clock(self, seconds: int) -> None:
        """Move the clock of the line away from the true time."""
        with self._clock.open("r+b" if self._clock.exists() else "wb") as file:
            file.write(struct.pack("<q", seconds))  # in place: the line has it mapped

    def start(self) -> Session:
        """Begin a session."""
        number = len(self.sessions)
        running = self.process(f"session {number}")
        self.sessions.append(Session(number, running, time.monotonic()))
        return self.sessions[-1]

    @property
    def session(self) -> Session:
        """The newest."""
        return self.sessions[-1]

    def pump(self) -> None:
        """Read what was printed."""
        session = self.session
        session.tail(self.folder / f"session {session.number}" / "stdout")

    def close(self) -> None:
        """End what still runs."""
        self._closed.set()
        self._poller.join()
        for session in self.sessions:
            session.running.__exit__()

    def _poll_for_ever(self) -> None:
        while not self._closed.wait(POLL_SECONDS):
            if not self.sessions:
                continue
            session = self.session
            pid = session.running.process.pid
            poll = self._look()
            if (
                session.ending
                or session is not self.session
                or session.running.process.poll() is not None
            ):
                continue
            if not poll.status and not session.up:
                continue  # it is starting
            session.up = True
            session.polls.append(poll)
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                session.descriptors.append(len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208
                session.resident.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
            except (OSError, IndexError):  # it has just ended
                continue

    def _look(self) -> Poll:
        address = f"http://127.0.0.1:{self.port}/healthz"
        status, text = 0, ""
        began = time.monotonic()
        try:
            with self._opener.open(address, timeout=ANSWER_SECONDS) as answer:
                status, text = answer.status, answer.read().decode()
        except HTTPError as error:
            status, text = error.code, error.read().decode(errors="replace")
        except OSError as error:
            now = time.monotonic()
            return Poll(now, 0, (), f"no answer: {error}", now - began)
        now = time.monotonic()
        took = now - began
        try:
            health = json.loads(text)
            named = (*health["failing"], *health["degraded"])
        except (ValueError, KeyError, TypeError):
            return Poll(now, status, (), f"{status}, and no word of health: {text[:80]!r}", took)
        if (status == 200) != (not health["failing"]):
            return Poll(now, status, named, f"{status} beside {health['failing']}", took)
        return Poll(now, status, named, "", took)
