"""Time on a machine that does other work as well.

What is promised in seconds is promised of a machine that has the time. A test that holds it to
that promise takes a :class:`Stopwatch`, whose seconds are those of an idle machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import ClassVar

PATIENCE_SECONDS = 120.0
"""A wait for something that must come gives up after so long: only a test that fails waits it."""
HANG_SECONDS = 1200.0
"""A command that has not ended after so long hangs."""
PIECES = """
import signal, sys, time
from hashlib import sha256

def work():
    began = time.monotonic()
    sha256(piece).digest()
    times.append(time.monotonic() - began)

def end(*_):
    print(sum(times) / len(times), min(times))
    sys.exit()

piece, times = bytes(1 << 20), []
work()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    work()
"""


def until(
    true: Callable[[], object], what: str = "what was waited for", *, pause: float = 0.01
) -> None:
    """Wait for something that must come; how long it may take is no promise of the product."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end, f"in {PATIENCE_SECONDS:g} s it never happened: {what}"
        time.sleep(pause)


class Stopwatch:
    """Times a block, and measures meanwhile how slow this machine is.

    A process of its own works through equal pieces of work while the block runs. The machine is as
    many times slower than idle as a piece takes on average longer than the fastest one that these
    tests ever saw. A fault that makes the block slow does not slow the pieces: it is not forgiven.
    """

    _fastest: ClassVar[float] = float("inf")

    def __enter__(self) -> Stopwatch:
        self._worker = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PIECES], stdout=subprocess.PIPE, text=True
        )
        assert self._worker.stdout is not None
        assert self._worker.stdout.readline() == "ready\n"
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.monotonic() - self._began
        self._worker.terminate()
        average, fastest = map(float, self._worker.communicate()[0].split())
        Stopwatch._fastest = min(Stopwatch._fastest, fastest)
        self.slowness = max(1.0, average / Stopwatch._fastest)

    @property
    def seconds(self) -> float:
        """What the block would have taken on a machine that does nothing else."""
        return self.wall / self.slowness

    def __repr__(self) -> str:
        return f"{self.wall:.2f} s on a machine {self.slowness:.1f} times slower than idle"
