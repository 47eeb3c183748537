"""The reject signal: how long it holds, and that it goes off whatever else is refused."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from helpers.decisions import made, of_camera
from helpers.patience import PATIENCE_SECONDS, Stopwatch, until

from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks import threads
from hvq_edge.stream.sinks.plant import reject_signal
from hvq_edge.stream.sinks.plant.level_output import ControllerRefused, LevelOutput
from hvq_edge.stream.sinks.plant.reject_signal import RejectSignal
from hvq_edge.stream.sinks.threads import SinkThread
from hvq_edge.verdict.decision import PartVerdict


@pytest.fixture(autouse=True)
def busy(monkeypatch):
    """Threads of a busy machine may wake late, and a test must not lean on the clock."""
    monkeypatch.setattr(reject_signal, "LATE_SECONDS", PATIENCE_SECONDS)


def seen(signal: RejectSignal, *verdicts: str, at: float = 0.0) -> bool:
    for verdict in verdicts:
        signal.see(made(0, verdict)[0], at)
    return signal.on(at)


def test_a_signal_holds_until_the_next_pass():
    signal = RejectSignal(None)
    assert not seen(signal, "pass")
    assert seen(signal, "reject", "no_decision")
    assert signal.on(1e9)
    assert not seen(signal, "pass")
    assert not seen(signal, "no_decision")
    assert seen(RejectSignal(None, no_decision_rejects=True), "no_decision")


def test_of_several_frames_the_part_decides():
    """k of n: a good last frame takes no reject back, and a lost one alone rejects nothing."""
    signal = RejectSignal(None, no_decision_rejects=True)

    def shows(*frames: tuple[str, str | None]) -> list[bool]:
        on = []
        for verdict, of_part in frames:
            part = of_part and PartVerdict(0, of_part, 3, 0, 0)
            decision = replace(
                made(0, verdict)[0], more_frames=part is None, part_verdict=part or None
            )
            signal.see(decision, 0.0)
            on.append(signal.on(0.0))
        return on

    assert shows(("pass", None), ("no_decision", None), ("pass", "pass")) == [False] * 3
    assert shows(("reject", None), ("pass", None), ("pass", "reject")) == [True] * 3
    assert shows(("pass", None), ("no_decision", "no_decision")) == [True, True]
    assert shows(("pass", None), ("pass", "pass")) == [True, False]
    short = replace(
        made(0, "pass")[0], more_frames=True, cut_short=PartVerdict(0, "no_decision", 3, 0, 1)
    )
    signal.see(short, 0.0)
    assert signal.on(0.0), "a part that gave too few frames has not passed"


def test_a_signal_holds_for_its_time():
    signal = RejectSignal(2.0)
    assert seen(signal, "reject", "pass", at=10.0)
    signal.shown(10.0)
    assert signal.seconds_left(11.5) == 0.5
    signal.see(made(0, "reject")[0], 11.5)
    assert signal.on(13.4)
    assert not signal.on(13.5)
    assert signal.seconds_left(13.5) is None


def tell(output: LevelOutput, index: int, verdict: str) -> None:
    """As a SinkThread tells it."""
    decision, frame = made(index, verdict)
    output.see(decision)
    output.write(decision, frame)


class Shown:
    """A controller in memory; what is asked of it may be refused, or find it away."""

    def __init__(self) -> None:
        self.coil: bool | None = None
        self.changes: list[tuple[bool, float]] = []
        self.refuses: set[str] = set()
        self.away: set[str] = set()
        self.closed = 0

    def set_reject(self, on):
        self._answer("reject")
        self.changes.append((on, time.monotonic()))
        self.coil = on

    def set_decision(self, decision):
        self._answer("decision")

    def beat(self, on):
        self._answer("beat")

    def close(self):
        self.closed += 1

    def _answer(self, what):
        if what in self.away:
            raise OutputError("it does not answer.")
        if what in self.refuses:
            raise ControllerRefused(f"it does not take the {what}.")


@pytest.mark.parametrize("how", ["refuses", "away"])
@pytest.mark.parametrize("what", ["decision", "beat"])
def test_the_reject_signal_is_off_at_the_end_whatever_else_is_refused(how, what):
    shown = Shown()
    getattr(shown, how).add(what)
    output = LevelOutput(shown, RejectSignal(None), 0.001)
    for index, verdict in enumerate(["pass", "reject"]):
        for call in (lambda of=(index, verdict): tell(output, *of), output.tick):
            with suppress(OutputError):
                call()
    assert shown.coil is True
    output.close()
    output.close()
    assert (shown.coil, shown.closed) == (False, 1)


def test_what_is_refused_beside_it_neither_repeats_nor_stretches_the_signal(monkeypatch):
    monkeypatch.setattr(threads, "RETRY_SECONDS", 0.02)
    shown = Shown()
    shown.refuses = {"decision", "beat"}
    output, ticks = LevelOutput(shown, RejectSignal(0.05), heartbeat_seconds=1000.0), []
    tick = output.tick
    output.tick = lambda: (ticks.append(1), tick())[1]
    thread = SinkThread(output, "plc", "newest", 1)
    thread.write(*made(0, "reject"))
    until(lambda: [on for on, _ in shown.changes][-2:] == [True, False])
    until(lambda: len(ticks) > 3)
    assert "does not take" in thread.statistics().fault, "as long as it does not"
    thread.close()
    states = [on for on, _ in shown.changes]
    assert all(a != b for a, b in itertools.pairwise(states)), "each change is written once"
    assert shown.changes[-1][1] - shown.changes[-2][1] >= 0.05


def test_a_signal_that_is_held_does_not_wait_for_the_next_attempt(monkeypatch):
    """The attempts of what is refused are far apart; the end of the signal is due before."""
    monkeypatch.setattr(threads, "RETRY_SECONDS", 1000.0)
    shown = Shown()
    shown.away = {"decision"}
    thread = SinkThread(LevelOutput(shown, RejectSignal(0.05)), "plc", "newest", 1)
    until(lambda: shown.coil is False, "its first tick")
    thread.write(*made(0, "reject"))
    until(lambda: [on for on, _ in shown.changes] == [False, True, False], "the signal goes off")
    thread.close()


class Stale(Shown):
    """One whose connection ends between two calls, as controllers end those that idle."""

    dead = False

    def set_reject(self, on):
        if self.dead:
            self.dead = False
            raise OutputError("broken pipe")
        super().set_reject(on)


@pytest.mark.parametrize("verdict", ["reject", "pass"])
def test_a_change_over_a_dead_connection_is_written_over_a_new_one(verdict):
    shown = Stale()
    output = LevelOutput(shown, RejectSignal(None))
    tell(output, 0, "pass" if verdict == "reject" else "reject")
    shown.dead = True
    tell(output, 1, verdict)
    assert shown.coil is (verdict == "reject")


def test_an_end_over_a_dead_connection_is_written_over_a_new_one():
    shown = Stale()
    output = LevelOutput(shown, RejectSignal(None))
    tell(output, 0, "reject")
    shown.dead = True
    output.close()
    assert shown.coil is False


def test_a_controller_that_is_away_is_asked_once_an_attempt():
    shown = Shown()
    output = LevelOutput(shown, RejectSignal(None))
    tell(output, 0, "pass")
    asked = []
    shown.set_reject = lambda on: (asked.append(on), shown._answer("reject"))
    shown.away = {"reject"}
    for attempt in (2, 3, 4):
        with pytest.raises(OutputError):
            tell(output, attempt, "reject")
        assert len(asked) == attempt


def test_another_camera_s_pass_does_not_hide_a_reject():
    """Decisions of a turn come at once: of those that wait for the controller one is left."""
    shown, rejects = Shown(), 5
    thread = SinkThread(LevelOutput(shown, RejectSignal(0.02)), "plc", "newest", 1)
    for index in range(rejects):
        thread.write(*of_camera("left", index, "reject"))
        thread.write(*of_camera("right", index, "pass"))
        until(lambda shows=index + 1: [on for on, _ in shown.changes].count(True) == shows)
        until(lambda: shown.coil is False)
    thread.close()
    assert [on for on, _ in shown.changes].count(True) == rejects


def test_without_a_time_to_hold_each_camera_ends_its_own_reject():
    shown = Shown()
    thread = SinkThread(LevelOutput(shown, RejectSignal(None)), "plc", "newest", 1)
    for camera, verdict in (("left", "reject"), ("right", "reject"), ("right", "pass")):
        thread.write(*of_camera(camera, 0, verdict))
    until(lambda: shown.coil is True)
    thread.write(*of_camera("right", 1, "pass"))
    thread.write(*of_camera("left", 1, "pass"))
    until(lambda: shown.coil is False)
    thread.close()
    assert [on for on, _ in shown.changes][-2:] == [True, False]


def test_a_signal_is_held_from_when_it_is_shown():
    """An output that takes its time has all of it; one that comes back late shows nothing."""
    signal = RejectSignal(0.01)
    signal.see(made(0, "reject")[0], 10.0)
    assert signal.on(10.1), "a thread that wakes late"
    signal.shown(10.1)
    assert signal.on(10.105)
    signal.shown(10.105)
    assert not signal.on(10.11), "once"
    signal.see(made(1, "reject")[0], 20.0)
    assert not signal.on(20.0 + 0.01 + PATIENCE_SECONDS), "its part is gone"


def test_a_retry_is_of_what_is_so_by_then(monkeypatch):
    """The first attempt may have taken all the time that the reject was to be held for."""
    now = [10.0]
    monkeypatch.setattr(reject_signal, "LATE_SECONDS", 0.25)
    monkeypatch.setattr("hvq_edge.stream.sinks.plant.level_output.time.monotonic", lambda: now[0])

    class Slow(Stale):
        def set_reject(self, on):
            now[0] += 1.0 * self.dead
            super().set_reject(on)

    shown = Slow()
    output = LevelOutput(shown, RejectSignal(0.3))
    tell(output, 0, "pass")
    shown.dead = True
    tell(output, 1, "reject")
    assert [on for on, _ in shown.changes] == [False, False]


def test_a_defect_of_a_controller_does_not_leave_the_signal_on():
    class Broken(Shown):
        def set_reject(self, on):
            super().set_reject(on)
            if on:
                raise ZeroDivisionError("after it was written")

    shown = Broken()
    output = LevelOutput(shown, RejectSignal(None))
    tell(output, 0, "pass")
    with pytest.raises(ZeroDivisionError):
        tell(output, 1, "reject")
    output.close()
    assert shown.coil is False


def test_newest_only_and_the_others_are_counted():
    """A controller that is slow is told what is, not what was."""
    told, go = [], threading.Event()

    class Slow:
        def set_reject(self, on):
            pass

        def set_decision(self, decision):
            told.append(decision.frame)
            go.wait()

        def beat(self, on):
            pass

        def close(self):
            pass

    thread = SinkThread(LevelOutput(Slow(), RejectSignal(None)), "slow", "newest", 1)
    thread.write(*made(0))
    until(lambda: told == [0])
    with Stopwatch() as stopwatch:
        for frame in range(1, 10):
            thread.write(*made(frame))
            counts = thread.statistics()
            assert counts.written + counts.waiting + counts.dropped == frame + 1
    assert stopwatch.seconds < 0.5, stopwatch
    go.set()
    until(lambda: not thread.statistics().waiting)
    thread.close()
    assert told == [0, 9]
    counts = thread.statistics()
    assert (counts.written, counts.dropped, counts.waiting) == (2, 8, 0)
