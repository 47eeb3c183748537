"""The sink protocol: where decisions go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hvq_edge.stream.decisions import Decision
from hvq_edge.stream.sources.source import Frame, Picture

Draw = Callable[[Decision, Frame], Picture]
"""Draws a decision on its frame; see :class:`hvq_edge.stream.overlay.Overlay`."""


class Sink(Protocol):
    """Takes every decision of a run, in order, on the engine's thread."""

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
