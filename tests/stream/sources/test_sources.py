"""Sources: what a user may write after --camera, and frames that are lost without a crash."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.images import flat, make_texture, write_png, write_video
from helpers.patience import PATIENCE_SECONDS, Stopwatch
from helpers.sources import FlakyReader
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.doctor.finding import CheckResult
from hvq_edge.errors import InputError, MissingCapability
from hvq_edge.stream.sources.cameras import camera as camera_module
from hvq_edge.stream.sources.cameras import rtsp_camera
from hvq_edge.stream.sources.cameras.csi_camera import csi_pipeline
from hvq_edge.stream.sources.cameras.gstreamer import has_gstreamer
from hvq_edge.stream.sources.cameras.live_capture import LiveCapture, wait_before
from hvq_edge.stream.sources.cameras.rtsp_camera import shown_url
from hvq_edge.stream.sources.folder import natural_key
from hvq_edge.stream.sources.open_source import open_source, parse_address, shown_address
from hvq_edge.stream.sources.source import Frame


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        (0, "camera", 0),
        ("0", "camera", 0),
        (" 12 ", "camera", 12),
        ("/dev/video3", "camera", 3),
        ("/dev/v4l/by-id/usb-Maker_Webcam_7-video-index0", "camera", 0),
        ("csi://0", "csi", 0),
        ("CSI://1", "csi", 1),
        ("rtsp://host/stream", "rtsp", 0),
        ("rtsps://user:word@10.0.0.5:8554/a?b=c", "rtsp", 0),
        ("./0", "path", 0),
        ("C:/parts/film.mp4", "path", 0),
        (Path("0"), "path", 0),
        ("-1", "path", 0),
        ("Prüfling 1.mp4", "path", 0),
        ("gst:videotestsrc ! videoconvert", "gst", 0),
        ("GenICam://SN 7?gain=2", "genicam", 0),
        ("watch:/var/line 1", "watch", 0),
        ("./watch:me", "path", 0),
    ],
)
def test_addresses(text, kind, number):
    address = parse_address(text)
    assert (address.kind, address.number) == (kind, number)


@pytest.mark.parametrize(
    "text",
    ["", "  ", "csi://", "csi://x", "csi://-1", "http://h/x", "rtsp://", "a\0b", "gst:", "watch: "],
)
def test_addresses_that_are_none(text):
    with pytest.raises(InputError) as raised:
        parse_address(text)
    assert raised.value.next_step


@pytest.mark.parametrize("number", [-1, True])
def test_numbers_that_are_no_camera(number):
    with pytest.raises(InputError):
        parse_address(number)


@given(st.text())
def test_any_text_is_an_address_or_an_input_error(text):
    try:
        address = parse_address(text)
    except InputError:
        return
    assert address.kind in ("camera", "csi", "rtsp", "genicam", "gst", "watch", "path")
    assert address.number >= 0


_LETTERS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)


@given(user=_LETTERS, word=st.text(min_size=1, max_size=12), port=st.integers(1, 65535))
def test_credentials_are_never_shown(user, word, port):
    """In user info, in the path, in the query: cameras take them anywhere."""
    secret = f"Q{word}Q"
    urls = (
        f"rtsp://{user}:{secret}@camera.example:{port}/x",
        f"rtsp://camera.example:{port}/user={user}&password={secret}",
        f"rtsp://camera.example:{port}/x?password={secret}",
    )
    for url in urls:
        try:
            shown = shown_url(url)
        except InputError as error:
            shown = str(error)
        assert "Q" not in shown
        assert secret not in shown


def test_password_with_a_bare_slash_is_not_taken_for_a_port():
    assert shown_url("rtsp://operator:12/34@camera.example/x") == "rtsp://..."


def test_shown_url_names_host_and_port():
    assert shown_url("rtsp://u:p@10.1.2.3:8554/a") == "rtsp://10.1.2.3:8554"
    assert shown_url("rtsp://u:p@[fe80::1]:8554/a") == "rtsp://[fe80::1]:8554"


def test_rtsp_camera_that_does_not_answer(capfd):
    with pytest.raises(MissingCapability) as raised:
        open_source("rtsp://operator:s3cret@127.0.0.1:9/line/s3cret")  # the discard port
    shown = str(raised.value) + "".join(capfd.readouterr())
    assert "rtsp://127.0.0.1:9" in shown
    assert "s3cret" not in shown
    assert "operator" not in shown
    # Its options would outlast it in the environment and cost every later video its last frame.
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


@pytest.mark.parametrize("users", [None, "rtsp_transport;udp"])
def test_cameras_that_come_back_together_share_the_options(monkeypatch, users):
    name, options = "OPENCV_FFMPEG_CAPTURE_OPTIONS", rtsp_camera._ffmpeg_options
    monkeypatch.delenv(name, raising=False)
    if users:
        monkeypatch.setenv(name, users)
    opens, may_end = threading.Event(), threading.Event()

    def open_first() -> None:
        with options("ours"):
            opens.set()
            may_end.wait(PATIENCE_SECONDS)

    first = threading.Thread(target=open_first)
    first.start()
    assert opens.wait(PATIENCE_SECONDS)
    with options("ours"):
        may_end.set()
        first.join()
        assert os.environ[name] == (users or "ours"), "the second one still opens with them"
    assert os.environ.get(name) == users


def test_missing_camera_says_what_to_try(capfd):
    with pytest.raises(MissingCapability, match="no camera 63") as raised:
        open_source("63")
    assert "v4l2-ctl" in raised.value.next_step
    assert capfd.readouterr().err == "", "OpenCV's own warnings would only confuse"


def test_message_of_a_camera_depends_on_the_cause(tmp_path):
    for name in ("video10", "video2", "video-decoder"):
        (tmp_path / name).touch()
    there = camera_module._cannot_open(2, tmp_path)
    assert "gives no video" in there.cause
    absent = camera_module._cannot_open(5, tmp_path)
    for said in (there.cause, absent.cause):
        assert said.index(f"{tmp_path}/video2: ") < said.index(f"{tmp_path}/video10: ")
        assert "decoder" not in said
    if os.geteuid() != 0:  # root may open everything
        (tmp_path / "video2").chmod(0)
        assert "video group" in camera_module._cannot_open(2, tmp_path).next_step


def test_a_camera_by_its_link_is_found_again_under_another_number(tmp_path, monkeypatch):
    for name in ("video0", "video4"):
        (tmp_path / name).touch()
    link = tmp_path / "usb-Maker_Webcam_7-video-index0"
    link.symlink_to(tmp_path / "video4")
    opened = []

    def reader(index, *_):
        opened.append(index)
        return FlakyReader(1)

    monkeypatch.setattr(camera_module, "open_reader", reader)
    source = camera_module.open_camera(link)
    assert source.name == link.name
    frames = iter(source)
    assert next(frames).image is not None
    link.unlink()
    assert next(frames).fault == f"{link.name} gave no image"
    assert next(frames).image is None, "a link that is gone opens nothing"
    link.symlink_to(tmp_path / "video0")
    assert next(frame for frame in frames if frame.image is not None)
    assert opened == [4, 0]


def test_a_link_that_leads_nowhere_names_what_is_there(monkeypatch):
    found = CheckResult("camera-0", "ok", "/dev/video0 or /dev/v4l/by-id/usb-a: A (usb); MJPG 9x9")
    monkeypatch.setattr("hvq_edge.doctor.cameras.cameras", lambda _: [found])
    with pytest.raises(MissingCapability, match="no camera usb-b: /dev/v4l/by-id/usb-b") as raised:
        open_source("/dev/v4l/by-id/usb-b")
    assert "/dev/v4l/by-id/usb-a: A (usb); MJPG 9x9" in raised.value.cause


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("    GStreamer:                   YES (1.20.3)", True),
        ("    GStreamer:                   NO", False),
        ("    FFMPEG:                      YES", False),
    ],
)
def test_gstreamer_is_read_from_the_build_information(line, found):
    assert has_gstreamer(f"  Video I/O:\n{line}\n    v4l/v4l2: YES") is found


def test_csi_camera(monkeypatch):
    """With GStreamer but no camera, or without GStreamer: both are this machine's lack."""
    with pytest.raises(MissingCapability):
        open_source("csi://0")
    monkeypatch.setitem(sys.modules, "gi", None)  # how it is without PyGObject
    with pytest.raises(MissingCapability) as raised:
        open_source("csi://0")
    if not has_gstreamer(cv2.getBuildInformation()):
        assert "GStreamer" in raised.value.cause
    assert "nvarguscamerasrc sensor-id=7 !" in csi_pipeline(7)
    assert csi_pipeline(0).endswith("appsink drop=true max-buffers=1")


