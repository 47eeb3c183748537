"""A file played as a camera would show it: at its own rate, over and over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from hvq_edge.errors import HvqEdgeError
from hvq_edge.stream.sources.source import Frame, Source, lost

DEFAULT_RATE = 4.0
"""Frames a second of images, which have no rate of their own."""


class PlayedSource:
    """Gives a file's frames at their rate and begins again at the end, until it is closed.

    To the inspector it is a camera: what is not taken in time is dropped and counted. Frames are
    numbered on over all rounds.

    Args:
        reopen: opens the file anew for each round after the first.
        first: the file, already open; closed with this one.
    """

    live = True

    def __init__(self, reopen: Callable[[], Source], first: Source) -> None:
        self._reopen = reopen
        self._source = first
        self._closed = threading.Event()
        self._name = first.name
        self._rate = first.frames_per_second or DEFAULT_RATE

    @property
    def name(self) -> str:
        """The file's name."""
        return self._name

    @property
    def frames_per_second(self) -> float:
        """The file's rate, or :data:`DEFAULT_RATE`."""
        return self._rate

    def __iter__(self) -> Iterator[Frame]:
        """Give frames until closed; one lost frame a second while the file cannot be opened."""
        index = 0
        due = time.monotonic()
        while not self._closed.is_set():
            for frame in self._source:
                if self._closed.wait(max(due - time.monotonic(), 0.0)):
                    break
                now = time.monotonic()
                due = max(due, now - 1.0) + 1.0 / self._rate
                yield replace(frame, index=index, time=time.time(), arrived=now)
                index += 1
            while not self._closed.is_set():
                try:
                    self._source = self._reopen()
                except HvqEdgeError as error:
                    yield lost(index, error.cause)
                    index += 1
                    self._closed.wait(1.0)
                else:
                    break
        self._source.close()

    def close(self) -> None:
        """End the iteration; safe from another thread and when called twice."""
        self._closed.set()
        self._source.close()
