"""Triggers: a frame is taken after them, never before; a file is one, and used up."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

import pytest
from helpers.images import flat
from helpers.patience import PATIENCE_SECONDS, until
from helpers.sources import ListSource

from hvq_edge.errors import InputError, OutputError
from hvq_edge.stream.sources import trigger as trigger_module
from hvq_edge.stream.sources.source import arrived, lost
from hvq_edge.stream.sources.trigger import FileTrigger, TriggeredSource


class HandTrigger:
    def __init__(self) -> None:
        self.asked = queue.Queue()
        self.answers = []
        self.number = ""
        self.closed = False

    def wait(self, seconds):
        try:
            self.asked.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def answer(self, frame):
        self.answers.append(frame)

    def part(self):
        return self.number

    def close(self):
        self.closed = True


class Camera:
    """Gives an image whenever the test says so, on the thread that iterates."""

    live = True
    frames_per_second = None
    name = "camera"

    def __init__(self) -> None:
        self.images = queue.Queue()
        self.closed = threading.Event()
        self.given = 0

    def show(self, level, count=1):
        for _ in range(count):
            self.images.put(level)
        until(lambda: self.images.empty())

    def __iter__(self):
        while not self.closed.is_set():
            try:
                level = self.images.get(timeout=0.02)
            except queue.Empty:
                continue
            frame = lost(self.given, "cable") if level is None else arrived(self.given, flat(level))
            self.given += 1
            yield frame

    def close(self):
        self.closed.set()


@pytest.fixture
def taking():
    """A triggered camera whose frames are collected on a thread."""
    camera, trigger, frames = Camera(), HandTrigger(), []
    source = TriggeredSource(camera, trigger, frames=2)

    def collect() -> None:
        for frame in source:
            frames.append(frame)

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    yield camera, trigger, frames
    source.close()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert camera.closed.is_set()
    assert trigger.closed


def test_frames_come_from_after_the_trigger(taking):
    camera, trigger, frames = taking
    camera.show(1, 5)
    time.sleep(0.02)
    assert frames == []
    trigger.asked.put(None)
    until(lambda: trigger.answers == [0])
    time.sleep(0.02)
    assert frames == [], "the image that was there is from before the trigger"
    camera.show(7)
    until(lambda: len(frames) == 1)
    camera.show(8)
    until(lambda: len(frames) == 2)
    camera.show(9, 3)
    trigger.number = "SN-2"
    trigger.asked.put(None)
    until(lambda: trigger.answers == [0, 2])
    camera.show(None)
    until(lambda: len(frames) == 3)
    camera.show(4)
    until(lambda: len(frames) == 4)
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    seen = [None if frame.image is None else frame.image[0, 0, 0] for frame in frames]
    assert seen == [7, 8, None, 4]
    assert frames[2].fault == "cable"
    assert [frame.part for frame in frames] == ["", "", "SN-2", "SN-2"], "a lost part has one too"


def test_a_camera_that_gives_nothing_after_a_trigger_has_lost_the_part(taking, monkeypatch):
    monkeypatch.setattr(trigger_module, "FRESH_SECONDS", 0.05)
    _, trigger, frames = taking
    trigger.asked.put(None)
    until(lambda: len(frames) == 2)
    assert all(frame.fault.startswith("no image within 0.05 s") for frame in frames)


def test_files_give_their_next_image_and_end():
    trigger = HandTrigger()
    for _ in range(9):
        trigger.asked.put(None)
    source = TriggeredSource(ListSource([flat(i) for i in range(3)]), trigger)
    assert [frame.image[0, 0, 0] for frame in source] == [0, 1, 2]
    assert not source.live


def test_trigger_file_is_used_up(tmp_path):
    path = tmp_path / "trigger"
    path.touch()
    trigger = FileTrigger(path)
    assert not path.exists(), "one from before the start is none"
    assert not trigger.wait(0.01)
    path.touch()
    assert trigger.wait(0.01)
    assert not path.exists()
    assert not trigger.wait(0.01)


def test_what_is_in_the_trigger_file_is_the_serial_number(tmp_path, caplog):
    path, trigger = tmp_path / "trigger", FileTrigger(tmp_path / "trigger")

    def part_after(text, write=Path.write_text):
        write(path, text)
        assert trigger.wait(0.01)
        return trigger.part()

    assert part_after(" SN-1\n") == "SN-1"
    path.touch()
    assert trigger.wait(0.01)
    assert trigger.part() == "", "and not that of the part before"
    assert part_after(b"SN \xff", Path.write_bytes) == "SN \\xff"
    with path.open("w") as slow:  # made before it is written, as a shell does
        assert trigger.wait(0.01)
        slow.write("SN-3")
    assert trigger.part() == "SN-3"
    (tmp_path / "secret").write_text("password")
    path.symlink_to(tmp_path / "secret")
    assert trigger.wait(0.01)
    assert trigger.part() == "", "a link leads anywhere"
    assert (tmp_path / "secret").exists()
    assert not caplog.messages
    assert part_after("9" * 201) == ""
    assert "at most 200 characters" in caplog.text
    opened = len([*Path("/proc/self/fd").iterdir()])
    path.mkdir()
    assert not trigger.wait(0.1)
    trigger.close()
    assert len([*Path("/proc/self/fd").iterdir()]) == opened


def test_trigger_file_that_cannot_be(tmp_path):
    with pytest.raises(OutputError):
        FileTrigger(tmp_path / "none" / "trigger")
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match="no trigger file"):
        FileTrigger(photo)
    assert photo.exists()