def test_video_gives_every_frame_in_order_as_rgb(tmp_path):
    levels = [(10 * i, 255 - 10 * i, 40) for i in range(12)]
    path = write_video(tmp_path / "Gehäuse & Öl 1.avi", [flat(level) for level in levels])
    source = open_source(str(path))
    frames = list(source)
    assert source.live is False
    assert source.frames_per_second == pytest.approx(10.0)
    assert [frame.index for frame in frames] == list(range(12))
    for frame, level in zip(frames, levels, strict=True):
        np.testing.assert_allclose(frame.image.mean((0, 1)), level, atol=4)
        assert abs(frame.time - time.time()) < 60


def test_truncated_video_ends_with_a_lost_frame(tmp_path):
    whole = write_video(tmp_path / "whole.avi", [make_texture(i) for i in range(40)])
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = list(open_source(cut))
    assert 5 < len(frames) < 39
    assert all(frame.image is not None for frame in frames[:-1])
    assert frames[-1].image is None
    assert "of 40 frames" in frames[-1].fault
    assert all(frame.image is not None for frame in open_source(whole))


@pytest.mark.parametrize("content", [b"", b"this is no video at all\n" * 100])
def test_file_that_is_no_video(tmp_path, content, capfd):
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a video"):
        open_source(path)
    assert capfd.readouterr().err == ""


def test_path_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_source(str(tmp_path / "nothing.mp4"))


