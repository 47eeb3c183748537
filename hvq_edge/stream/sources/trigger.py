"""A source that gives frames only when it is triggered: a part has arrived under the camera."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from hvq_edge.common.atomic import output_error
from hvq_edge.errors import InputError
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.played import PlayedSource
from hvq_edge.stream.sources.source import (
    MOST_CHARACTERS,
    Frame,
    Source,
    is_camera,
    lost,
    part_number,
    transport_of,
)

logger = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
"""A camera that gives no image for so long after a trigger has missed the part; so has a trigger
that waited for so long."""

LARGEST_TRIGGER = 1024
"""Bytes: a larger file at the start is not a trigger but a name given by mistake."""

_POLL_SECONDS = 0.02
"""How often a trigger file is looked for: below the exposure of most cameras."""


class Trigger(Protocol):
    """Says when to take a frame."""

    def wait(self, seconds: float) -> float | None:
        """Wait for the next trigger, which is used up.

        Returns:
            When it came, on the monotonic clock: it may have waited. ``None``: there was none.
        """
        ...

    def answer(self, frame: int) -> None:
        """Say which frame, by its index, the last trigger led to first."""
        ...

    def part(self) -> str:
        """Return the serial number of the part that the last trigger was for; empty: it is unknown.

        Asked once a trigger, when its first frame has been taken.
        """
        ...

    def close(self) -> None:
        """Stop listening; calling it twice is fine."""
        ...


class FileTrigger:
    """Triggers when a file appears, and removes it.

    Any program can do it: ``touch /run/line/trigger``. What is written in the file is the serial
    number of the part. Triggers that come before the file has been removed are one.

    Args:
        path: the file. One that is there at the start is from before, and is removed.

    Raises:
        InputError: something is there that nobody wrote as a trigger, or no file can be there.
        OutputError: it cannot be removed: its folder is missing or not writable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        try:
            if path.is_dir() or (path.is_file() and path.stat().st_size > LARGEST_TRIGGER):
                raise InputError(
                    f"{path} is there and no trigger file: it would be removed.",
                    next_step="name a file with --trigger-file that is there for this alone",
                )
            probe = path.with_name(f".{path.name}.probe")
            probe.touch()
            probe.unlink()
            path.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(path, error) from error
        except ValueError as error:  # a NUL character
            raise InputError(
                f"no file can have the path of this trigger file: {error}.",
                next_step="name another file with --trigger-file",
            ) from error

    def wait(self, seconds: float) -> float | None:
        """Wait for the file and remove it."""
        end = time.monotonic() + seconds
        while True:
            try:
                self._take()
            except OSError:  # not there, or its folder is away for a while
                left = end - time.monotonic()
                if left <= 0:
                    return None
                time.sleep(min(left, _POLL_SECONDS))
            else:
                return time.monotonic()

    def answer(self, frame: int) -> None:
        """Nobody waits for an answer."""

    def part(self) -> str:
        """Return what was written into the file."""
        text = b""
        if self._file is not None:
            with suppress(OSError):
                text = os.read(self._file, LARGEST_TRIGGER)
            self._forget()
        number = part_number(text.decode("utf-8", "backslashreplace"))
        if text.strip() and not number:
            logger.warning(
                "%s: a serial number has at most %d characters, and this one is longer",
                self._path,
                MOST_CHARACTERS,
            )
        return number

    def close(self) -> None:
        """Forget the last file."""
        self._forget()

    def _take(self) -> None:
        """Remove the file, and keep it open: ``echo 17 > trigger`` makes it before it writes.

        Raises:
            OSError: it is not there, or cannot be removed.
        """
        self._forget()
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError:  # not to be read, or a link, which could lead anywhere: it has no number
            pass
        self._path.unlink()

    def _forget(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


class TriggeredSource:
    """Gives frames of another source when a trigger says so.

    A live camera is read all the time and its images are thrown away until a trigger comes; the
    frame taken is the first that arrives after it, never one that waited in a buffer. For a trigger
    that waited itself, behind others or because the line was held up, it is the newest one, and
    lost frames once the part must be gone. Files give their next image. What the camera loses
    between triggers is no frame of the run.

    Args:
        source: closed with this one.
        trigger: likewise.
        frames: to take for each trigger; a camera that gives too few has lost the rest.
        delay: seconds after the trigger came from which a frame counts: for light that must come
            on, or a camera whose images arrive late.
    """

    live = False
    on_demand = True
    frames_per_second = None

    def __init__(
        self, source: Source, trigger: Trigger, *, frames: int = 1, delay: float = 0.0
    ) -> None:
        self._source = source
        self._trigger = trigger
        self._frames = frames
        self._delay = delay
        self._closed = threading.Event()

    @property
    def is_camera(self) -> bool:
        """Whether the source is one; a film that is played as one may well repeat an image."""
        return is_camera(self._source) and not isinstance(self._source, PlayedSource)

    @property
    def name(self) -> str:
        """That of the source."""
        return self._source.name

    @property
    def transport(self) -> Transport:
        """What went wrong on the way from the camera, between triggers as well."""
        return transport_of(self._source)

    def __iter__(self) -> Iterator[Frame]:
        """Give frames until closed, or until a source of files has ended."""
        feed: _Newest | _NextFile = (
            _Newest(self._source) if self._source.live else _NextFile(self._source)
        )
        index = 0
        try:
            while not self._closed.is_set() and not feed.ended:
                came = self._trigger.wait(0.1)
                if came is None:
                    continue
                after = came + self._delay
                self._trigger.answer(index)
                part: str | None = None
                late = feed.is_late(after)
                for number in range(self._frames):
                    if late:
                        waited = time.monotonic() - came
                        frame = lost(index, f"the trigger waited {waited:.1f} s: its part is gone")
                    else:
                        # From the second on it may be the line that takes its time, not the camera.
                        asked = time.monotonic() if number else after
                        taken = feed.take(after, max(after, asked) + FRESH_SECONDS)
                        if taken is None and feed.ended:
                            return
                        seconds = FRESH_SECONDS + self._delay
                        fault = f"no image within {seconds:g} s of the trigger"
                        frame = taken or lost(index, fault)
                        after = frame.arrived
                    part = self._trigger.part() if part is None else part
                    yield replace(frame, index=index, part=part)
                    index += 1
        finally:
            self._source.close()

    def close(self) -> None:
        """End the iteration after the frame under way."""
        self._closed.set()
        self._source.close()
        self._trigger.close()


class _Newest:
    """Reads a live source on a thread of its own and keeps its newest frame only."""

    def __init__(self, source: Source) -> None:
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(source,), daemon=True)
        self._thread.name = f"camera {source.name}"
        self._thread.start()

    @property
    def ended(self) -> bool:
        return self._ended

    def is_late(self, after: float) -> bool:
        """Tell whether an image taken now would be of a later part than the one at that time."""
        return time.monotonic() - after > FRESH_SECONDS

    def take(self, after: float, latest: float) -> Frame | None:
        """Return the frame for a monotonic time, which no other trigger gets; ``None``: none came.

        It is the first that arrives after that time, or the newest if that one is here already, and
        none that arrives after ``latest``.
        """

        def fresh() -> bool:
            return self._ended or (self._newest is not None and self._newest.arrived > after)

        with self._changed:
            self._changed.wait_for(fresh, max(latest - time.monotonic(), 0.0))
            if self._ended or self._newest is None or not after < self._newest.arrived <= latest:
                return None
            taken, self._newest = self._newest, None
            return taken

    def _read(self, source: Source) -> None:
        try:
            for frame in source:
                with self._changed:
                    self._newest = frame
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


class _NextFile:
    """Takes the next frame of a source that waits until it is asked."""

    def __init__(self, source: Source) -> None:
        self._iterator = iter(source)
        self.ended = False

    def is_late(self, after: float) -> bool:  # noqa: ARG002  # they wait for their triggers
        return False

    def take(self, after: float, latest: float) -> Frame | None:  # noqa: ARG002  # never stale
        frame = next(self._iterator, None)
        self.ended = frame is None
        return frame
