"""What sinks keep on disk: images around rejects, video in pieces, and for how long."""

from __future__ import annotations

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.decisions import DRAW, made, of_camera
from helpers.images import read_video

from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.log.deliveries import Deliveries, Progress, remove_old_log_files
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.log.reader import all_rows
from hvq_edge.stream.log.verification import verify_log
from hvq_edge.stream.sinks.files import reject_images
from hvq_edge.stream.sinks.files.reject_images import RejectImages
from hvq_edge.stream.sinks.files.retention import (
    REJECT_FILES,
    VIDEO_FILES,
    Retention,
    RetentionLimits,
    time_stamp,
)
from hvq_edge.stream.sinks.files.video import VideoSegments
from hvq_edge.stream.sinks.open_sinks import SourceInfo, open_sinks
from hvq_edge.stream.sinks.sink_settings import SinkSettings

# Images.


def test_frames_around_a_reject_are_kept(tmp_path):
    sink = RejectImages(tmp_path, DRAW, context_frames=2)
    for index in range(8):
        sink.write(*made(index, "reject" if index in (1, 4) else "pass"))
    sink.close()
    found: dict[str, set[str]] = {}
    for path in tmp_path.iterdir():
        match = re.fullmatch(r".*-00000(\d)_frame([+-]\d)\.jpg", path.name)
        if match:
            found.setdefault(match[1], set()).add(match[2])
    assert found == {"1": {"-1", "+1", "+2"}, "4": {"-2", "-1", "+1", "+2"}}
    (before,) = tmp_path.glob("*-000004_frame-1.jpg")
    image = cv2.imread(str(before))[..., ::-1].astype(int)
    assert np.abs(image - made(3)[1].image).mean() < np.abs(image - made(2)[1].image).mean()
    assert all(REJECT_FILES.fullmatch(path.name) for path in tmp_path.iterdir())


def test_frames_around_a_reject_are_of_its_camera(tmp_path):
    sink = RejectImages(tmp_path, DRAW, context_frames=1, name_cameras=True)
    for index in range(4):
        for camera in "left", "right/2":
            rejected = (camera, index) == ("left", 1)
            sink.write(*of_camera(camera, index, "reject" if rejected else "pass"))
    names = sorted(path.name.partition("-000001-")[2] for path in tmp_path.iterdir())
    assert names == [
        "left.npy",
        "left.png",
        "left_frame+1.jpg",
        "left_frame-1.jpg",
        "left_overlay.jpg",
    ]


def test_frames_kept_for_later_have_a_limit_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(reject_images, "CONTEXT_BYTES", 3 * 60 * 90 * 3)
    sink = RejectImages(tmp_path, DRAW, context_frames=50)
    for index in range(20):
        sink.write(*made(index))
    assert [index for _, index, _ in sink._former] == [17, 18, 19]


def test_video_in_pieces(tmp_path):
    sink = VideoSegments(tmp_path, DRAW, 10.0, seconds=0.0)
    for index in range(3):
        sink.write(*made(index))
    sink.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"20231114T22132{second}500Z.mp4" for second in range(3)]
    assert all(VIDEO_FILES.fullmatch(name) for name in names)
    assert len(read_video(tmp_path / names[0])) == 1


# Retention.


def recording(folder: Path, number: int, age: float, size: int = 100) -> list[Path]:
    """A reject as three files, all of the same age."""
    stem = f"2023111{number}T221320500Z-00000{number}"
    files = [folder / f"{stem}{end}" for end in (".npy", "_overlay.jpg", ".png")]
    for path in files:
        path.write_bytes(bytes(size))
        os.utime(path, (1e9 - age, 1e9 - age))
    return files


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (RetentionLimits(), {0, 1, 2, 3}),
        (RetentionLimits(bytes=600), {2, 3}),
        (RetentionLimits(bytes=1), {3}),
        (RetentionLimits(seconds=250.0), {1, 2, 3}),
        (RetentionLimits(seconds=0.0), {3}),
        (RetentionLimits(bytes=900, seconds=150.0), {2, 3}),
    ],
)
def test_the_oldest_goes_first_and_the_newest_never(tmp_path, limits, left):
    files = [recording(tmp_path, number, age=100.0 * (3 - number)) for number in range(4)]
    unfinished = tmp_path / f".{files[0][2].name}.abc_1.tmp"  # left by a kill
    unfinished.write_bytes(bytes(9))
    os.utime(unfinished, (1e9 - 300.0, 1e9 - 300.0))
    removed = Retention(tmp_path, REJECT_FILES, limits, clock=lambda: 1e9).apply()
    there = {number for number in range(4) if files[number][0].exists()}
    assert there == left
    for number, paths in enumerate(files):
        assert {path.exists() for path in paths} == {number in left}
    assert len(removed) == 3 * (4 - len(left)) + (0 not in left)


def test_nothing_else_is_ever_removed(tmp_path):
    files = [recording(tmp_path, number, age=1e6) for number in range(3)]
    others = [
        tmp_path / "notes.txt",
        tmp_path / "20231110T221320500Z.png",
        tmp_path / "20231110T221320500Z-000000 (copy).png",
        tmp_path / "x20231110T221320500Z-000000.png",
        tmp_path / "20231110T221320500Z-000000.tiff",
    ]
    for path in others:
        path.write_bytes(bytes(100))
        os.utime(path, (0, 0))
    target = tmp_path / "elsewhere"
    target.touch()
    link = tmp_path / "20231109T221320500Z-000000.png"
    link.symlink_to(target)
    folder = tmp_path / "20231108T221320500Z-000000.npy"
    folder.mkdir()
    Retention(tmp_path, REJECT_FILES, RetentionLimits(1, 0.0)).apply()
    left = {*tmp_path.iterdir()}
    assert left == {*others, target, link, folder, *files[2]}