@pytest.mark.parametrize(
    "mistyped",
    [
        "rtsp//me:s3cret@10.0.0.5/line",
        "rtsp:/10.0.0.5/user=me&password=s3cret",
        "rstp:me:s3cret@h",
        "me:s3cret@10.0.0.5/line",
        "gts:rtspsrc location=rtsp://me:s3cret@h ! x",
        "rtps://me:s3cret@10.0.0.5/line",
    ],
)
def test_a_mistyped_address_is_not_repeated(mistyped):
    with pytest.raises(InputError) as raised:
        open_source(mistyped)
    assert "s3cret" not in str(raised.value)
    assert "s3cret" not in str(shown_address(mistyped))


def test_the_path_of_a_file_is_shown_whatever_is_in_it(tmp_path):
    path = tmp_path / "teil:1@line.avi"
    path.touch()
    assert shown_address(str(path)) == str(path)


def test_folder_in_natural_order_with_broken_images(tmp_path):
    folder = tmp_path / "Teile é 1"
    for number in (10, 9, 1):
        write_png(folder / f"teil {number}.png", make_texture(number))
    write_png(folder / "gut" / "b.PNG", make_texture(20))
    write_png(folder / "ground_truth" / "mask.png", make_texture(21))
    (folder / "teil 2.jpg").write_text("not an image")
    (folder / "teil 3.png").write_bytes((folder / "teil 1.png").read_bytes()[:900])
    write_png(folder / "teil 4.png", make_texture(4)[:1, :1])
    (folder / "readme.txt").write_text("no image by its name")
    frames = list(open_source(folder))
    names = ["gut/b.PNG"] + [f"teil {i}.png" for i in (1, 3, 4, 9, 10)]
    names.insert(2, "teil 2.jpg")
    assert [frame.name for frame in frames] == names
    assert [frame.index for frame in frames] == list(range(7))
    lost = [frame.name for frame in frames if frame.image is None]
    assert lost == ["teil 2.jpg", "teil 3.png", "teil 4.png"]
    assert all(frame.fault for frame in frames if frame.image is None)
    np.testing.assert_array_equal(frames[1].image, make_texture(1)[..., ::-1])


def test_folder_without_images(tmp_path):
    (tmp_path / "readme.txt").touch()
    with pytest.raises(InputError, match="no image"):
        open_source(tmp_path)


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_in_names_sort_as_numbers(numbers):
    names = sorted((f"part {number}.png" for number in numbers), key=natural_key)
    assert names == [f"part {number}.png" for number in sorted(numbers)]


@given(st.lists(st.text(), min_size=2))
def test_any_names_can_be_sorted(names):
    assert sorted(sorted(names, key=natural_key)) == sorted(names)


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_close_ends_a_source(tmp_path, kind):
    images = [make_texture(i) for i in range(10)]
    if kind == "video":
        source = open_source(write_video(tmp_path / "v.avi", images))
    else:
        for number, image in enumerate(images):
            write_png(tmp_path / f"{number}.png", image)
        source = open_source(tmp_path)
    frames = []
    for frame in source:
        frames.append(frame)
        if len(frames) == 3:
            source.close()
    assert len(frames) == 3


def test_lost_camera_is_on_record_and_comes_back():
    first = FlakyReader(2)
    reopened = iter([None, None, FlakyReader(3)])
    source = LiveCapture(lambda: next(reopened), "camera 0", first, first_wait=0.01)
    frames = list(itertools.islice(source, 8))
    assert [frame.image is not None for frame in frames] == [1, 1, 0, 0, 0, 1, 1, 1]
    assert [frame.index for frame in frames] == list(range(8))
    assert first.released
    assert frames[2].fault == "camera 0 gave no image"
    assert "2 attempts to reopen it failed" in frames[4].fault
    assert source.live


def test_waits_between_attempts_double():
    source = LiveCapture(lambda: None, "camera 0", FlakyReader(0), first_wait=0.08)
    times = [frame.arrived for frame in itertools.islice(source, 5)]
    gaps = np.diff(times)
    assert (gaps[1:] >= [0.04, 0.08, 0.16]).all()
    assert gaps[0] < gaps[1:].min(), "the first attempt is at once"


@given(attempt=st.integers(2, 10**6), chance=st.floats(0, 1))
def test_a_wait_is_half_to_all_of_a_power_of_two_and_never_above_30_seconds(attempt, chance):
    longest = min(0.5 * 2.0 ** min(attempt - 2, 60), 30.0)
    assert longest / 2 <= wait_before(attempt, 0.5, chance) <= longest


def test_closing_a_lost_camera_does_not_wait():
    source = LiveCapture(lambda: None, "camera 0", FlakyReader(0), first_wait=30)
    with Stopwatch() as stopwatch:
        for count, _ in enumerate(source):
            if count == 1:
                source.close()
    assert stopwatch.seconds < 5, stopwatch


def test_a_frame_has_an_image_or_a_fault():
    with pytest.raises(ValueError, match="either"):
        Frame(0, 0.0, None)
    with pytest.raises(ValueError, match="either"):
        Frame(0, 0.0, flat(1), "a", "lost")
