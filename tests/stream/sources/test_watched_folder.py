"""A watched folder: what no writer and no broken entry may do to the images beside it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest
from helpers import watching
from helpers.images import make_texture, write_png
from helpers.patience import PATIENCE_SECONDS, until

from hvq_edge.errors import InputError
from hvq_edge.stream.sources import watched_folder
from hvq_edge.stream.sources.open_source import open_source
from hvq_edge.stream.sources.source import arrived, comes_on_demand
from hvq_edge.stream.sources.watched_folder import WatchedFolder


@pytest.fixture
def watch():
    """Start to watch a folder; returns the source and the frames so far."""
    with ExitStack() as ends:

        def start(folder, **options):
            source, frames, end = watching.watch(folder, **options)
            ends.callback(end)
            return source, frames

        yield start


def images(frames):
    return [frame.name for frame in frames if frame.image is not None]


def put(folder, name, seed):
    """Write an image aside and rename it, as careful writers do."""
    write_png(folder / f".{name}", make_texture(seed, height=32, width=32)).rename(folder / name)


def test_an_image_that_is_replaced_again_and_again_is_taken_or_on_record(tmp_path, watch):
    """Faster than two looks: two equal ones never come."""
    _, frames = watch(tmp_path, poll=0.2)
    stop = threading.Event()

    def write() -> None:
        for seed in range(10**6):
            put(tmp_path, "latest.png", seed % 9)
            if stop.wait(0.05):
                return

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    until(lambda: len(images(frames)) >= 2 and len(frames) >= 3)
    stop.set()
    writer.join(PATIENCE_SECONDS)
    lost = [frame for frame in frames if frame.image is None]
    assert all("replaced before it was read" in frame.fault for frame in lost)
    assert [frame.index for frame in frames] == list(range(len(frames)))


def test_images_that_are_taken_away_while_they_wait_are_on_record(tmp_path, watch):
    """Behind one that is not written yet; of a folder that is moved away, all."""
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "a.png").touch()
    os.utime(folder / "a.png", (1, 1))  # it comes first
    put(folder, "b.png", 1)
    put(folder, "renamed.png", 2)
    source, frames = watch(folder, patience=PATIENCE_SECONDS)

    def settled(*names):
        waiting = dict(source._waiting)
        return all(name in waiting and waiting[name].settled for name in names)

    until(lambda: settled("a.png", "b.png", "renamed.png"))
    (folder / "renamed.png").rename(folder / "c.png")
    until(lambda: settled("a.png", "b.png", "c.png"))
    assert frames == []
    folder.rename(tmp_path / "away")
    folder.mkdir()
    put(folder, "d.png", 3)
    until(lambda: images(frames) == ["d.png"])
    gone = {frame.name: frame.fault for frame in frames if frame.name != "d.png"}
    gone.pop("", None)  # the folder itself, where a look came between
    assert gone == dict.fromkeys(
        ("a.png", "b.png", "c.png"), "it was taken away before it was read"
    )


def test_entries_that_are_no_plain_files_stop_no_other(tmp_path, watch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    (tmp_path / "folder.png").mkdir()
    _, frames = watch(tmp_path)
    write_png(tmp_path / "part.png", make_texture(1))
    until(lambda: "part.png" in images(frames) and len(frames) == 4)
    time.sleep(0.1)
    assert Counter(frame.name for frame in frames) == Counter(
        ["itself.png", "nowhere.png", "part.png", "pipe.png"]
    ), "each once, and folders are none"
    faults = {frame.name: frame.fault for frame in frames}
    assert "not a plain file" in faults["pipe.png"]
    assert "symbolic links" in faults["itself.png"]
    write_png(tmp_path / "gone.png", make_texture(2))
    until(lambda: "nowhere.png" in images(frames))


def test_a_read_that_hangs_is_given_up_and_meanwhile_a_frame_is_due(tmp_path, watch, monkeypatch):
    hangs, asked = threading.Event(), threading.Event()

    def read(_folder, name, index):
        if name == "hangs.png":
            asked.set()
            hangs.wait(PATIENCE_SECONDS)
        return arrived(index, make_texture(0), name)

    monkeypatch.setattr(watched_folder, "read_file", read)
    os.utime(write_png(tmp_path / "hangs.png", make_texture(1)), (1, 1))
    write_png(tmp_path / "part.png", make_texture(2))
    source, frames = watch(tmp_path, hanging=0.5)
    assert asked.wait(PATIENCE_SECONDS)
    assert not comes_on_demand(source), "who waits for a frame must not take it for idle"
    until(lambda: len(frames) == 2)
    hangs.set()
    assert [(frame.name, frame.image is None) for frame in frames] == [
        ("hangs.png", True),
        ("part.png", False),
    ]
    assert "no answer within 0.5 s" in frames[0].fault
    until(lambda: comes_on_demand(source))


def test_a_folder_that_never_answers_is_one_lost_frame(tmp_path, watch, monkeypatch):
    answers = threading.Event()
    look = WatchedFolder._look

    def hang(self):
        answers.wait(PATIENCE_SECONDS)
        return look(self)

    monkeypatch.setattr(WatchedFolder, "_look", hang)
    _, frames = watch(tmp_path, hanging=0.02)

    def hanging() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if str(tmp_path) in one.name]

    until(lambda: len(hanging()) >= watched_folder._MOST_HANGING)
    time.sleep(0.2)
    assert len(hanging()) == watched_folder._MOST_HANGING, "no thread more for each look"
    assert [frame.image for frame in frames] == [None]
    answers.set()
    write_png(tmp_path / "part.png", make_texture(2))
    monkeypatch.undo()
    until(lambda: images(frames) == ["part.png"])


def test_a_file_that_is_written_without_end_stops_no_other(tmp_path, watch):
    content = write_png(tmp_path / "other" / "x.png", make_texture(1)).read_bytes()
    stop = threading.Event()

    def write() -> None:
        with (tmp_path / "growing.png").open("wb") as file:
            file.write(content[:100])
            while not stop.wait(0.005):
                file.write(b"\0")
                file.flush()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    until((tmp_path / "growing.png").exists)
    _, frames = watch(tmp_path)
    ahead = time.time() + 3600  # a clock that differs: it sorts behind what is written now
    os.utime(write_png(tmp_path / "part.png", make_texture(2)), (ahead, ahead))
    until(lambda: images(frames) == ["part.png"])
    stop.set()
    writer.join(PATIENCE_SECONDS)


@pytest.mark.parametrize("path", ["x" * 300, "~no-such-user/images"])
def test_a_folder_that_cannot_be_is_said(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not a folder that can be watched"):
        open_source(f"watch:{path}")


def test_a_folder_that_may_not_be_looked_at_is_said(tmp_path, monkeypatch):
    def refused(*_, **__):  # whoever runs the tests as root may enter every folder
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(watched_folder.Path, "is_dir", refused)
    with pytest.raises(InputError, match="can be watched: Permission denied"):
        WatchedFolder(tmp_path)
