"""A sink's thread: a slow, failing or hanging sink never holds up the inspection."""

from __future__ import annotations

import threading

import pytest
from helpers.decisions import DRAW, made, of_camera
from helpers.patience import PATIENCE_SECONDS, Stopwatch, until

from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks import threads
from hvq_edge.stream.sinks.files.reject_images import RejectImages
from hvq_edge.stream.sinks.files.video import ByCamera
from hvq_edge.stream.sinks.threads import SinkThread
from hvq_edge.stream.statistics import SinkStatistics


class Recorder:
    """Takes decisions, fails and hangs as it is told."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.faulty = False
        self.go = threading.Event()
        self.go.set()
        self.closed = 0

    def write(self, decision, frame):
        self.go.wait()
        if self.faulty:
            raise OutputError("cannot write: no space is left on the disk.")
        self.taken.append(decision.frame)

    def close(self):
        self.closed += 1


def sums(thread: SinkThread) -> int:
    counts = thread.statistics()
    assert min(counts.written, counts.dropped, counts.waiting) >= 0
    return counts.written + counts.dropped + counts.waiting


def test_a_slow_sink_drops_and_counts_where_it_may():
    sink = Recorder()
    sink.go.clear()
    thread = SinkThread(sink, "slow", "drop", 3)
    with Stopwatch() as stopwatch:
        for index in range(20):
            thread.write(*made(index))
            assert sums(thread) == index + 1
    assert stopwatch.seconds < 1.0, stopwatch
    sink.go.set()
    thread.close()
    counts = thread.statistics()
    assert counts.written == len(sink.taken) in (3, 4)
    assert counts.dropped == 20 - counts.written
    assert sink.taken == sorted(sink.taken)
    assert sink.closed == 1


def test_back_pressure_loses_nothing():
    sink = Recorder()
    thread = SinkThread(sink, "all", "wait", 2)
    sink.go.clear()
    threading.Timer(0.05, sink.go.set).start()
    for index in range(20):
        thread.write(*made(index))
    thread.close()
    assert sink.taken == list(range(20))
    assert thread.statistics() == SinkStatistics("all", 20, 0, 0)


def test_a_fault_is_told_once_and_ends_with_it():
    sink, told = Recorder(), []
    thread = SinkThread(sink, "rejects", "wait", 2, report=lambda *said: told.append(said))
    sink.faulty = True
    for index in range(5):
        thread.write(*made(index))
    until(lambda: thread.statistics().dropped == 5)
    assert "no space" in thread.statistics().fault
    sink.faulty = False
    thread.write(*made(5))
    until(lambda: thread.statistics().written == 1)
    assert thread.statistics().fault == ""
    thread.close()
    assert told == [("rejects", "cannot write: no space is left on the disk.")]


def test_a_sink_that_cannot_go_on_is_closed_once():
    sink = Recorder()
    thread = SinkThread(sink, "video", "wait", 2, ends_at_fault=True)
    thread.write(*made(0))
    until(lambda: sink.taken == [0])
    sink.faulty = True
    thread.write(*made(1))
    until(lambda: sink.closed == 1)
    sink.faulty = False
    thread.write(*made(2))
    thread.close()
    counts = thread.statistics()
    assert (counts.written, counts.dropped, sink.closed) == (1, 2, 1)
    assert counts.fault


def test_a_defect_of_a_sink_does_not_reach_the_inspector():
    class Broken(Recorder):
        def write(self, decision, frame):
            raise ZeroDivisionError("a defect")

    thread = SinkThread(Broken(), "broken", "wait", 1)
    for index in range(3):
        thread.write(*made(index))
    thread.close()
    assert thread.statistics().dropped == 3
    assert "ZeroDivisionError" in thread.statistics().fault


def test_a_sink_that_hangs_is_left_behind():
    sink = Recorder()
    sink.go.clear()
    thread = SinkThread(sink, "dead disk", "wait", 2)
    for index in range(3):
        thread.write(*made(index))
    blocked = threading.Thread(target=lambda: thread.write(*made(3)))
    blocked.start()
    with Stopwatch() as stopwatch:
        thread.close(0.1)
    assert stopwatch.seconds < 1.0, stopwatch
    blocked.join(PATIENCE_SECONDS)
    assert not blocked.is_alive(), "whoever waits for room is let go"
    assert sums(thread) == 4
    assert "did not finish" in thread.statistics().fault
    sink.go.set()


def test_images_do_not_wait_where_nobody_looks_at_them():
    seen = []

    class Looking(Recorder):
        def write(self, decision, frame):
            seen.append((decision.map, frame.image, decision.frame))

    thread = SinkThread(Looking(), "log", "wait", 2, images=False)
    thread.write(*made(7, "reject"))
    thread.close()
    assert seen == [(None, None, 7)]


def test_passes_do_not_crowd_out_a_reject():
    sink = Recorder()
    sink.go.clear()
    thread = SinkThread(sink, "rejects", "drop", 2, wanted=lambda d: d.verdict == "reject")
    for index in range(50):
        thread.write(*made(index, "reject" if index == 49 else "pass"))
        assert sums(thread) == index + 1
    sink.go.set()
    thread.close()
    assert sink.taken == [49]
    assert thread.statistics() == SinkStatistics("rejects", 50, 0, 0)


def test_a_sink_of_a_camera_that_fails_does_not_keep_the_others_open():
    sinks = {"left": Recorder(), "right": Recorder()}

    def fail():
        raise OutputError("cannot finish")

    sinks["left"].close = fail
    each = ByCamera(lambda camera: sinks[camera])
    for camera in sinks:
        each.write(*of_camera(camera, 0))
    with pytest.raises(OutputError, match="cannot finish"):
        each.close()
    assert sinks["right"].closed == 1


def test_a_full_disk_stops_rejects_until_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "RETRY_SECONDS", 0.01)
    full = [False]

    def check():
        if full[0]:
            raise OutputError("cannot record: 0 MiB are free.")

    sink = RejectImages(tmp_path, DRAW)
    thread = SinkThread(sink, "rejects", "wait", 2, check=check)
    for index in range(9):
        full[0] = 3 <= index < 6
        thread.write(*made(index, "reject"))
        until(lambda: not thread.statistics().waiting)
    thread.close()
    counts = thread.statistics()
    assert (counts.written, counts.dropped, counts.fault) == (6, 3, "")
    assert len([*tmp_path.glob("*.png")]) == 6


def test_a_report_that_fails_or_ends_the_thread_is_seen():
    """The terminal that a fault is told to may be gone; and no thread ends unseen."""
    sink = Recorder()
    sink.faulty = True

    def gone(*_):
        raise OSError("the terminal has gone")

    thread = SinkThread(sink, "rejects", "wait", 1, report=gone)
    thread.write(*made(0))
    until(lambda: thread.statistics().dropped == 1)
    sink.faulty = False
    thread.write(*made(1))
    until(lambda: sink.taken == [1])
    thread.close()

    def leave(*_):
        raise SystemExit

    sink = Recorder()
    sink.faulty = True
    thread = SinkThread(sink, "rejects", "wait", 1, report=leave)
    for index in range(5):  # nobody waits for room that will never be
        thread.write(*made(index))
    until(lambda: thread.statistics().dropped == 5)
    assert "thread has ended" in thread.statistics().fault
    assert sums(thread) == 5
    thread.close()
