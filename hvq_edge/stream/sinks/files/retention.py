"""Room on the disk: how much is kept free, and old recordings that make way for new ones."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import accumulate
from pathlib import Path

from hvq_edge.common.atomic import output_error
from hvq_edge.errors import HvqEdgeError, OutputError
from hvq_edge.stream.sinks.sink import Sink
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

RESERVE_BYTES = 16 * 2**20
"""Recording ends with this much free: a video needs room to be finished, a system to live."""

CLOCK_SLACK_SECONDS = 2.0
"""A file may bear a time that is so far ahead: file systems have clocks of their own."""

EVERY_SECONDS = 30.0
"""Between two looks at a folder: reading one with many files takes a while."""

STAMP = r"\d{8}T\d{9}Z"
"""What :func:`time_stamp` returns."""
STAMP_LENGTH = 19

_UNFINISHED = r"(?:\.\w+\.tmp)?"
"""What a kill leaves behind keeps its temporary name; it makes room like the others."""

REJECT_FILES = re.compile(
    rf"\.?(?P<recording>{STAMP}-\d{{6,}}(?:-[\w.-]+?)?)"
    rf"(?:\.npy|\.png|_overlay\.jpg|_frame[+-]\d+\.jpg){_UNFINISHED}"
)
VIDEO_FILES = re.compile(rf"\.?(?P<recording>{STAMP})(?:-[\w.-]+?)?(?:\.\w+\.part)?\.mp4")


def time_stamp(seconds: float) -> str:
    """Return a moment in UTC to the millisecond, as it begins the names of recordings.

    Args:
        seconds: since 1970.
    """
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03}Z"


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
    name: str
    files: list[tuple[Path, int]]
    changed: int
    """When its newest file was written, in nanoseconds since 1970."""

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)

    @property
    def begun(self) -> float:
        """What its name says, in seconds since 1970."""
        try:
            moment = datetime.strptime(f"{self.name[: STAMP_LENGTH - 1]}+0000", "%Y%m%dT%H%M%S%f%z")
        except ValueError:  # digits that are no date
            return self.changed / 1e9
        return moment.timestamp()


class Retention:
    """Removes whole recordings, the oldest first, until a folder is within its limits.

    Only plain files with exactly the names that recordings have are looked at; the newest recording
    always stays, and so does what is still being written. The order is that in which they were
    recorded, whatever the clock said: what appears between two looks is newer than all that was
    there. So that it outlasts a restart, the time of a file that was written while the clock was
    behind is moved to just after the one before it.

    Args:
        folder: holds the recordings.
        pattern: of a file's whole name; its group ``recording`` tells what belongs together.
        limits: what may stay.
        clock: seconds since 1970; by default one that a jump of the system's cannot carry away.
        recorded: gives the times of all decisions in the order in which they were made. It is asked
            where files bear times that are still to come; without it these are the oldest.
        in_hand: files that are being written: of several cameras one may have begun long ago.
    """

    def __init__(
        self,
        folder: Path,
        pattern: re.Pattern[str],
        limits: RetentionLimits,
        clock: Callable[[], float] | None = None,
        recorded: Callable[[], Iterable[float]] | None = None,
        in_hand: Collection[Path] = (),
    ) -> None:
        self._folder = folder
        self._in_hand = in_hand
        self._pattern = pattern
        self._limits = limits
        self._clock = clock or SteadyClock()
        self._recorded = recorded
        self._seen: set[str] = set()

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
        now = self._clock()
        recordings = self._in_order(self._recordings(), now)
        total = sum(recording.bytes for recording in recordings)
        since = _known_since(recordings, now)
        removed: list[Path] = []
        for recording in recordings[:-1]:
            if any(path in self._in_hand for path, _ in recording.files):
                continue
            too_many = self._limits.bytes is not None and total > self._limits.bytes
            age = now - since[recording.name]
            if too_many or (self._limits.seconds is not None and age > self._limits.seconds):
                removed += _remove(recording)
                total -= recording.bytes
        return removed

    def _recordings(self) -> list[_Recording]:
        """Return all recordings, in any order."""
        found: dict[str, _Recording] = {}
        if not self._folder.exists():  # somebody took it away; the next recording makes it again
            return []
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
            name = match["recording"]
            recording = found.setdefault(name, _Recording(name, [], 0))
            recording.files.append((path, status.st_size))
            recording.changed = max(recording.changed, status.st_mtime_ns)
        return list(found.values())

    def _in_order(self, recordings: list[_Recording], now: float) -> list[_Recording]:
        """Return them as they were recorded, and keep that order in the times of their files."""
        limit = round((now + CLOCK_SLACK_SECONDS) * 1e9)
        unseen = [one for one in recordings if one.name not in self._seen]
        ranks: dict[str, int] = {}
        if self._recorded is not None and any(one.changed > limit for one in unseen):
            with suppress(HvqEdgeError):  # a damaged log is told of elsewhere
                ranks = {time_stamp(at): rank for rank, at in enumerate(self._recorded())}

        def place(one: _Recording) -> tuple[bool, int, int, str]:
            rank = 0
            if one.name not in self._seen:
                # A time that is still to come is of a clock that was ahead, and then put right.
                known = ranks.get(one.name[:STAMP_LENGTH], -1)
                rank = known if ranks else int(one.changed <= limit)
            return one.name not in self._seen, rank, one.changed, one.name

        recordings.sort(key=place)
        self._seen = {one.name for one in recordings}
        last = 0
        for recording in recordings:
            if recording.changed < last:
                recording.changed = last + 1
                with suppress(OSError):
                    os.utime(recording.files[0][0], ns=(recording.changed, recording.changed))
            last = recording.changed
        return recordings


def _known_since(recordings: Sequence[_Recording], now: float) -> dict[str, float]:
    """Return the times by which recordings were there at the latest.

    Of a recording's name and its file the later one counts, but none that is still to come: what
    has no other is as old as the next. None is older than the one before it.
    """
    times: list[float] = []
    known = now
    for recording in reversed(recordings):
        known = max(
            (at for at in (recording.begun, recording.changed / 1e9) if at <= now), default=known
        )
        times.append(known)
    names = [recording.name for recording in recordings]
    return dict(zip(names, accumulate(times[::-1], max), strict=True))


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
