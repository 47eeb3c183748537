"""The counter of a camera: what never came, came twice, or came in parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.stream.sources.cameras.frame_counter import FrameCounter, Transport, added

MILLISECOND = 10**6


def steps(*numbers, wraps=True, times=None):
    counter = FrameCounter(wraps=wraps)
    times = times or [40 * MILLISECOND * (1 + i) for i in range(len(numbers))]
    return [counter.step(number, time) for number, time in zip(numbers, times, strict=True)]


def test_frames_in_order_are_nothing_to_speak_of():
    assert {(one.missed, one.doubled, one.said) for one in steps(7, 8, 9)} == {(0, False, "")}


@given(first=st.integers(1, 65535), lost=st.integers(0, 30000))
def test_sixteen_bits_go_on_at_one(first, lost):
    following = (first + lost) % 65535 + 1
    _, step = steps(first, following)
    assert (step.missed, step.doubled) == (lost, False)


@given(first=st.integers(0, 2**64 - 40000), lost=st.integers(0, 30000))
def test_a_long_counter_does_not_wrap(first, lost):
    _, step = steps(first, first + lost + 1, wraps=False)
    assert (step.missed, step.doubled) == (lost, False)


def test_numbers_beyond_sixteen_bits_do_not_wrap_either():
    assert steps(65534, 65536)[1].missed == 1


def test_what_is_missing_is_said_with_the_time_between():
    _, step = steps(17, 21, times=[10**9, 10**9 + 160 * MILLISECOND])
    assert step.said == "the camera's numbers went from 17 to 21, 0.160 s apart by its clock"
    assert steps(17, 21, times=[0, 0])[1].said == "the camera's numbers went from 17 to 21"


def test_the_same_frame_once_more_is_told_from_two_frames_of_one_number():
    again, other = steps(5, 5, times=[9, 9])[1], steps(5, 5, times=[9, 40 * MILLISECOND])[1]
    assert (again.doubled, again.resent) == (True, True)
    assert (other.doubled, other.resent) == (True, False), "it may be another part: it is judged"


def test_a_number_from_before_is_doubled_and_nothing_is_missed():
    _, step, after = steps(20, 18, 19)
    assert (step.missed, step.doubled, step.resent) == (0, True, False)
    assert (after.missed, after.doubled) == (0, False)


def test_frames_in_parts_take_the_places_of_those_between():
    counter = FrameCounter(wraps=True)
    counter.step(5, 0)
    counter.without_number()
    counter.without_number()
    assert counter.step(9, 0).missed == 1
    assert counter.step(12, 0).missed == 2


def test_a_camera_that_does_not_count_is_left_alone():
    assert all(not one.said for one in steps(0, 0, 0))


@pytest.mark.parametrize("incomplete", ["", "frame 4 is incomplete"])
def test_counts_go_on(incomplete):
    before = Transport(missed=3, doubled=1, incomplete=2, last="before")
    after = added(before, steps(1, 4)[1], incomplete)
    assert after.counts == {"missed": 5, "doubled": 1, "incomplete": 2 + bool(incomplete)}
    assert "from 1 to 4" in after.last
    assert incomplete in after.last
    assert added(before, steps(1, 2)[1]) == before
