"""Decisions as JSON lines on a text stream."""

from __future__ import annotations

from typing import TextIO

from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision


class JsonLines:
    """Writes one line a decision, flushed at once: whoever reads the pipe sees it now.

    Args:
        stream: where to; stays open.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, decision: Decision, frame: Frame) -> None:  # noqa: ARG002  # of the protocol
        """Write one line."""
        self._stream.write(decision.to_json() + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is left to do."""
