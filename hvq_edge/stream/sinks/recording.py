"""What a run keeps on disk, guarded: a full disk ends the recording, never the inspection."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hvq_edge.atomic import output_error
from hvq_edge.errors import OutputError
from hvq_edge.stream.decisions import Decision
from hvq_edge.stream.sinks.sink import Sink
from hvq_edge.stream.sources.source import Frame

RESERVE_BYTES = 16 * 2**20
"""Recording ends with this much free: a video needs room to be finished, a system to live."""


class Recording:
    """A sink around the sinks that write to one disk.

    The first error ends all of them; it is kept in :attr:`fault` and reported once.

    Args:
        folder: a folder on that disk.
        sinks: what is recorded.
        report: called once, with the error that ended the recording.
        reserve: bytes to leave free on the disk.
    """

    def __init__(
        self,
        folder: Path,
        sinks: Sequence[Sink],
        report: Callable[[OutputError], None],
        *,
        reserve: int = RESERVE_BYTES,
    ) -> None:
        self._folder = folder
        self._sinks = sinks
        self._report = report
        self._reserve = reserve
        self._closed = False
        self.fault: OutputError | None = None
        """Why the recording ended early; ``None`` while all is well."""

    def write(self, decision: Decision, frame: Frame) -> None:
        """Record one decision; after a fault, do nothing."""
        if self._closed:
            return
        try:
            check_room(self._folder, self._reserve)
            for sink in self._sinks:
                sink.write(decision, frame)
        except OutputError as error:
            self._fail(error)

    def close(self) -> None:
        """Finish all files; calling it twice is fine."""
        if not self._closed:
            for error in self._finish():
                self._fail(error)

    def _fail(self, error: OutputError) -> None:
        self._finish()
        if self.fault is None:
            self.fault = error
            self._report(error)

    def _finish(self) -> list[OutputError]:
        """Close every sink, whatever the others do, and return what went wrong."""
        if self._closed:
            return []
        self._closed = True
        errors = []
        for sink in self._sinks:
            try:
                sink.close()
            except OutputError as error:
                errors.append(error)
        return errors


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
