"""Industrial cameras: addresses, settings, pixel formats, and what is missing on the way.

Aravis's camera within the process gives the images.
"""

from __future__ import annotations

import itertools
import json
import time

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
from hvq_edge.stream.sources.cameras import genicam
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.cameras.genicam import GenicamDevice, _meant, parse_genicam
from hvq_edge.stream.sources.cameras.pixel_formats import CODES
from hvq_edge.stream.sources.open_source import open_source, shown_address

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
