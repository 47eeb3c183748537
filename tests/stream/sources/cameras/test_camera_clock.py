"""A camera's clock: another zero, another rate, a clock that is set, and none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.stream.sources.cameras.camera_clock import DRIFT, LONGEST_WAIT_SECONDS, CameraClock

SECOND = 1_000_000_000


def waited(frames):
    """By (camera's seconds, seconds at which it was received)."""
    clock = CameraClock()
    return [came - clock.due(round(time * SECOND), came) for time, came in frames]


def test_the_slower_of_two_waited():
    assert waited([(5.0, 1000.0), (6.0, 1001.3), (7.0, 1002.0)]) == pytest.approx(
        [0.0, 0.3, 0.0], abs=1e-3
    )


def test_a_first_frame_that_waited_is_found_by_a_later_one():
    assert waited([(5.0, 1000.8), (6.0, 1001.0), (7.0, 1002.5)]) == pytest.approx(
        [0.0, 0.0, 0.5], abs=1e-3
    )


@pytest.mark.parametrize("rate", [1 - DRIFT / 2, 1.0, 1 + DRIFT / 2])
def test_days_of_another_rate_make_no_wait(rate):
    days = 3
    frames = [(1 + minute * 60 * rate, minute * 60.0) for minute in range(days * 24 * 60)]
    assert max(waited(frames)) < 0.1


@pytest.mark.parametrize("time", [0.001, 2.0, 1e9])
def test_a_clock_that_is_set_ties_it_anew(time):
    assert waited([(1.0, 10.0), (2.0, 11.0), (time, 12.0)]) == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_camera_without_a_clock_makes_no_claim():
    assert waited([(0, 10.0), (0, 11.0)]) == [0.0, 0.0]


@given(st.lists(st.tuples(st.integers(0, 2**63), st.floats(0, 1e5)), max_size=30))
def test_whatever_a_clock_says_frames_are_in_order_and_none_comes_before_it_is_due(steps):
    clock, came, before = CameraClock(), 0.0, 0.0
    for time, since in steps:
        came += since
        due = clock.due(time, came)
        assert due <= came
        assert came - due <= LONGEST_WAIT_SECONDS + 1e-3
        assert due >= before or time == 0
        before = due
