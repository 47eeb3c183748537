"""Every kind of fault: how it begins and how it ends, and what the line may and must say of it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from helpers.images import flat

from benchmarks.chaotic_line.line import BELT, FOLDER
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.sinks.files.retention import RESERVE_BYTES

if TYPE_CHECKING:
    from benchmarks.chaotic_line.run import Run

Undo = Callable[[], None]
Begin = Callable[["Run", random.Random], Undo | None]
CHUNK = bytes(1 << 16)
YEAR = 365 * 86_400
HALF_OPEN = """
import resource, socket, sys, time
port, count = int(sys.argv[1]), int(sys.argv[2])
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 8192), limit))
held = []
while True:
    while len(held) < count:
        one = socket.socket()
        one.settimeout(1.0)
        try:
            one.connect(("127.0.0.1", port))
            one.sendall(b"GET / HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n")
        except OSError:
            one.close()
            time.sleep(0.2)
            continue
        held.append(one)
    time.sleep(0.2)
"""
SLOW_BODIES = """
import socket, sys, time
port, count = int(sys.argv[1]), int(sys.argv[2])
head = b"POST /api/login HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Length: 9000\\r\\n"
head += b"Content-Type: application/json\\r\\n\\r\\n"
held = []
for _ in range(count):
    one = socket.create_connection(("127.0.0.1", port), 5)
    one.sendall(head)
    held.append(one)
while True:
    for one in held:
        try:
            one.sendall(b" ")
        except OSError:
            pass
    time.sleep(0.2)
