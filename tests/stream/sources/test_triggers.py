"""Triggers: a frame is taken after them, never before; a file is one, and used up."""

from __future__ import annotations

import errno
import queue
import re
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

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
            came = self.asked.get(timeout=seconds)
        except queue.Empty:
            return None
        return time.monotonic() if came is None else came

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

    def show(self, level, count=1, *, due=None):
        for _ in range(count):
            self.images.put((level, due))
        until(lambda: self.images.empty())

    def __iter__(self):
        while not self.closed.is_set():
            try:
                level, due = self.images.get(timeout=0.02)
            except queue.Empty:
                continue
            if level is None:
                yield lost(self.given, "cable")
            else:
                yield arrived(self.given, flat(level), due=due)
            self.given += 1

    def close(self):
        self.closed.set()


@contextmanager
def collecting(**options):
    """A triggered camera whose frames are collected on a thread."""
    camera, trigger, frames = Camera(), HandTrigger(), []
    source = TriggeredSource(camera, trigger, **options)

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


@pytest.fixture
def taking(monkeypatch):
    monkeypatch.setattr(trigger_module, "FRESH_SECONDS", PATIENCE_SECONDS)
    with collecting(frames=2) as opened:
        yield opened


def levels(frames):
    return [None if frame.image is None else frame.image[0, 0, 0] for frame in frames]


def test_a_line_that_takes_its_time_loses_no_further_frame_of_a_trigger(monkeypatch):
    """The trigger was in time; what holds it up afterwards is the line itself."""
    monkeypatch.setattr(trigger_module, "FRESH_SECONDS", PATIENCE_SECONDS)
    camera, trigger, taken = Camera(), HandTrigger(), []
    source = TriggeredSource(camera, trigger, frames=2)
    frames = iter(source)
    first = threading.Thread(target=lambda: taken.append(next(frames)))
    trigger.asked.put(None)
    first.start()
    until(lambda: trigger.answers == [0])
    camera.show(7)
    first.join(PATIENCE_SECONDS)
    camera.show(8)
    until(lambda: camera.given == 2)
    held_up = SimpleNamespace(monotonic=lambda: time.monotonic() + 2 * PATIENCE_SECONDS)
    monkeypatch.setattr(trigger_module, "time", held_up)
    taken.append(next(frames))
    source.close()
    assert levels(taken) == [7, 8]


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
    assert levels(frames) == [7, 8, None, 4]
    assert frames[2].fault == "cable"
    assert [frame.part for frame in frames] == ["", "", "SN-2", "SN-2"], "a lost part has one too"


def test_a_camera_that_gives_nothing_after_a_trigger_has_lost_the_part(taking, monkeypatch):
    _, trigger, frames = taking
    monkeypatch.setattr(trigger_module, "FRESH_SECONDS", 0.05)
    monkeypatch.setattr(trigger_module._Newest, "is_late", lambda *_: False)  # a slow machine
    trigger.asked.put(None)
    until(lambda: len(frames) == 2)
    assert all(frame.fault.startswith("no image within 0.05 s") for frame in frames)


def test_a_delay_counts_from_when_the_trigger_came_not_from_when_it_was_looked_at(monkeypatch):
    monkeypatch.setattr(trigger_module, "FRESH_SECONDS", PATIENCE_SECONDS)
    with collecting(delay=3600.0) as (camera, trigger, frames):
        due = time.monotonic()
        camera.show(1, due=due - 0.01)
        trigger.asked.put(due - 3600.0)
        camera.show(2, due=due + 0.01)
        until(lambda: len(frames) == 1)
    assert levels(frames) == [2]


def test_an_image_is_of_one_trigger_only(monkeypatch):
    monkeypatch.setattr(trigger_module, "FRESH_SECONDS", PATIENCE_SECONDS)
    with collecting() as (camera, trigger, frames):
        now = time.monotonic()
        trigger.asked.put(now)
        trigger.asked.put(now + 0.01)
        camera.show(1, due=now + 0.02)
        until(lambda: trigger.answers == [0, 1])
        camera.show(2, due=now + 0.03)
        until(lambda: len(frames) == 2)
    assert levels(frames) == [1, 2]


def test_a_trigger_that_waited_for_long_gets_no_image_of_a_later_part(taking):
    camera, trigger, frames = taking
    trigger.number = "SN-1"
    camera.show(1)
    trigger.asked.put(time.monotonic() - PATIENCE_SECONDS - 3.0)
    until(lambda: len(frames) == 2)
    for frame in frames:
        assert re.fullmatch(r"the trigger waited \d+\.\d s: its part is gone", frame.fault)
        assert frame.part == "SN-1"
    trigger.asked.put(None)
    until(lambda: trigger.answers == [0, 2])
    camera.show(2)
    until(lambda: len(frames) == 3)
    camera.show(3)
    until(lambda: len(frames) == 4)
    assert levels(frames) == [None, None, 2, 3]
    assert [frame.index for frame in frames] == [0, 1, 2, 3]


def test_an_image_that_comes_too_late_is_of_a_later_part(monkeypatch):
    monkeypatch.setattr(trigger_module, "FRESH_SECONDS", PATIENCE_SECONDS)
    with collecting() as (camera, trigger, frames):
        now = time.monotonic()
        trigger.asked.put(now)
        camera.show(1, due=now + PATIENCE_SECONDS + 1.0)
        until(lambda: len(frames) == 1)
    assert frames[0].fault.startswith("no image within")


def test_files_give_their_next_image_and_end():
    trigger = HandTrigger()
    for _ in range(9):
        trigger.asked.put(time.monotonic() - 3600.0)  # files wait for their triggers
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
    with pytest.raises(OutputError, match="name too long"):
        FileTrigger(tmp_path / ("x" * 300))
    with pytest.raises(InputError, match="no file can have the path of this trigger file"):
        FileTrigger(tmp_path / "a\0b")


def test_trigger_file_in_a_folder_that_may_not_be_entered(tmp_path, monkeypatch):
    def refused(*_, **__):  # whoever runs the tests as root may enter every folder
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(OutputError, match="permission was denied"):
        FileTrigger(tmp_path / "trigger")
