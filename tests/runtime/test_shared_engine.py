"""A line and guests on one engine: who waits for whom."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine
from helpers.graphs import SIDE
from helpers.patience import PATIENCE_SECONDS, until

from hvq_edge.runtime import shared_engine
from hvq_edge.runtime.shared_engine import RESTS, SharedEngine

LINE, GUEST = (np.full((1, SIDE, SIDE, 3), level, np.uint8) for level in (10, 200))


class NotedEngine(BrightnessEngine):
    """Notes whose calls it gets, and works until the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_of: list[str] = []
        self.inside = 0
        self.free = threading.Event()
        self.free.set()

    def run(self, frames, category=None):
        self.inside += 1
        assert self.inside == 1, "two calls overlap"
        self.calls_of.append("line" if frames[0, 0, 0, 0] == 10 else "guest")
        assert self.free.wait(PATIENCE_SECONDS)
        self.inside -= 1
        return super().run(frames, category)


def test_the_line_goes_before_all_guests_that_wait(monkeypatch):
    monkeypatch.setattr(shared_engine, "RESTS", 0)  # nothing else holds them back
    engine = NotedEngine()
    shared = SharedEngine(engine)
    engine.free.clear()
    with ThreadPoolExecutor(6) as pool:
        guests = [pool.submit(shared.guest.run, GUEST) for _ in range(5)]
        until(lambda: engine.calls_of == ["guest"])
        line = pool.submit(shared.run, LINE)
        until(lambda: shared._line_waits)
        engine.free.set()
        assert line.result()["score"] == pytest.approx(10 / 255)
        assert all(guest.result()["score"] == pytest.approx(200 / 255) for guest in guests)
    assert engine.calls_of == ["guest", "line", *["guest"] * 4]


def test_guests_leave_most_of_the_time_to_the_line():
    engine = NotedEngine()
    engine.seconds = 0.01
    shared = SharedEngine(engine)
    began = time.monotonic()
    for _ in range(4):
        shared.guest.run(GUEST)
    assert time.monotonic() - began > (4 + 3 * RESTS) * engine.seconds, "four calls and three rests"
    shared.run(LINE)  # while the line works a guest does not rest
    shared.guest.run(GUEST)
    assert time.monotonic() - began > (6 + 4 * RESTS) * engine.seconds
    assert engine.calls_of == [*["guest"] * 4, "line", "guest"]


def test_a_line_that_is_alone_waits_for_nobody():
    engine = NotedEngine()
    engine.seconds = 0.001
    shared = SharedEngine(engine)
    shared.guest.run(GUEST)
    shared._rest = PATIENCE_SECONDS
    for _ in range(5):
        shared.run(LINE)
    shared.guest.close()
    assert shared.run(LINE)["score"] == pytest.approx(10 / 255), "a guest closes nothing"


@pytest.mark.parametrize("who", ["line", "guest"])
def test_a_call_that_fails_leaves_the_engine_to_the_next(who):
    class Failing(NotedEngine):
        fails = True

        def run(self, frames, category=None):
            if self.fails:
                self.fails = False
                raise RuntimeError("no")
            return super().run(frames, category)

    shared = SharedEngine(Failing())
    ask = shared.run if who == "line" else shared.guest.run
    with pytest.raises(RuntimeError, match="no"):
        ask(LINE)
    assert shared.run(LINE)["score"] == pytest.approx(10 / 255)
    assert shared.guest.run(GUEST)["score"] == pytest.approx(200 / 255)


def test_a_guest_begins_where_it_should_end_before_the_line_comes_again(monkeypatch):
    """The line calls each 100 ms for 30 ms; a guest takes 40."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(shared_engine, "time", SimpleNamespace(monotonic=lambda: clock.now))

    class Timed(BrightnessEngine):
        def run(self, frames, category=None):
            clock.now += self.takes
            return super().run(frames, category)

    engine = Timed()
    shared = SharedEngine(engine)
    engine.takes = 0.04
    shared.guest.run(GUEST)
    engine.takes = 0.03
    for begins in (10.0, 10.1, 10.2):
        clock.now = begins
        shared.run(LINE)
    waits = {10.24: 0.0, 10.255: 0.0, 10.27: 0.13, 10.31: 0.09, 10.39: 0.01, 10.41: 0.0}
    for now, seconds in waits.items():
        clock.now = now
        assert max(shared._seconds_to_guest(20.0), 0.0) == pytest.approx(seconds, abs=1e-9), now
    clock.now = 10.27
    assert shared._seconds_to_guest(10.3) == pytest.approx(0.03), "its patience ends before"
