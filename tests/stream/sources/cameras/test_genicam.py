"""Industrial cameras: addresses, settings, pixel formats, and what is missing on the way.

Aravis's camera within the process gives the images; what no such camera does, a stand-in does.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import system_gi
from helpers.patience import until
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hvq_edge.cli.app import app
from hvq_edge.errors import InputError, MissingCapability, SettingsError
from hvq_edge.stream.capture.open_cameras import open_cameras
from hvq_edge.stream.settings import load_stream_settings
from hvq_edge.stream.sources import source as source_module
from hvq_edge.stream.sources.cameras import genicam
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.cameras.genicam import GenicamDevice, _meant, parse_genicam
from hvq_edge.stream.sources.cameras.genicam_reader import MOST_LOST, GenicamReader
from hvq_edge.stream.sources.cameras.live_capture import LiveCapture
from hvq_edge.stream.sources.cameras.pixel_formats import CODES
from hvq_edge.stream.sources.open_source import open_source, shown_address
from hvq_edge.stream.sources.source import comes_on_demand

LACKS = system_gi.lacks("gir1.2-aravis-0.8", "Aravis", "0.8")
needs_aravis = pytest.mark.skipif(bool(LACKS), reason=LACKS or "it is installed")
ADDRESS = "genicam://GV7?exposure=5000&gain=1.5&trigger=Line0&pixel_format=Mono12p&buffers=3"


@pytest.fixture
def aravis(monkeypatch):
    """Aravis with its camera within the process alone: no network is asked."""
    system_gi.seen(monkeypatch)
    library = genicam._aravis()
    networks = ("GigEVision", "USB3Vision")
    for name in networks:
        library.disable_interface(name)
    library.enable_interface("Fake")
    yield library
    library.disable_interface("Fake")
    for name in networks:  # the library is one for the process, and other tests ask the network
        library.enable_interface(name)


def device(serial, name=None):
    return GenicamDevice(name or f"Maker-{serial}", "Maker", "M1", serial, "GigEVision", "10.0.0.9")


def test_an_address_holds_settings():
    part, options = parse_genicam(ADDRESS.removeprefix("genicam://"))
    assert part == "GV7"
    assert (options.exposure, options.gain, options.trigger) == (5000.0, 1.5, "Line0")
    assert (options.pixel_format, options.buffers, options.packet_size) == ("Mono12p", 3, None)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("exposer=5", "did you mean exposure"),
        ("exposure=0", "greater than 0"),
        ("exposure=nan", "exposure"),
        ("buffers=1.5", "buffers"),
        ("exposure", "NAME=VALUE"),
        ("exposure=5&exposure=6", "exposure is given more than once"),
    ],
)
def test_settings_that_are_none(query, said):
    with pytest.raises(InputError, match=said) as raised:
        open_source(f"genicam://GV7?{query}")
    assert "packet_size" in raised.value.next_step


@given(st.text())
def test_any_text_is_an_address_or_an_input_error(text):
    try:
        part, _ = parse_genicam(text)
    except InputError:
        return
    assert "?" not in part


def test_settings_are_shown_and_survive_a_settings_file(tmp_path):
    assert shown_address(ADDRESS) == ADDRESS
    file = tmp_path / "stream.toml"
    file.write_text(load_stream_settings(cameras=[ADDRESS]).to_toml())
    assert load_stream_settings(file).cameras[0].camera == ADDRESS


def test_a_camera_has_one_trigger():
    with pytest.raises(SettingsError, match="own trigger and trigger_file"):
        load_stream_settings(cameras=[ADDRESS], each_camera={"trigger_file": "part"})


def test_a_camera_is_meant_by_serial_number_or_by_a_part_of_its_id():
    two = [device("1"), device("12")]
    assert _meant("1", two).serial == "1"
    assert _meant("Maker-12", two).serial == "12"
    assert _meant("R-12", two).serial == "12"
    with pytest.raises(InputError, match=r"several cameras.*Maker-1, Maker-12"):
        _meant("maker", two)
    with pytest.raises(MissingCapability, match="no camera genicam://3 "):
        _meant("3", two)
    with pytest.raises(InputError, match="names no camera"):
        _meant("", two)


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gi", None)
    with pytest.raises(MissingCapability, match="PyGObject") as raised:
        open_source("genicam://GV7")
    assert "apt install python3-gi gir1.2-aravis-0.8" in raised.value.next_step


@pytest.mark.parametrize("devices", [[], [device("GV7"), device("GV8")]])
def test_an_address_without_a_camera_lists_them(monkeypatch, devices):
    monkeypatch.setattr(genicam, "found_devices", lambda: devices)
    done = CliRunner().invoke(app, ["stream", "--camera", "genicam://", "--json"])
    assert done.exit_code == 0
    assert [one["serial"] for one in json.loads(done.stdout)["cameras"]] == [
        one.serial for one in devices
    ]
    done = CliRunner().invoke(app, ["stream", "--camera", "genicam://"])
    assert done.exit_code == 0
    assert all(one.id in done.output for one in devices)
    assert devices or "No camera answers" in done.output


ANOTHER_NAME = {
    "RGB8": "RGB8PACKED",
    "BGR8": "BGR8PACKED",
    "YUV422_8_UYVY": "YUV422PACKED",
    "YUV422_8": "YUV422YUYVPACKED",
}
"""In Aravis, which keeps those of the first GigE Vision."""


@needs_aravis
def test_the_codes_are_those_of_the_library(aravis):
    """Where it has one: it knows more of them in every version."""
    written: dict[int, list[str]] = {}
    for name in dir(aravis):
        if name.startswith("PIXEL_FORMAT_"):
            plain = name.removeprefix("PIXEL_FORMAT_").replace("_", "")
            written.setdefault(getattr(aravis, name) & 0xFFFFFFFF, []).append(plain)
    known = {name: code for name, code in CODES.items() if code in written}
    for name, code in known.items():
        assert ANOTHER_NAME.get(name, name.upper()) in written[code]
    assert len(known) > len(CODES) / 2


@needs_aravis
@pytest.mark.parametrize("form", ["Mono8", "Mono16", "RGB8", "BayerRG8", "BayerGB8"])
def test_images_of_each_format_look_alike(aravis, form):
    source = open_source(f"genicam://Fake_1?pixel_format={form}&exposure=9000&gain=0")
    assert source.live
    assert source.frames_per_second == pytest.approx(25.0)
    frames = list(itertools.islice(source, 3))
    assert [frame.index for frame in frames] == [0, 1, 2]
    for frame in frames:
        assert frame.image.shape == (512, 512, 3)
        assert frame.image.dtype == np.uint8
    assert source.transport == Transport()
    grey = frames[0].image.mean(axis=2)
    assert grey.std() > 20, "its picture is a ramp"


@needs_aravis
def test_size_and_rate_are_asked_for(aravis):
    settings = load_stream_settings(
        cameras=["genicam://Fake_1"], each_camera={"resolution": [320, 240], "fps": 50}
    )
    cameras = open_cameras(settings.cameras)
    (source,) = cameras.sources
    assert source.frames_per_second == pytest.approx(50.0)
    assert next(iter(source)).image.shape == (240, 320, 3)
    cameras.close()


@needs_aravis
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("pixel_format=Mono12p", "no pixel format of Mono12p"),
        ("exposure=1e12", "10 to 1e.07 as exposure"),
        ("gain=99", "0 to 10 as gain"),
        ("trigger=Line9", "no trigger of Line9"),
        ("packet_size=1500", "no GigE Vision camera"),
    ],
)
def test_what_a_camera_does_not_take_is_said(aravis, query, said):
    with pytest.raises(SettingsError, match=said) as raised:
        open_source(f"genicam://Fake_1?{query}")
    assert raised.value.next_step


@needs_aravis
def test_a_frame_that_waited_in_memory_has_the_time_at_which_it_was_taken(aravis):
    source = open_source("genicam://Fake_1")
    frames = iter(source)
    next(frames)
    until(lambda: source._reader._stream.get_n_buffers()[1] >= 4, "four frames wait")
    before = time.monotonic()
    first, second = itertools.islice(frames, 2)
    assert first.arrived < second.arrived < before
    assert second.time - first.time == pytest.approx(second.arrived - first.arrived, abs=0.01)
    source.close()
    assert next(frames, None) is None


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
