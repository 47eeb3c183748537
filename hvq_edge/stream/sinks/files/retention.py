"""Old recordings make room for new ones, and nothing else does."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STAMP = r"\d{8}T\d{9}Z"
"""Moment in UTC, to the millisecond, that begins the names of recordings; they sort by time."""

_UNFINISHED = r"(?:\.\w+\.tmp)?"
"""What a kill leaves behind keeps its temporary name; it makes room like the others."""

REJECT_FILES = re.compile(
    rf"\.?(?P<recording>{STAMP}-\d{{6,}}(?:-[\w.-]+?)?)"
    rf"(?:\.npy|\.png|_overlay\.jpg|_frame[+-]\d+\.jpg){_UNFINISHED}"
)
VIDEO_FILES = re.compile(rf"\.?(?P<recording>{STAMP})(?:-[\w.-]+?)?(?:\.\w+\.part)?\.mp4")


@dataclass(frozen=True)
class RetentionLimits:
    """What may stay; ``None``: no limit."""

    bytes: int | None = None
    """Of all recordings of a folder together."""
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
        if self._limits == RetentionLimits():
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
