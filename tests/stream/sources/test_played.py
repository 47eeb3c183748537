"""A file that plays as a camera: its rate, its rounds, its end."""

import time
from dataclasses import replace

import numpy as np
import pytest

from hvq_edge.errors import InputError
from hvq_edge.stream.sources.played import PlayedSource
from hvq_edge.stream.sources.source import arrived


class Film:
    """Three images at a rate."""

    live = False
    name = "film"

    def __init__(self, rate: float | None = 200.0) -> None:
        self.frames_per_second = rate
        self.closed = False

    def __iter__(self):
        for index in range(3):
            if self.closed:
                return
            yield arrived(index, np.full((4, 4, 3), index, np.uint8))

    def close(self) -> None:
        self.closed = True


def test_it_goes_round_and_numbers_on():
    source = PlayedSource(Film, Film())
    frames = []
    for frame in source:
        frames.append(frame)
        if len(frames) == 7:
            source.close()
    assert [frame.index for frame in frames] == list(range(7))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 1, 2, 0, 1, 2, 0]
    assert source.live


def test_frames_come_at_the_files_rate():
    source = PlayedSource(Film, Film(50.0))
    began = time.monotonic()
    for frame in source:
        if frame.index == 10:
            source.close()
    assert time.monotonic() - began >= 10 / 50.0
    moments = replace(frame).arrived - began
    assert moments >= 10 / 50.0, "arrival is when it was shown, not when it was read"


def test_images_without_a_rate_have_one():
    assert PlayedSource(Film, Film(None)).frames_per_second == 4.0


def test_a_file_that_goes_away_is_a_lost_frame():
    def gone():
        raise InputError("the film is gone.")

    source = PlayedSource(gone, Film())
    frames = []
    for frame in source:
        frames.append(frame)
        if frame.image is None:
            source.close()
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert frames[-1].fault == "the film is gone."


@pytest.mark.parametrize("times", [1, 2])
def test_it_ends_before_it_began(times):
    source = PlayedSource(Film, Film())
    for _ in range(times):
        source.close()
    assert list(source) == []
