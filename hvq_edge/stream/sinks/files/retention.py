"""Room on the disk: how much is kept free, and old recordings that make way for new ones."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvq_edge.common.atomic import output_error
from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks.sink import Sink
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

RESERVE_BYTES = 16 * 2**20
"""Recording ends with this much free: a video needs room to be finished, a system to live."""

EVERY_SECONDS = 30.0
"""Between two looks at a folder: reading one with many files takes a while."""

STAMP = r"\d{8}T\d{9}Z"
"""Moment in UTC, to the millisecond, that begins the names of recordings; they sort by time."""

_UNFINISHED = r"(?:\.\w+\.tmp)?"
"""What a kill leaves behind keeps its temporary name; it makes room like the others."""

REJECT_FILES = re.compile(
    rf"\.?(?P<recording>{STAMP}-\d{{6,}}(?:-[\w.-]+?)?)"
    rf"(?:\.npy|\.png|_overlay\.jpg|_frame[+-]\d+\.jpg){_UNFINISHED}"
)
VIDEO_FILES = re.compile(rf"\.?(?P<recording>{STAMP})(?:-[\w.-]+?)?(?:\.\w+\.part)?\.mp4")


def check_room(folder: Path, reserve: int = RESERVE_BYTES) -> None:
    """Check that the disk of a folder has room to record to; the folder need not exist yet.

    Raises:
        OutputError: fewer than ``reserve`` bytes are free, or the disk cannot be asked.
    """
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    try:
        disk = os.statvfs(there)
    except OSError as error:
        raise output_error(folder, error) from error
    free = disk.f_bavail * disk.f_frsize
    if free < reserve:
        raise OutputError(
            f"cannot record to {folder}: {free // 2**20} MiB are free, and "
            f"{reserve // 2**20} MiB are kept free.",
            next_step="free some space, or choose another disk with --out",
        )


@dataclass(frozen=True)
class RetentionLimits:
    """What may stay; ``None``: no limit."""

    bytes: int | None = None
    """Bytes that all recordings of a folder may take together."""
    seconds: float | None = None
    """Age of a recording's newest file."""


class SteadyClock:
    """The time that ages are counted by: never further on than real time since this was made.

    When the system's clock jumps a year ahead, nothing has become a year older. A clock that jumps
    back makes everything younger, which removes nothing either.

    Args:
        wall: the system's clock, seconds since 1970.
        steady: a clock that cannot be set.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._steady = wall, steady
        self._difference = wall() - steady()

    def __call__(self) -> float:
        """Return seconds since 1970."""
        return min(self._wall(), self._steady() + self._difference)


@dataclass
class _Recording:
    files: list[tuple[Path, int]]
    changed: float

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)


class Retention:
    """Removes whole recordings, the oldest first, until a folder is within its limits.

    Only plain files with exactly the names that recordings have are looked at; the newest recording
    always stays.

    Args:
        folder: holds the recordings.
        pattern: of a file's whole name; its group ``recording`` tells what belongs together.
        limits: what may stay.
        clock: seconds since 1970; by default one that a jump of the system's cannot carry away.
    """

    def __init__(
        self,
        folder: Path,
        pattern: re.Pattern[str],
        limits: RetentionLimits,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._folder = folder
        self._pattern = pattern
        self._limits = limits
        self._clock = clock or SteadyClock()

    def apply(self) -> list[Path]:
        """Remove what is over the limits.

        Returns:
            The files removed.

        Raises:
            OSError: the folder cannot be read. A file that cannot be removed stays, without error.
        """
        # A sink makes its folder with its first recording.
        if self._limits == RetentionLimits() or not self._folder.exists():
            return []
        recordings = self._recordings()
        total = sum(recording.bytes for recording in recordings)
        now = self._clock()
        removed: list[Path] = []
        for recording in recordings[:-1]:
            too_many = self._limits.bytes is not None and total > self._limits.bytes
            too_old = (
                self._limits.seconds is not None and now - recording.changed > self._limits.seconds
            )
            if too_many or too_old:
                removed += _remove(recording)
                total -= recording.bytes
        return removed

    def _recordings(self) -> list[_Recording]:
        """Return all recordings, the oldest first by name."""
        found: dict[str, _Recording] = {}
        for path in self._folder.iterdir():
            match = self._pattern.fullmatch(path.name)
            if match is None:
                continue
            try:
                status = path.lstat()
            except OSError:
                continue
            if not stat.S_ISREG(status.st_mode):
                continue  # a link or a folder: not ours, whatever its name
            recording = found.setdefault(match["recording"], _Recording([], 0.0))
            recording.files.append((path, status.st_size))
            recording.changed = max(recording.changed, status.st_mtime)
        return [found[name] for name in sorted(found)]


class Housekeeping:
    """Wraps a sink; its limits hold to within what is written between two looks.

    Args:
        sink: writes to the folder.
        folder: for the message when it cannot be read.
        apply: removes what is over the limits and returns the files removed.
    """

    def __init__(self, sink: Sink, folder: Path, apply: Callable[[], Sequence[Path]]) -> None:
        self._sink = sink
        self._folder = folder
        self._apply = apply
        self._due = 0.0

    def write(self, decision: Decision, frame: Frame) -> None:
        """Hand a decision on, then keep the limits if it is time.

        Raises:
            OutputError: of the sink; or the folder cannot be read.
        """
        if time.monotonic() >= self._due:  # before: a disk that is full may have room after it
            self._due = time.monotonic() + EVERY_SECONDS
            self._keep()
        self._sink.write(decision, frame)

    def close(self) -> None:
        """Close the sink and keep the limits once more.

        Raises:
            OutputError: of the sink; or the folder cannot be read.
        """
        self._sink.close()
        self._keep()

    def _keep(self) -> None:
        try:
            self._apply()
        except OSError as error:
            raise output_error(self._folder, error) from error


def _remove(recording: _Recording) -> list[Path]:
    removed = []
    # The image first: where it is, the others are (see RejectImages).
    for path, _ in sorted(recording.files, key=lambda file: file[0].suffix != ".png"):
        try:
            path.unlink()
            removed.append(path)
        except OSError:
            continue
    return removed