DAY = 86_400.0


def reject_at(folder: Path, wall: float, number: int) -> str:
    """A reject as a machine records it whose clock says ``wall``: in the name and of the file."""
    path = folder / f"{time_stamp(wall)}-{number:06}.png"
    path.write_bytes(bytes(100))
    os.utime(path, (wall, wall))
    return path.name


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("off", [4 * 365 * DAY, 2 * DAY, -365 * DAY, -50 * 365 * DAY])
def test_the_newest_stay_whatever_the_clock_said(tmp_path, off):
    """Three sessions: a right clock, one that is off, a right one again; room for six rejects."""
    right, order, times = 1.79e9, [], []
    limits = RetentionLimits(bytes=600)
    for session, wrong in enumerate([0.0, off, 0.0]):
        wall = right + wrong + session * 1000.0
        clock, logged = (lambda: wall), (lambda: times)  # noqa: B023
        keep = Retention(tmp_path, REJECT_FILES, limits, clock, logged)
        keep.apply()
        for _ in range(4):
            wall += 10.0
            times.append(wall)
            order.append(reject_at(tmp_path, wall, len(order)))
            keep.apply()
            assert order[-1] in names(tmp_path), "what was just recorded stays"
        assert names(tmp_path) == {*order[-6:]}, "in the order in which they were recorded"


def test_what_a_clock_recorded_that_was_ahead_goes_first_and_by_age(tmp_path):
    """As an earlier version left it, which kept no order."""
    now = 1.79e9
    ahead = [reject_at(tmp_path, now + 4 * 365 * DAY + i, i) for i in range(3)]
    later = [reject_at(tmp_path, now - 5 * DAY + i, 3 + i) for i in range(2)]
    keep = Retention(tmp_path, REJECT_FILES, RetentionLimits(bytes=400), clock=lambda: now)
    keep.apply()
    assert names(tmp_path) == {*ahead[1:], *later}
    keep = Retention(tmp_path, REJECT_FILES, RetentionLimits(seconds=DAY), clock=lambda: now)
    keep.apply()
    assert names(tmp_path) == {later[-1]}


def test_a_clock_that_was_behind_makes_nothing_old(tmp_path):
    now = 1.79e9
    early = reject_at(tmp_path, now - 2 * DAY, 0)
    keep = Retention(tmp_path, REJECT_FILES, RetentionLimits(seconds=7 * DAY), clock=lambda: 9e6)
    keep.apply()
    lost = [reject_at(tmp_path, 9e6 + i, 1 + i) for i in range(3)]  # a board without a battery
    keep.apply()
    keep = Retention(tmp_path, REJECT_FILES, RetentionLimits(seconds=7 * DAY), clock=lambda: now)
    keep.apply()
    assert names(tmp_path) == {early, *lost}


def test_the_piece_that_a_quiet_camera_has_in_hand_stays(tmp_path):
    in_hand: set[Path] = set()
    quiet = VideoSegments(tmp_path, DRAW, 10.0, seconds=1e9, tail="-0-quiet", in_hand=in_hand)
    busy = VideoSegments(tmp_path, DRAW, 10.0, seconds=0.0, tail="-1-busy", in_hand=in_hand)
    keep = Retention(tmp_path, VIDEO_FILES, RetentionLimits(bytes=1), in_hand=in_hand)
    quiet.write(*made(0))
    for index in range(1, 5):
        busy.write(*made(index))
        keep.apply()
    quiet.close()
    busy.close()
    keep.apply()
    assert not in_hand
    assert [path.name[-10:] for path in tmp_path.iterdir()] == ["1-busy.mp4"], "the limit holds"
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_was_removed_is_empty(tmp_path):
    limits = RetentionLimits(bytes=1)
    assert Retention(tmp_path / "rejects", REJECT_FILES, limits).apply() == []


def test_log_files_go_when_every_receiver_has_what_is_in_them(tmp_path):
    path = tmp_path / "decisions.sqlite"
    log = DecisionLog(path, Session(), LogOptions(0.0, file_bytes=1, reserve_bytes=0))
    for index in range(4):
        log.write(*made(index))
        log.tick()
    log.close()
    limits = RetentionLimits(bytes=1)
    ends = [list(all_rows(file))[-1].id for file in chain_files(path)]
    deliveries, both = Deliveries(path), ("webhook", "mqtt")
    deliveries.write("webhook", Progress(4))
    deliveries.write("mqtt", Progress(ends[-1]))
    assert deliveries.lowest_cursor(both) == 4
    assert [file.name for file in remove_old_log_files(path, limits, both)] == ["decisions.sqlite"]
    assert len(remove_old_log_files(path, RetentionLimits(), both)) == 0
    # The webhook waits no longer once it is out of the settings.
    assert len(remove_old_log_files(path, limits, ["mqtt"])) == 3
    assert len(chain_files(path)) == 1
    assert verify_log(path).whole


def test_two_cameras_get_two_videos(tmp_path):
    sources = [SourceInfo("left", 10.0), SourceInfo("right", 10.0)]
    opened = open_sinks(SinkSettings(), tmp_path, sources, DRAW, when_full="wait", video=True)
    for index in range(3):
        for camera in "left", "right":
            opened.write(*of_camera(camera, index, "reject"))
    opened.close(None)
    videos = sorted(tmp_path.glob("*.mp4"))
    assert [path.name for path in videos] == ["annotated-0-left.mp4", "annotated-1-right.mp4"]
    assert [len(read_video(path)) for path in videos] == [3, 3]
    assert len([*(tmp_path / "rejects").glob("*.png")]) == 6
