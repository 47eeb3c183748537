"""Frames before anyone sees them: skipped, turned, cut out, masked; and the parts of a series."""

from __future__ import annotations

import os
import sys
import time

import cv2
import numpy as np
import pytest
from helpers.images import flat, make_texture, write_png
from helpers.patience import PATIENCE_SECONDS, until
from helpers.sources import FlakyReader, ListSource
from helpers.watching import watch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.errors import InputError, MissingCapability, SettingsError
from hvq_edge.stream.capture.prepared import FILL, Preparation, PreparedSource, bounding_box
from hvq_edge.stream.sources.cameras import gstreamer
from hvq_edge.stream.sources.cameras.gstreamer import shown_pipeline, whole_pipeline
from hvq_edge.stream.sources.cameras.opencv_capture import CaptureFormat
from hvq_edge.stream.sources.open_source import open_source
from hvq_edge.stream.sources.source import unique_names


def prepared(images, **preparation):
    return list(PreparedSource(ListSource(images), Preparation(**preparation)))


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(1, 7))
def test_skipped_frames_keep_their_numbers_and_lost_ones_are_never_skipped(there, every):
    frames = prepared([flat(1, 16) if one else None for one in there], every=every)
    expected = [i for i, one in enumerate(there) if not one or i % every == 0]
    assert [frame.index for frame in frames] == expected


def test_rate_follows_what_is_skipped():
    source = PreparedSource(ListSource([], frames_per_second=30.0), Preparation(every=5), "left")
    assert source.frames_per_second == pytest.approx(6.0)
    assert source.name == "left"
    source.close()
    assert source._source.closed.is_set()


@pytest.mark.parametrize(("degrees", "corner"), [(0, (2, 5)), (90, (5, 17)), (180, (17, 34))])
def test_turned_clockwise_then_cut_out(degrees, corner):
    image = flat(0, 64)[:20, :40].copy()
    image[2, 5] = 255  # row 2, column 5 of 20 x 40
    (frame,) = prepared([image], rotate=degrees)
    assert tuple(np.argwhere(frame.image[..., 0])[0]) == corner
    (cut,) = prepared([image], rotate=degrees, roi=(corner[1], corner[0], 3, 2))
    assert cut.image.shape == (2, 3, 3)
    assert cut.image[0, 0, 0] == 255
    assert cut.image.flags.c_contiguous


def test_turned_left():
    (frame,) = prepared([make_texture(1, height=20, width=40)], rotate=270)
    assert frame.image.shape == (40, 20, 3)


def test_a_region_beyond_the_image_is_a_lost_frame_and_says_so():
    first, second = prepared([flat(1, 32), flat(1, 64)], roi=(10, 10, 30, 30))
    assert first.image is None
    assert first.fault == "the region 10,10,30,30 does not lie in an image of 32x32"
    assert second.image.shape == (30, 30, 3)


def test_outside_a_polygon_is_filled_and_inside_is_kept():
    image = make_texture(3, height=100, width=120)
    corners = ((20, 10), (99, 10), (60, 79))
    (frame,) = prepared([image], polygon=corners)
    assert bounding_box(corners) == (20, 10, 80, 70)
    cut = image[10:80, 20:100]
    inside = np.zeros((70, 80), np.uint8)
    cv2.fillPoly(inside, [np.array(corners, np.int32) - [20, 10]], 1)
    np.testing.assert_array_equal(frame.image[inside > 0], cut[inside > 0])
    assert (frame.image[inside == 0] == FILL).all()
    assert 0.4 < inside.mean() < 0.6
    np.testing.assert_array_equal(image, make_texture(3, height=100, width=120))


def test_numbered_series_with_a_hole(tmp_path):
    for number in (3, 4, 6):
        write_png(tmp_path / f"img_{number:04}.png", make_texture(number))
    write_png(tmp_path / "img_12.png", make_texture(1))  # not four digits
    frames = list(open_source(str(tmp_path / "img_%04d.png")))
    assert [frame.name for frame in frames] == [f"img_{i:04}.png" for i in (3, 4, 5, 6)]
    assert [frame.image is None for frame in frames] == [False, False, True, False]
    assert "img_0005.png does not exist" in frames[2].fault


def test_matched_series_in_natural_order(tmp_path):
    for number in (10, 9, 100):
        write_png(tmp_path / f"a{number}.png", make_texture(number))
    write_png(tmp_path / "b1.png", make_texture(1))
    (tmp_path / "a1.txt").touch()
    frames = list(open_source(tmp_path / "a*.png"))
    assert [frame.name for frame in frames] == ["a9.png", "a10.png", "a100.png"]
    for pattern in ("c*.png", "x%02d.png", "a%d_%d.png"):
        with pytest.raises(InputError, match=r"match|more than one"):
            open_source(tmp_path / pattern)


