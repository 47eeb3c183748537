"""The sink protocol: where decisions go, and what a sink may offer beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from hvq_edge.errors import OutputError
from hvq_edge.stream.sources.source import Frame, Image
from hvq_edge.verdict.decision import Decision

Draw = Callable[[Decision, Frame], Image]
"""Draws a decision on its frame; see :class:`hvq_edge.stream.drawing.overlay.Overlay`."""


class Sink(Protocol):
    """Takes every decision of a run, in order, on one thread.

    That is the engine's, or a thread of the sink's own where it stands behind a
    :class:`hvq_edge.stream.sinks.threads.SinkThread`.
    """

    def write(self, decision: Decision, frame: Frame) -> None:
        """Take one decision.

        Raises:
            OutputError: it cannot be kept; the sink stays closable.
        """
        ...

    def close(self) -> None:
        """Finish what was written; calling it twice is fine.

        Raises:
            OutputError: it cannot be finished.
        """
        ...


@runtime_checkable
class TickingSink(Sink, Protocol):
    """A sink that has something to do between decisions: commit, beat, let go."""

    def tick(self) -> float | None:
        """Do what is due. Called on the sink's thread, after decisions and when its time is up.

        Returns:
            Seconds until it wants to be called again; ``None``: not before the next decision.

        Raises:
            OutputError: it cannot be done; it is tried again. :class:`TryAgain` says when.
        """
        ...


@runtime_checkable
class CountingSink(Sink, Protocol):
    """A sink that records how many decisions it was not given."""

    def missed(self, decisions: int, since: float) -> None:
        """Learn that decisions found no room; called on the sink's thread.

        Args:
            decisions: how many.
            since: when the first did, seconds since 1970.
        """
        ...


@runtime_checkable
class SeeingSink(Sink, Protocol):
    """A sink whose state every decision changes, also one that it is not given to show."""

    def see(self, decision: Decision) -> None:
        """Learn of a decision at once; called on the inspector's thread, so it never waits."""
        ...


class TryAgain(OutputError):
    """Something could not be done, and something else is due soon all the same.

    Args:
        cause: what could not be done.
        seconds: after which the sink wants to be called again.
        next_step: what to do about it.
    """

    def __init__(self, cause: str, seconds: float, *, next_step: str = "") -> None:
        super().__init__(cause, next_step=next_step)
        self.seconds = seconds


@runtime_checkable
class BufferingSink(Sink, Protocol):
    """A sink that takes decisions before it has kept them."""

    @property
    def pending(self) -> int:
        """Decisions taken and not kept yet."""
        ...

    @property
    def lost(self) -> int:
        """Decisions taken that could not be kept after all."""
        ...
