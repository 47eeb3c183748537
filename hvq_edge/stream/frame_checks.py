"""Can this frame be judged? Lost, frozen, black, saturated or blurred frames cannot."""

from __future__ import annotations

import numpy as np

from hvq_edge.bundle import PictureLimits
from hvq_edge.data.quality import fault, measure
from hvq_edge.runtime.engine import Frames

FROZEN_AFTER = 10
"""Identical frames in a row that mean a frozen camera: sensor noise alone makes frames differ."""


class FrozenWatch:
    """Counts identical frames in a row.

    Args:
        after: identical frames from which the camera counts as frozen, at least 2.
    """

    def __init__(self, after: int = FROZEN_AFTER) -> None:
        self._after = after
        self._former: Frames | None = None
        self._repeats = 0

    def frozen(self, fitted: Frames) -> bool:
        """Take the next frame, uint8 ``[side, side, 3]``, and say whether the camera is frozen."""
        same = self._former is not None and np.array_equal(self._former, fitted)
        self._repeats = self._repeats + 1 if same else 1
        self._former = fitted
        return self._repeats >= self._after

    @property
    def repeats(self) -> int:
        """How many identical frames in a row there were, the last one included."""
        return self._repeats


class FrameChecks:
    """The checks before the engine.

    Args:
        limits: learnt from training pictures; ``None``: brightness and sharpness go unchecked.
        live: whether the source is a camera. A file may well hold the same picture many times.
    """

    def __init__(self, limits: PictureLimits | None, *, live: bool) -> None:
        self._limits = limits
        self._frozen = FrozenWatch() if live else None

    def fault(self, fitted: Frames) -> str | None:
        """Take the next frame as the engine would see it and say why it cannot be judged.

        Args:
            fitted: uint8 ``[side, side, 3]``, RGB.

        Returns:
            The reason, or ``None`` for a frame that can be judged.
        """
        frozen = self._frozen is not None and self._frozen.frozen(fitted)
        quality_fault = fault(measure(fitted), self._limits) if self._limits else None
        if quality_fault is not None:
            return quality_fault
        if frozen and self._frozen is not None:
            return f"frozen: the same picture {self._frozen.repeats} times in a row"
        return None