"""
ENDLESS_BODY = """
import socket, sys
one = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
head = b"POST /api/login HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Length: 10\\r\\n"
one.sendall(head + b"Content-Type: application/json\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
for _ in range(int(sys.argv[2])):
    one.sendall(b"100000\\r\\n" + b" " * 0x100000 + b"\\r\\n")
"""


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    name: str
    begin: Begin
    """Returns what ends it; ``None``: it is over at once."""
    resource: str
    """Two faults of one are not drawn together."""
    shows: str = ""
    """/healthz must name this while it lasts."""
    excuses: tuple[str, ...] = ()
    """/healthz may name these besides; ``*``: anything."""
    no_start: bool = False
    """The command may rightly refuse to start while it lasts."""
    stays: bool = False
    """It ends after all others of the round."""
    needs: Literal["", "mqtt", "disk"] = ""


def _answers(peer: Literal["webhook", "controller"], mode: str) -> Begin:
    """It listens, and does with what comes as ``mode`` says."""

    def begin(run: Run, _: random.Random) -> Undo:
        other = getattr(run, peer)
        other.mode = mode
        return lambda: setattr(other, "mode", "take")

    return begin


def _gone(peer: Literal["webhook", "controller"]) -> Begin:
    """It refuses connections."""

    def begin(run: Run, _: random.Random) -> Undo:
        other = getattr(run, peer)
        other.refuse()
        undo: Undo = other.listen
        return undo

    return begin


def _broker_gone(run: Run, _: random.Random) -> Undo:
    assert run.mqtt is not None
    run.mqtt.broker.stop()
    return run.mqtt.broker.start


def _broker_frozen(run: Run, _: random.Random) -> Undo:
    assert run.mqtt is not None
    run.mqtt.broker.freeze()
    return run.mqtt.broker.thaw


def _full_disk(run: Run, details: random.Random) -> Undo:
    filler = run.line.disk / "somebody else's"
    left = details.choice((0, RESERVE_BYTES - (1 << 20)))
    disk = os.statvfs(run.line.disk)
    with filler.open("wb") as file, suppress(OSError):  # the line takes room meanwhile
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - left - (1 << 20))
        while not left:
            file.write(CHUNK)
    return filler.unlink


def _locked_log(run: Run, _: random.Random) -> Undo | None:
    files = chain_files(run.line.out)
    if not files:
        return None
    connection = sqlite3.connect(files[-1], timeout=5.0, isolation_level=None)
    with suppress(sqlite3.OperationalError):
        connection.execute("BEGIN IMMEDIATE")
    return connection.close


def _second_inspector(run: Run, _: random.Random) -> Undo:
    other = run.line.process(f"second {time.monotonic_ns()}")

    def end() -> None:
        run.wait(lambda: other.process.poll() is not None)
        if other.process.poll() != 2 or "Traceback" in other.said:
            code, said = other.process.poll(), other.said[-300:]
            run.violated("a second inspector is told off", f"exit code {code}: {said}")
        other.__exit__()

    return end


def _moved_out(run: Run, _: random.Random) -> Undo | None:
    out = run.line.out
    if not out.exists():
        return None
    moved = out.with_name(f"moved {len(run.moved)}")
    out.rename(moved)
    run.moved.append(moved)

    def back() -> None:
        if not out.exists():
            moved.rename(out)
            run.moved.remove(moved)

    return back


def _clock_step(run: Run, details: random.Random) -> Undo:
    step = details.choice((-YEAR, -86_400, -3_600, 3_600, 86_400, YEAR))
    run.line.set_clock(step)
    return lambda: run.line.set_clock(0)


def _film_gone(run: Run, _: random.Random) -> Undo:
    away = run.line.film.with_suffix(".away")
    run.line.film.rename(away)

    def back() -> None:
        away.rename(run.line.film)

    return back


def _bad_images(run: Run, details: random.Random) -> Undo:
    image = cv2.imencode(".png", flat(90))[1].tobytes()
    noise = np.random.default_rng(details.randrange(1 << 32)).bytes(2000)
    bad = {
        "empty.png": b"",
        "cut short.png": image[: len(image) // 2],
        "text.jpg": b"no image at all\n",
        "noise.jpg": b"\xff\xd8\xff\xe0" + noise,
    }
    files = [run.line.watched / name for name in bad]
    for file, content in zip(files, bad.values(), strict=True):
        file.write_bytes(content)
    loop = run.line.watched / "loop.png"
    loop.symlink_to(loop.name)
    probe = run.probe()

    def clean() -> None:
        run.expect(probe.inspected, "good images beside unreadable ones are inspected", probe.text)
        for file in (*files, loop):
            file.unlink(missing_ok=True)

    return clean


def _pipe(run: Run, _: random.Random) -> Undo:
    pipe = run.line.watched / "pipe.png"
    os.mkfifo(pipe)
    probe = run.probe()

    def clean() -> None:
        run.expect(probe.inspected, "good images beside unreadable ones are inspected", probe.text)
        writing = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # lets go who waits for a writer
        pipe.unlink()
        time.sleep(0.5)
        os.close(writing)

    return clean


def _visitor(script: str, *counts: int) -> Callable[[Run, random.Random], Undo]:
    """Somebody who disturbs the page, in a process of its own."""

    def begin(run: Run, details: random.Random) -> Undo:
        count = details.choice(counts)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", script, str(run.line.port), str(count)],
            stderr=subprocess.DEVNULL,
        )

        def end() -> None:
            process.kill()
            process.wait()

        return end

    return begin


def _restart(number: int, *, early: bool = False) -> Callable[[Run, random.Random], None]:
    def begin(run: Run, details: random.Random) -> None:
        run.end_session(number)
        run.line.start()
        if early:  # anything from its first moment on may be hit
            run.pause(details.uniform(0.0, 3.0))
            run.end_session(number, early=True)
            run.line.start()

    return begin


_DISK = ("log", "jsonl", "rejects", "video", "webhook", "mqtt")
KINDS = (
    Kind("webhook refuses connections", _gone("webhook"), "webhook", "webhook"),
    Kind("webhook hangs", _answers("webhook", "hang"), "webhook", "webhook"),
    Kind("webhook answers 503", _answers("webhook", "unavailable"), "webhook", "webhook"),
    Kind(
        "webhook takes and does not answer",
        _answers("webhook", "lose the answer"),
        "webhook",
        "webhook",
    ),
    Kind("webhook drips an endless answer", _answers("webhook", "drip"), "webhook"),
    Kind("webhook floods with an answer", _answers("webhook", "flood"), "webhook"),
    Kind("broker gone", _broker_gone, "mqtt", "mqtt", needs="mqtt"),
    Kind("broker frozen", _broker_frozen, "mqtt", "mqtt", needs="mqtt"),
    Kind("controller gone", _gone("controller"), "modbus", "modbus"),
    Kind("controller hangs", _answers("controller", "hang"), "modbus", "modbus"),
    Kind(
        "controller refuses the heartbeat",
        _answers("controller", "refuse the heartbeat"),
        "modbus",
        "modbus",
    ),
    Kind("disk full", _full_disk, "disk", "log", _DISK, True, needs="disk"),
    Kind("log locked by another process", _locked_log, "log", "", _DISK, True),
    Kind("second inspector on the folder", _second_inspector, "second"),
    Kind("output folder moved", _moved_out, "log", "log", ("*",), True),
    Kind("clock step", _clock_step, "clock"),
    Kind("camera gone", _film_gone, "film", BELT, no_start=True),
    Kind("unreadable images in the folder", _bad_images, "folder", "", (FOLDER,), stays=True),
    Kind("a pipe in the folder", _pipe, "folder", "", (FOLDER,), stays=True),
    Kind("half-open connections", _visitor(HALF_OPEN, 250), "page"),
    Kind("half-open connections without end", _visitor(HALF_OPEN, 1200), "page"),
    Kind("slow bodies", _visitor(SLOW_BODIES, 20, 100), "page"),
    Kind("endless body", _visitor(ENDLESS_BODY, 300), "page"),
    Kind("SIGTERM and a start", _restart(signal.SIGTERM), "process"),
    Kind("SIGKILL and a start", _restart(signal.SIGKILL), "process"),
    Kind("SIGKILL in a start", _restart(signal.SIGKILL, early=True), "process"),
)


@dataclass(frozen=True)
class Planned:
    """A fault of a round."""

    kind: Kind
    offset: float
    """Seconds from the round's beginning."""
    seconds: float
    """How long it lasts."""
    details: str
    """Seed of what is left to chance."""


def plan(seed: int, number: int, kinds: tuple[Kind, ...], longest: float) -> list[Planned]:
    """Draw a round: it depends on nothing but the arguments, so one alone can be repeated."""
    draw = random.Random(f"{seed}/{number}")
    chosen: dict[str, Kind] = {}
    for kind in draw.sample(kinds, min(draw.randint(1, 3), len(kinds))):
        chosen.setdefault(kind.resource, kind)
    return [
        Planned(
            kind,
            draw.uniform(0.0, longest / 3),
            draw.uniform(longest / 8, longest),
            f"{seed}/{number}/{kind.name}",
        )
        for kind in chosen.values()
    ]
