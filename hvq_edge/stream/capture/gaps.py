"""When a camera gave no images: every gap, with its beginning, its end and the frames lost."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hvq_edge.stream.sources.source import Frame

KEPT = 100
"""Latest gaps that are kept; all of them are counted."""


@dataclass(frozen=True)
class Gap:
    """One stretch of frames without an image."""

    start: float
    """When the first was lost: seconds since 1970, UTC."""
    end: float | None
    """When an image came again; ``None`` while none has."""
    frames: int
    """Lost in it."""
    fault: str
    """Of the first."""


class GapWatch:
    """Watches the frames of one source, in order."""

    def __init__(self) -> None:
        self._gaps: deque[Gap] = deque(maxlen=KEPT)
        self._fault = ""
        self.count = 0
        """Gaps since the start."""

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        if frame.image is None and not self._fault:
            self.count += 1
            self._gaps.append(Gap(frame.time, None, 1, frame.fault))
        elif frame.image is None:
            gap = self._gaps.pop()
            self._gaps.append(Gap(gap.start, None, gap.frames + 1, gap.fault))
        elif self._fault:
            gap = self._gaps.pop()
            self._gaps.append(Gap(gap.start, frame.time, gap.frames, gap.fault))
        self._fault = frame.fault

    @property
    def fault(self) -> str:
        """Why the last frame has no image; empty if it has one."""
        return self._fault

    @property
    def latest(self) -> tuple[Gap, ...]:
        """The last :data:`KEPT` gaps, the oldest first."""
        return tuple(self._gaps)
