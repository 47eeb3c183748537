"""A sink that keeps a folder within its limits, after the sink that fills it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hvq_edge.common.atomic import output_error
from hvq_edge.stream.sinks.sink import Sink
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

EVERY_SECONDS = 30.0
"""Between two looks at a folder: reading one with many files takes a while."""


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