def test_watched_folder_takes_each_file_once_when_it_is_whole(tmp_path):
    write_png(tmp_path / "2.png", make_texture(2))
    os.utime(write_png(tmp_path / "10.png", make_texture(10)), (1, 1))  # older: first
    (tmp_path / "notes.txt").write_text("no image")
    _, frames, end = watch(tmp_path, patience=PATIENCE_SECONDS)
    until(lambda: len(frames) == 2)
    content = write_png(tmp_path / "other" / "3.png", make_texture(3)).read_bytes()
    with (tmp_path / "3.png").open("wb") as half:
        half.write(content[: len(content) // 2])
        half.flush()
        write_png(tmp_path / "4.png", make_texture(4))
        time.sleep(0.06)
        assert len(frames) == 2, "neither the half one nor the one after it"
        half.write(content[len(content) // 2 :])
    until(lambda: len(frames) == 4)
    write_png(tmp_path / "2.png", make_texture(20))  # written again: a new image
    until(lambda: len(frames) == 5)
    time.sleep(0.05)
    end()
    assert [frame.name for frame in frames[:2]] == ["10.png", "2.png"]
    assert sorted(frame.name for frame in frames[2:4]) == ["3.png", "4.png"]
    assert frames[4].name == "2.png"
    assert [frame.index for frame in frames] == list(range(5))
    assert all(frame.image is not None for frame in frames)


def test_watched_folder_records_a_broken_file_and_a_folder_that_goes_away(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "1.png").write_text("no image")
    _, frames, end = watch(folder)
    until(lambda: len(frames) == 1)
    assert "1.png" in frames[0].fault
    folder.rename(tmp_path / "away")
    until(lambda: len(frames) == 2)
    assert "cannot be looked at" in frames[1].fault
    write_png(tmp_path / "away" / "2.png", make_texture(2))
    (tmp_path / "away").rename(folder)
    until(lambda: len(frames) == 3)
    end()
    assert frames[2].name == "2.png"
    assert frames[2].image is not None
    with pytest.raises(InputError, match="not a folder"):
        open_source(f"watch:{tmp_path / 'none'}")


def test_gstreamer_pipeline_without_and_with_gstreamer(monkeypatch):
    monkeypatch.setitem(sys.modules, "gi", None)  # how it is without PyGObject
    monkeypatch.setattr(gstreamer.cv2, "getBuildInformation", lambda: "  GStreamer:  NO")
    with pytest.raises(MissingCapability, match=r"gst:rtspsrc needs GStreamer.*PyGObject"):
        open_source("gst:rtspsrc location=rtsp://u:s3cret@h/x ! decodebin")
    opened = []

    def reader(address, backend, options=()):
        opened.append((address, backend))
        return FlakyReader(1) if "videotestsrc" in address else None

    monkeypatch.setattr(gstreamer.cv2, "getBuildInformation", lambda: "  GStreamer:  YES (1.22)")
    monkeypatch.setattr(gstreamer, "open_reader", reader)
    source = open_source("gst:videotestsrc")
    assert source.live
    assert source.name == "gst:videotestsrc"
    assert opened[0][0].endswith("video/x-raw,format=BGR ! appsink drop=true max-buffers=1")
    with pytest.raises(MissingCapability, match="does not give images") as raised:
        open_source("gst:rtspsrc location=rtsp://u:s3cret@h/x")
    assert "s3cret" not in str(raised.value)
    with pytest.raises(MissingCapability):
        open_source("csi://1", CaptureFormat(640, 480, 60))
    assert "width=640,height=480,framerate=60/1" in opened[-1][0]


def test_pipelines():
    assert whole_pipeline("a ! appsink sync=false") == "a ! appsink sync=false"
    assert whole_pipeline("a ! b ! ").startswith("a ! b ! videoconvert")
    assert shown_pipeline("souphttpsrc location=http://u:p@h") == "gst:souphttpsrc"
    assert shown_pipeline("user:word@host") == "gst:..."


def test_a_wish_that_a_source_cannot_grant(tmp_path):
    with pytest.raises(SettingsError, match="V4L2, CSI and GenICam"):
        open_source(tmp_path, CaptureFormat(rate=5))


def test_cameras_of_one_name_are_numbered():
    assert unique_names(["a", "b", "a", "a"]) == ["a", "b", "a #2", "a #3"]
    assert unique_names(["a #2", "a", "a"]) == ["a #2", "a", "a #3"]
