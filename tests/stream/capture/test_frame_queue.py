"""The queue between a camera and the engine."""

from __future__ import annotations

import threading

import pytest
from helpers.images import flat
from helpers.patience import PATIENCE_SECONDS, until

from hvq_edge.stream.capture.camera_lane import FrameQueue
from hvq_edge.stream.sources.source import arrived


@pytest.fixture
def waiting_for_room() -> tuple[FrameQueue, threading.Thread]:
    """A queue with one frame, and a thread that has begun to put a second."""
    queue = FrameQueue("all")
    queue.put(arrived(0, flat(1)))
    second = threading.Thread(target=queue.put, args=(arrived(1, flat(1)),))
    second.start()
    until(lambda: queue.received == 2)
    return queue, second


def test_queue_all_waits_for_room(waiting_for_room):
    queue, second = waiting_for_room
    assert second.is_alive(), "back-pressure"
    assert queue.get(1).index == 0
    second.join(PATIENCE_SECONDS)
    assert queue.get(1).index == 1
    assert queue.get(0.01) is None
    assert not queue.exhausted
    queue.end()
    assert queue.exhausted
    assert (queue.received, queue.taken, queue.dropped) == (2, 2, 0)


def test_abandoned_queue_counts_what_waits_and_lets_go_of_who_waits(waiting_for_room):
    queue, second = waiting_for_room
    queue.abandon()
    second.join(PATIENCE_SECONDS)
    assert not second.is_alive()
    assert (queue.received, queue.taken, queue.dropped) == (2, 0, 2)
