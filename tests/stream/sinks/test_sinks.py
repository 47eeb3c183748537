"""Sinks: what is written is whole, and there is room for it."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from helpers.decisions import DRAW, MAP, made
from helpers.images import flat, make_texture, read_video

from hvq_edge.errors import MissingCapability, OutputError
from hvq_edge.stream.drawing.window import Window, has_screen
from hvq_edge.stream.sinks.files.json_lines import JsonLinesFile
from hvq_edge.stream.sinks.files.reject_images import (
    RejectImages,
    recorded_files,
    stem_of,
)
from hvq_edge.stream.sinks.files.retention import REJECT_FILES, check_room
from hvq_edge.stream.sinks.files.video import (
    KEY_FRAME_SECONDS,
    AnnotatedVideo,
    _has_h264,
    letterbox,
)
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision


def test_json_log_is_appended_to(tmp_path):
    path = tmp_path / "a folder" / "decisions.jsonl"
    for run in range(2):
        log = JsonLinesFile(path)
        log.write(*made(run))
        log.close()
    assert [json.loads(line)["frame"] for line in path.read_text().splitlines()] == [0, 1]


def test_json_log_goes_on_where_its_file_was_moved_away(tmp_path):
    path = tmp_path / "out" / "decisions.jsonl"
    log = JsonLinesFile(path)
    log.write(*made(0))
    path.parent.rename(tmp_path / "moved")
    log.write(*made(1))
    log.close()
    for folder, frame in ("moved", 0), ("out", 1):
        lines = (tmp_path / folder / path.name).read_text().splitlines()
        assert [json.loads(line)["frame"] for line in lines] == [frame]


def test_json_log_takes_a_half_line_back(tmp_path):
    """A nearly full disk takes a part of a line, then no more."""
    path = tmp_path / "decisions.jsonl"
    log = JsonLinesFile(path)
    log.write(*made(0))
    file = log._file

    class NearlyFull:
        room = 20

        def write(self, data):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken, self.room = self.room, 0
            return file.write(data[:taken])

        def fileno(self):
            return file.fileno()

        def close(self):
            file.close()

    log._file = NearlyFull()
    with pytest.raises(OutputError, match="no space is left"):
        log.write(*made(1))
    log.close()
    assert [json.loads(line)["frame"] for line in path.read_text().splitlines()] == [0]


def test_rejects_are_saved_with_image_map_and_overlay(tmp_path):
    sink = RejectImages(tmp_path / "rejects", DRAW)
    for index, verdict in enumerate(["pass", "reject", "no_decision"]):
        sink.write(*made(index, verdict, "Kratzer/teil 1.png"))
    sink.close()
    stem = "20231114T221321500Z-000001-teil_1"
    names = sorted(path.name for path in (tmp_path / "rejects").iterdir())
    assert names == [f"{stem}.npy", f"{stem}.png", f"{stem}_overlay.jpg"]
    assert sink.saved == 1
    saved = cv2.imread(str(tmp_path / "rejects" / f"{stem}.png"))
    np.testing.assert_array_equal(saved[..., ::-1], make_texture(1, height=60, width=90))
    np.testing.assert_array_equal(np.load(tmp_path / "rejects" / f"{stem}.npy"), MAP)
    overlay = cv2.imread(str(tmp_path / "rejects" / f"{stem}_overlay.jpg"))[..., ::-1]
    drawn = DRAW(*made(1, "reject"))
    assert overlay.shape == drawn.shape
    assert np.abs(overlay.astype(int) - drawn).mean() < 4  # JPEG


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b/..", "😀 ü.png", ""])
def test_reject_names_stay_in_the_folder(name):
    decision, _ = made(3, "reject", name)
    for part in (None, name, "../" * 60, "😀ü" * 100):
        stem = stem_of({**decision.fields(), "part": part, "camera": part}, name_camera=True)
        assert "/" not in stem
        assert stem.startswith("20231114T")
        assert len(f".{stem}_frame+50.jpg.abcdefgh.tmp".encode()) <= 255
        assert REJECT_FILES.fullmatch(f"{stem}_overlay.jpg")["recording"] == stem


def test_the_files_of_a_reject_are_found_from_its_row(tmp_path):
    """Two cameras that one trigger sets off decide on frames of one number and one time."""
    sink = RejectImages(tmp_path / "rejects", DRAW, 1, name_cameras=True)
    rows = []
    for camera, part in (("left", "SN/1"), ("right", "SN/1"), ("left", "SN/2")):
        decision, frame = made(2, "reject", "film.mp4#2")
        decision = replace(decision, camera=camera, part=part, image=frame.name)
        rows.append(decision.fields())
        sink.write(decision, frame)
        decision, frame = made(3, "pass")
        sink.write(replace(decision, camera=camera), frame)
    (tmp_path / "rejects" / "notes.png").touch()
    found = recorded_files(tmp_path / "rejects", [*rows, {**rows[0], "frame": 1}])
    ends = [".npy", ".png", "_frame+1.jpg", "_overlay.jpg"]
    for row, files in zip(rows, found[:3], strict=True):
        name = f"-000002-{row['camera']}-{row['part'].replace('/', '_')}"
        assert [path.name.partition("Z")[2] for path in files] == [name + end for end in ends]
    assert found[3] == []
    assert recorded_files(tmp_path / "none", rows) == [[], [], []]


def test_rejects_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        RejectImages(tmp_path / "file" / "rejects", DRAW)


def test_video_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "out" / "annotated.mp4"
    sink = AnnotatedVideo(path, DRAW, 10.0)
    for index in range(6):
        sink.write(*made(index, "reject" if index == 3 else "pass"))
    assert not path.exists()
    sink.close()
    sink.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["annotated.mp4"]
    frames = read_video(path)
    assert len(frames) == 6
    assert frames[0].shape == DRAW(*made(0)).shape
    corner = frames[3][60:62, 1:3].mean((0, 1)), frames[2][60:62, 1:3].mean((0, 1))
    assert corner[0][0] > corner[0][1], "red border"
    assert corner[1][1] > corner[1][0], "green border"


def test_what_a_kill_leaves_of_a_video_can_be_read(tmp_path):
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from hvq_edge.common.heat_map import HeatScale
        from hvq_edge.stream.drawing.overlay import annotate
        from hvq_edge.stream.sinks.files.video import AnnotatedVideo
        from hvq_edge.stream.sources.source import Frame
        from hvq_edge.verdict.decision import Decision
        draw = lambda decision, frame: annotate(frame.image, decision, HeatScale(3.0))
        sink = AnnotatedVideo(Path(sys.argv[1]), draw, 5.0)
        for index in range(37):
            decision = Decision(index, 0.0, "bolt", 1.0, "pass", "", 1.0)
            sink.write(decision, Frame(index, 0.0, np.full((90, 90, 3), 5 * index, np.uint8)))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", code, tmp_path / "annotated.mp4"], check=False)
    (left,) = tmp_path.iterdir()
    assert left.match(".annotated.*.part.mp4")
    with av.open(str(left)) as container:  # OpenCV 4.8 stops after the first fragment
        read = sum(1 for _ in container.decode(video=0))
    assert read >= 37 - 5 * KEY_FRAME_SECONDS


def test_an_error_of_ffmpeg_is_the_videos(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    sink = AnnotatedVideo(tmp_path / "annotated.mp4", DRAW, 10.0)
    sink.write(*made(0))

    def broken(*_):
        raise av.error.ExternalError(-542398533, "the encoder gave up")

    monkeypatch.setattr(sink._writer, "_container", SimpleNamespace(mux=broken, close=lambda: None))
    with pytest.raises(OutputError, match="the encoder gave up"):
        sink.write(*made(1))
    with pytest.raises(OutputError, match="the encoder gave up"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_the_video_is_one_that_opencv_writes(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "av", None)
    _has_h264.cache_clear()
    try:
        for name in ("a.mp4", "b.mp4"):
            sink = AnnotatedVideo(tmp_path / name, DRAW, 10.0)
            sink.write(*made(0))
            sink.close()
            assert len(read_video(tmp_path / name)) == 1
    finally:
        _has_h264.cache_clear()
    (said,) = caplog.messages
    assert "browsers do not play" in said
    assert "pip install av" in said


def test_video_of_images_of_different_sizes(tmp_path):
    path = tmp_path / "annotated.mp4"
    sink = AnnotatedVideo(path, DRAW, 5.0)
    sizes = [(300, 300), (700, 500), (10, 2000)]
    for index, (height, width) in enumerate(sizes):
        frame = Frame(index, 0.0, np.full((height, width, 3), 99, np.uint8))
        sink.write(Decision(index, 0.0, "bolt", 1.0, "pass", "", 1.0, MAP), frame)
    sink.close()
    assert len(read_video(path)) == 3


def test_video_without_frames_is_none(tmp_path):
    sink = AnnotatedVideo(tmp_path / "annotated.mp4", DRAW, 5.0)
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_letterbox_keeps_proportions():
    fitted = letterbox(flat(200, 100), 50, 200)
    assert fitted.shape == (50, 200, 3)
    assert (fitted[:, 75:125] == 200).all()
    assert (fitted[:, :75] == 0).all()
    assert letterbox(fitted, 50, 200) is fitted


def test_room_is_checked_before_the_folder_is_made(tmp_path):
    folder = tmp_path / "not" / "yet"
    check_room(folder, 1)
    with pytest.raises(OutputError, match="are kept free"):
        check_room(folder, 2**62)
    assert not folder.parent.exists()


def test_window_needs_a_screen(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MissingCapability, match="no screen"):
        Window(DRAW, lambda: None)
    assert not has_screen({})
    assert not has_screen({"DISPLAY": ""})
    assert has_screen({"DISPLAY": ":0"})
    assert has_screen({"WAYLAND_DISPLAY": "wayland-0"})


def test_window_shows_frames_and_q_quits(monkeypatch):
    shown, quits = [], []
    keys = iter([-1, ord("q")])
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "destroyWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda _title, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda _delay: next(keys))
    window = Window(DRAW, lambda: quits.append(True))
    window.write(*made(0))
    assert quits == []
    window.write(*made(1, "reject"))
    assert quits == [True]
    window.close()
    window.write(*made(2))
    assert len(shown) == 2
    np.testing.assert_array_equal(shown[1][..., ::-1], DRAW(*made(1, "reject")))
