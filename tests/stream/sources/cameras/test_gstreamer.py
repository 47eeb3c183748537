"""Pipelines through PyGObject: odd sizes, ends, faults, and network cameras decoded that way."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers import system_gi
from helpers.patience import until

from hvq_edge.errors import MissingCapability
from hvq_edge.stream.sources.cameras import appsink, gstreamer, rtsp_camera
from hvq_edge.stream.sources.cameras.appsink import AppsinkReader, hardware_decoders
from hvq_edge.stream.sources.cameras.rtsp_camera import rtsp_pipeline
from hvq_edge.stream.sources.open_source import open_source

LACKS = system_gi.lacks("gir1.2-gstreamer-1.0", "Gst", "1.0")
needs_gstreamer = pytest.mark.skipif(bool(LACKS), reason=LACKS or "it is installed")
TEST = "gst:videotestsrc is-live=true"


@pytest.fixture
def gst(monkeypatch):
    system_gi.seen(monkeypatch)
    return appsink.gstreamer_library()


def threads() -> int:
    return len([*Path("/proc/self/task").iterdir()])


@needs_gstreamer
@pytest.mark.parametrize(("width", "height"), [(320, 240), (321, 243), (33, 5)])
def test_lines_of_any_width_are_taken_without_what_fills_them_up(gst, width, height):
    source = open_source(
        f"{TEST} pattern=solid-color foreground-color=0xff0a6432 "
        f"! video/x-raw,width={width},height={height},framerate=60/1"
    )
    assert isinstance(source._reader, AppsinkReader)
    assert source.live
    assert source.frames_per_second == 60.0
    for frame in itertools.islice(source, 2):
        assert frame.image.shape == (height, width, 3)
        assert np.abs(frame.image.astype(int) - (10, 100, 50)).max() <= 3, "red, green, blue"
    source.close()


@needs_gstreamer
@pytest.mark.parametrize("form", ["GRAY8", "RGB", "BGR"])
def test_an_appsink_of_its_own_keeps_the_newest_image_too(gst, form):
    source = open_source(f"{TEST} pattern=blue ! video/x-raw,format={form},width=33 ! appsink")
    sink = source._reader._sink
    assert (sink.get_property("max-buffers"), sink.get_property("drop")) == (1, True)
    (frame,) = itertools.islice(source, 1)
    blue = frame.image.astype(int)
    assert blue.shape[1:] == (33, 3)
    assert (blue[..., 2] > 200).all() if form != "GRAY8" else (blue.std(axis=2) == 0).all()
    source.close()


BAD_PIPELINES = {
    "nosuchelement ! fakesink": 'no element "nosuchelement"',
    "videotestsrc nosuch=3": 'no property "nosuch" in element "videotestsrc"',
    "videotestsrc pattern=s3cret": 'could not set property "pattern" .* to "..."',
    "videotestsrc ! video/x-raw,format=NOPE": r"caps video/x-raw, format=\(string\)NOPE",
    "videotestsrc ! audio/x-raw": "could not link .* caps audio/x-raw",
    "videotestsrc ! video/x-raw,format=I420 ! appsink": "gives I420 and not one of BGR",
    "videotestsrc num-buffers=0": "it ended by itself",
    "filesrc location=/nonexistent/s3cret ! decodebin": "Resource not found: No such file",
    "filesrc location='/non existent/a s3cret' ! decodebin": "Resource not found",
    "multifilesrc location=/nonexistent/s3cret%05d.png ! pngdec": "Error while reading from file",
    "filesrc location=/dev/zero": "not-negotiated",
    "rtspsrc user-id=me user-pw=my s3cret location=rtsp://127.0.0.1:1/": 'no element "..."',
    "( videotestsrc ! appsink )": "no appsink, or is no whole pipeline",
    "videotestsrc ! fakesink name=appsink": "could not link ... to videoconvert",
    "videotestsrc (": "syntax error",
    "filesrc location=/dev/zero blocksize=1000 ! video/x-raw,format=BGR,width=100,height=30,"
    "framerate=30/1 ! appsink": "gave ... bytes for 100x30 pixels",
}


@needs_gstreamer
@pytest.mark.parametrize("pipeline", BAD_PIPELINES)
def test_a_pipeline_without_images_says_why_in_the_words_of_gstreamer(gst, pipeline):
    with pytest.raises(MissingCapability, match=BAD_PIPELINES[pipeline]) as raised:
        open_source(f"gst:{pipeline}")
    assert "s3cret" not in raised.value.cause
    assert "nonexistent" not in raised.value.cause


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("at http://u:s3cret@host/x, Redirect to: (NULL)", "at ... Redirect to: (NULL)"),
        ('wrong password "s3cret!"', 'wrong password "..."'),
        ("not authorised: s3cret!", "not authorised: ..."),
        ('no property "user-pwd" in element "rtspsrc"', None),
        ("could not link rtspsrc0 to x0 with caps video/x-raw, format=(string)I420", None),
    ],
)
def test_a_reason_shows_no_value_of_a_pipeline(reason, said):
    pipeline = "rtspsrc user-pw=s3cret! user-pwd=I421 ! video/x-raw,format=I420 ! x"
    assert gstreamer.without_values(reason, pipeline) == (said or reason)


@needs_gstreamer
def test_a_csi_camera_that_cannot_be_opened_says_why(gst):
    with pytest.raises(MissingCapability, match='cannot be opened: no element "nvarguscamerasrc"'):
        open_source("csi://0")


@needs_gstreamer
@pytest.mark.parametrize(
    "ending", ["videotestsrc num-buffers=30", "videotestsrc is-live=true ! identity error-after=30"]
)
def test_a_pipeline_that_ends_or_fails_is_a_gap_and_runs_again(gst, ending):
    source = open_source(f"gst:{ending} ! video/x-raw,framerate=100/1")
    frames = list(itertools.islice(source, 64))  # a busy machine drops most of them
    seen = [frame.image is not None for frame in frames]
    assert seen.count(False) >= 2
    assert any(seen[seen.index(False) :]), "it is opened again"
    assert {frame.fault for frame in frames} == {"", "gst:videotestsrc gave no image"}
    source.close()


@needs_gstreamer
def test_a_pipeline_that_is_closed_leaves_no_thread(gst):
    counts = []
    for _ in range(3):
        source = open_source(TEST)
        next(iter(source))
        source.close()
        source._release()
        counts.append(threads())
    # Not equal: threads of other tests may end meanwhile.
    until(lambda: threads() <= counts[0], "its threads end")


def test_a_network_camera_without_a_decoder_in_hardware_goes_through_ffmpeg(monkeypatch):
    monkeypatch.setattr(rtsp_camera, "gstreamer_library", lambda: None)
    monkeypatch.setattr(rtsp_camera, "hardware_decoders", lambda _: [])
    assert rtsp_camera._in_hardware("rtsp://h/x") is None
    monkeypatch.setattr(rtsp_camera, "hardware_decoders", lambda _: ["nvv4l2decoder"])
    assert rtsp_camera._in_hardware("rtsp://h/x") is not None
    assert "decodebin ! nvvidconv !" in rtsp_pipeline("nvv4l2decoder")
    assert "nvvidconv" not in rtsp_pipeline("vah264dec")


@needs_gstreamer
def test_what_decodes_here_is_known(gst):
    assert set(hardware_decoders(gst)) <= set(appsink.HARDWARE_DECODERS)
