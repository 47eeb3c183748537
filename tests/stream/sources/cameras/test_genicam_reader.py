"""Frames of industrial cameras: missed, doubled, incomplete or late, from a stand-in for Aravis."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hvq_edge.stream.capture.open_cameras import open_cameras
from hvq_edge.stream.settings import load_stream_settings
from hvq_edge.stream.sources import source as source_module
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.cameras.genicam_reader import MOST_LOST, GenicamReader
from hvq_edge.stream.sources.cameras.live_capture import LiveCapture
from hvq_edge.stream.sources.cameras.pixel_formats import CODES
from hvq_edge.stream.sources.source import comes_on_demand, is_camera


class Buffer:
    """A buffer of a stand-in."""

    def __init__(self, number, time=None, status="SUCCESS", data=bytes(6), chunk=None):
        self.number, self.time, self.data, self.chunk = number, time, data, chunk
        self.status = SimpleNamespace(name=status, value_nick=status.lower())

    def get_status(self):
        return STATUS[self.status.name]

    def get_frame_id(self):
        return self.number

    def get_timestamp(self):
        return self.number * 40_000_000 if self.time is None else self.time

    def get_image_pixel_format(self):
        return CODES["Mono8"]

    def has_chunks(self):
        return self.chunk is not None

    def get_data(self):
        raise AssertionError("the image is a part of it")

    def get_image_data(self):
        return self.data

    def get_image_width(self):
        return 3

    def get_image_height(self):
        return 2

    def get_image_padding(self):
        return SimpleNamespace(x_padding=0)


STATUS = {
    name: SimpleNamespace(value_nick=name.lower().replace("_", "-"))
    for name in ("SUCCESS", "ABORTED", "MISSING_PACKETS")
}


class StandIn:
    """A camera that gives these buffers, then nothing, and may lose its control."""

    def __init__(self, *buffers, chunks=()):
        self.left = list(buffers)
        self.chunks = chunks
        self.asked = []
        self.back = []
        self.lose = None
        self.started = False
        self.stopped = 0

    def get_device(self):
        return self

    def connect(self, signal, function):
        assert signal == "control-lost"
        self.lose = lambda: function(self)
        return 1

    def disconnect(self, handler):
        self.lose = None

    def create_stream(self, *_):
        return self

    def get_payload(self):
        return 6

    def push_buffer(self, buffer):
        self.back.append(buffer)

    def timeout_pop_buffer(self, microseconds):
        assert microseconds <= 500_000, "a stop must not wait for long"
        return self.left.pop(0) if self.left else None

    def start_acquisition(self):
        self.started = True

    def stop_acquisition(self):
        self.stopped += 1

    def is_uv_device(self):
        return False

    def is_gv_device(self):
        return True

    def get_timestamp_tick_frequency(self):
        return 125_000_000

    def are_chunks_available(self):
        return bool(self.chunks)

    def set_chunk_mode(self, active):
        self.asked.append(("mode", active))

    def set_chunk_state(self, name, state):
        if name not in self.chunks:
            raise OSError(f"'{name}' not an entry")
        self.asked.append((name, state))

    def create_chunk_parser(self):
        return self

    def get_integer_value(self, buffer, name):
        assert name == "ChunkTimestamp"
        if not buffer.chunk:
            raise OSError("not found")
        return buffer.chunk

    def is_frame_rate_available(self):
        return False


def opened(*buffers, silence=None, chunks=()):
    camera = StandIn(*buffers, chunks=chunks)
    link = SimpleNamespace(transport=Transport())
    library = SimpleNamespace(
        BufferStatus=SimpleNamespace(**STATUS),
        Buffer=SimpleNamespace(new_allocate=bytearray, get_image_data=None),
    )
    reader = GenicamReader(library, camera, OSError, buffers=2, silence=silence, link=link)
    return camera, reader, link


def read_all(camera, reader):
    """What it gives until its camera has nothing more, images as True."""
    found = []
    while camera.left or not found or found[-1] != "":
        one = reader.read()
        found.append(one if isinstance(one, str) else True)
    return [one for one in found if one != ""]


def test_nothing_is_taken_before_somebody_reads():
    """What waited while the engine was opened would be judged, or be missing."""
    camera, reader, _ = opened(Buffer(1))
    assert not camera.started
    reader.read()
    assert camera.started


def test_each_frame_that_never_came_to_a_triggered_line_is_a_lost_frame():
    camera, reader, link = opened(Buffer(7), Buffer(10), Buffer(11))
    found = read_all(camera, reader)
    assert [one is True for one in found] == [True, False, False, True, True]
    assert "from 7 to 10, 0.120 s apart" in found[1]
    assert link.transport.counts == {"missed": 2, "doubled": 0, "incomplete": 0}
    assert len(camera.back) == 2 + 3, "every buffer goes back to the camera"


def test_a_camera_that_runs_by_itself_only_counts_them():
    camera, reader, link = opened(Buffer(7), Buffer(10), silence=60.0)
    assert read_all(camera, reader) == [True, True]
    assert link.transport.missed == 2


def test_a_jump_of_the_counter_does_not_flood_the_line():
    camera, reader, link = opened(Buffer(1), Buffer(30001))
    assert len(read_all(camera, reader)) == 2 + MOST_LOST
    assert link.transport.missed == 29999


def test_incomplete_frames_are_never_judged():
    short = Buffer(3, data=bytes(5))
    camera, reader, link = opened(Buffer(1), Buffer(2, status="MISSING_PACKETS"), short)
    found = read_all(camera, reader)
    assert found[0] is True
    assert found[1] == "a frame of the camera is incomplete (missing-packets)"
    assert "frame 3 of the camera is incomplete: 5 bytes" in found[2]
    assert link.transport.incomplete == 2


def test_an_incomplete_frame_with_the_number_of_before_is_neither_missed_nor_doubled():
    """Without its first packet a frame has the number that its memory had eight frames ago."""
    parts = {"status": "MISSING_PACKETS"}
    camera, reader, link = opened(
        *map(Buffer, (7, 8, 9)), Buffer(2, **parts), *map(Buffer, (11, 14))
    )
    assert [one is True for one in read_all(camera, reader)] == [
        *[True] * 3,
        False,
        True,
        *[False] * 2,
        True,
    ]
    assert link.transport.counts == {"missed": 2, "doubled": 0, "incomplete": 1}


def test_an_older_library_gives_the_whole_buffer():
    class Older(Buffer):
        get_image_padding = get_image_data = property()  # neither is there

        def get_data(self):
            return self.data

    camera, reader, _ = opened(Older(1))
    assert read_all(camera, reader) == [True]


def test_a_frame_sent_twice_is_judged_once_and_two_of_one_number_twice():
    camera, reader, link = opened(Buffer(1), Buffer(1), Buffer(1, time=99_000_000), Buffer(2))
    assert read_all(camera, reader) == [True, True, True]
    assert link.transport.doubled == 2


def test_the_time_of_exposure_is_read_behind_the_image_where_it_is_offered():
    second = 125_000_000  # in ticks
    camera, reader, link = opened(
        Buffer(1, chunk=second), Buffer(3, chunk=3 * second), chunks=("Timestamp", "ExposureTime")
    )
    assert camera.asked == [("mode", True), ("Timestamp", True)]
    read_all(camera, reader)
    assert (
        link.transport.last == "the camera's numbers went from 1 to 3, 2.000 s apart by its clock"
    )


@pytest.mark.parametrize("chunk", [None, 0])
def test_a_camera_that_writes_no_time_there_gives_that_of_its_first_packet(chunk):
    camera, reader, link = opened(Buffer(1, chunk=chunk), Buffer(3, chunk=5), chunks=("Timestamp",))
    assert [one is True for one in read_all(camera, reader)] == [True, False, True]
    assert "from 1 to 3, 0.080 s apart" in link.transport.last, "the clocks are not mixed"


def test_a_camera_with_other_chunks_is_left_without():
    camera, _, _ = opened(chunks=("ExposureTime",))
    assert camera.asked == [("mode", True), ("mode", False)]


def test_what_a_frame_waited_is_a_part_of_its_latency(monkeypatch):
    """Three were exposed 40 ms apart, and read at once after the engine was busy."""
    _, reader, link = opened(*map(Buffer, (1, 2, 3, 4)))
    source = LiveCapture(
        lambda: None, "genicam://a", reader, triggered=True, transport=lambda: link.transport
    )
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(source_module, "monotonic", lambda: now[0])
    monkeypatch.setattr(source_module, "time", lambda: now[0] + 1e9)
    frames = iter(source)
    found = []
    for later in (0.0, 0.2, 0.0, 0.0):
        now[0] += later
        found.append((now[0], next(frames)))
    waited = [read - frame.arrived for read, frame in found]
    assert waited == pytest.approx([0.0, 0.16, 0.12, 0.08], abs=2e-4)
    assert [frame.time - 1e9 for _, frame in found] == pytest.approx(
        [frame.arrived for _, frame in found], abs=1e-6
    )


def test_silence_of_a_triggered_camera_is_no_fault_and_lost_control_is():
    camera, reader, link = opened(Buffer(1))
    source = LiveCapture(
        lambda: None,
        "genicam://a",
        reader,
        first_wait=30.0,
        triggered=True,
        transport=lambda: link.transport,
    )
    assert not source.live, "no frame of it is dropped"
    assert is_camera(source), "it may freeze"
    assert comes_on_demand(source)
    frames = iter(source)
    assert next(frames).image is not None
    assert reader.read() == ""
    camera.lose()
    assert next(frames).fault == "genicam://a gave no image"
    assert next(frames).fault
    assert not comes_on_demand(source), "now frames are due: it is lost"
    assert not camera.stopped, "a camera that is gone is not asked to stop"
    source.close()


def test_silence_of_a_camera_that_runs_by_itself_is_a_fault():
    _, reader, _ = opened(silence=1e-9)
    assert reader.read() is None


def test_a_stream_that_ends_gives_nothing_more():
    camera, reader, link = opened(Buffer(1, status="ABORTED"))
    assert read_all(camera, reader) == []
    assert link.transport == Transport()
    reader.release()
    reader.release()
    assert camera.stopped == 1


def test_transport_is_seen_through_what_stands_before_a_camera(monkeypatch):
    counts = Transport(missed=3)
    _, reader, _ = opened()
    source = LiveCapture(lambda: None, "genicam://a", reader, transport=lambda: counts)
    monkeypatch.setattr("hvq_edge.stream.capture.open_cameras.open_source", lambda *_: source)
    settings = load_stream_settings(cameras=["genicam://a"])
    (whole,) = open_cameras(settings.cameras).sources
    assert whole.transport == replace(counts)
