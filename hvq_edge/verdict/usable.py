"""Can this frame be judged? Lost, frozen, black, saturated, blurred or moved frames cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hvq_edge.bundle.manifest import CategoryLimits, ImageLimits
from hvq_edge.runtime.engine import Frames
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.image_limits import FrameQuality, fault, measure
from hvq_edge.verdict.placement import moved, small_grey

FROZEN_AFTER = 10
"""Identical frames in a row that mean a frozen camera: sensor noise alone makes frames differ."""


@dataclass(frozen=True, eq=False)
class CheckedFrame:
    """A frame made ready for the engine, or known to be unfit for it."""

    frame: Frame
    fitted: Frames | None
    """uint8 ``[side, side, 3]``; ``None`` where there is no usable image."""
    fault: str | None
    """Why it cannot be judged."""
    checks_ms: float
    """What making it ready took."""
    quality: FrameQuality | None = None
    """``None`` where the bundle has no limits to hold it against."""

    @property
    def fit(self) -> bool:
        """Whether the engine can be asked."""
        return self.fitted is not None and self.fault is None


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
        limits: learnt from training images; ``None``: brightness and sharpness go unchecked.
        live: whether the source is a camera. A file may well hold the same image many times.
    """

    def __init__(self, limits: ImageLimits | None, *, live: bool) -> None:
        self._limits = limits
        self._frozen = FrozenWatch() if live else None

    def check(self, fitted: Frames) -> tuple[str | None, FrameQuality | None]:
        """Take the next frame as the engine would see it and say why it cannot be judged.

        Args:
            fitted: uint8 ``[side, side, 3]``, RGB.

        Returns:
            The reason, or ``None`` for a frame that can be judged; and its quality, ``None`` where
            there are no limits for it.
        """
        frozen = self._frozen is not None and self._frozen.frozen(fitted)
        quality = measure(fitted) if self._limits else None
        quality_fault = fault(quality, self._limits) if quality and self._limits else None
        if quality_fault is None and frozen and self._frozen is not None:
            return f"frozen: the same image {self._frozen.repeats} times in a row", quality
        return quality_fault, quality


class CategoryChecks:
    """The checks after the engine, when it is known what the frame shows.

    The limits before the engine hold for all categories at once, so the one with the widest range
    sets them; these are those of the frame's own category.

    Args:
        limits: by category; one that is not in it is not checked.
    """

    def __init__(self, limits: Mapping[str, CategoryLimits]) -> None:
        self._limits = limits

    def fault(self, checked: CheckedFrame, category: str) -> str | None:
        """Say why a frame that shows this category cannot be judged, or ``None``."""
        limits = self._limits.get(category)
        if limits is None or checked.quality is None or checked.fitted is None:
            return None
        found = fault(checked.quality, limits.image)
        if found is None and limits.placement is not None:
            return moved(small_grey(checked.fitted), limits.placement)
        return found
