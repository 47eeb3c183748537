"""Video files that end: which of them end too early."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.images import make_texture

from hvq_edge.stream.sources.open_source import open_source

RATE = 60


def write(path, starts, codec="mpeg4"):
    """Frames that start at these sixtieths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for seed, start in enumerate(starts):
            image = make_texture(seed, height=64, width=64)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            frame.pts, frame.time_base = start, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def faults(path):
    return [frame.fault for frame in open_source(path) if frame.fault]


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".mp4", ".ts"])
def test_a_video_of_varying_rate_is_whole(tmp_path, suffix):
    path = write(tmp_path / f"film{suffix}", [0, 1, 30, 90, 120, 290, 330])
    frames = list(open_source(path))
    assert [frame.fault for frame in frames] == [""] * 7


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
@pytest.mark.parametrize("step", [1, 20])
def test_a_video_that_is_cut_off_says_how_much_there_is(tmp_path, suffix, step):
    whole = write(tmp_path / f"whole{suffix}", range(0, 40 * step, step))
    assert faults(whole) == []
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (fault,) = faults(cut)
    assert "the video ends after" in fault
    assert (" frames: it is damaged" if suffix == ".avi" else " s, with ") in fault


def test_frames_before_an_edit_lists_start_are_not_missing(tmp_path):
    """As cut without encoding again: what precedes the cut is in the file and not shown."""
    whole = write(tmp_path / "whole.mp4", range(40))
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        first = Fraction(20, RATE)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                shift = round(first / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - shift,
                    packet.dts - shift,
                    stream,
                )
                target.mux(packet)
    frames = list(open_source(cut))
    assert len(frames) < 40
    assert all(frame.image is not None for frame in frames)
