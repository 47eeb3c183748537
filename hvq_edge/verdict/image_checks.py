"""Which images lead to no decision: lost, frozen, black, saturated, blurred or moved ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.verdict.frame_quality import FrameQuality, fault, quality_of
from hvq_edge.verdict.image_limits import CategoryLimits, ImageLimits
from hvq_edge.verdict.judgement import Judgement
from hvq_edge.verdict.likeness.look import Look, look_of
from hvq_edge.verdict.placement import moved, small_of

FROZEN_AFTER = 10
"""Identical frames in a row that mean a frozen camera: sensor noise alone makes frames differ."""

Fitted = NDArray[np.uint8]
"""uint8 ``[side, side, 3]``, RGB, as ``fit_image`` gives."""


class SeenFrame:
    """A frame as the model sees it, and what is measured of it: once, for all who ask.

    Args:
        fitted: as ``fit_image`` gives it; nobody changes it.
    """

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted

    @cached_property
    def quality(self) -> FrameQuality:
        """As :func:`hvq_edge.verdict.frame_quality.measure`."""
        return quality_of(self._grey, self._edges)

    @cached_property
    def small(self) -> NDArray[np.float32]:
        """As :func:`hvq_edge.verdict.placement.small_grey`."""
        return small_of(self._grey)

    def look(self, image: NDArray[np.uint8]) -> Look:
        """Return what :func:`hvq_edge.verdict.likeness.look.look_at` says.

        Args:
            image: that was fitted.
        """
        return look_of(image, self.fitted, self._grey, self._edges)

    @cached_property
    def _grey(self) -> NDArray[np.generic]:
        grey: NDArray[np.generic] = cv2.cvtColor(self.fitted, cv2.COLOR_RGB2GRAY)
        return grey

    @cached_property
    def _edges(self) -> NDArray[np.generic]:
        edges: NDArray[np.generic] = cv2.Laplacian(self._grey, cv2.CV_16S)
        return edges


class ImageChecks:
    """What a bundle knows of usable images, before and after the engine.

    The limits before the engine hold for all categories at once, so the one with the widest range
    sets them; those after it are of the category that the image was judged as.

    Args:
        limits: of all categories together; ``None``: brightness and sharpness go unchecked.
        by_category: of each category; one that is not in it is not checked.
    """

    def __init__(
        self, limits: ImageLimits | None, by_category: Mapping[str, CategoryLimits]
    ) -> None:
        self._limits = limits
        self._by_category = by_category

    def before(self, seen: SeenFrame) -> str | None:
        """Say why an image cannot be judged, before the engine is asked, or ``None``."""
        return None if self._limits is None else fault(seen.quality, self._limits)

    def after(self, seen: SeenFrame, category: str) -> str | None:
        """Say why an image that was judged as a category cannot be judged, or ``None``."""
        limits = self._by_category.get(category)
        if limits is None:
            return None
        found = fault(seen.quality, limits.image)
        if found is None and limits.placement is not None:
            return moved(seen.small, limits.placement)
        return found

    def fault(self, fitted: Fitted, judgement: Judgement) -> str | None:
        """Say why an image cannot be judged, the first reason of both checks, or ``None``."""
        seen = SeenFrame(fitted)
        return self.before(seen) or self.after(seen, judgement.category)


class FrozenWatch:
    """Counts identical frames in a row.

    Args:
        after: identical frames from which the camera counts as frozen, at least 2.
    """

    def __init__(self, after: int = FROZEN_AFTER) -> None:
        self._after = after
        self._former: Fitted | None = None
        self._repeats = 0

    def frozen(self, fitted: Fitted) -> bool:
        """Take the next frame and say whether the camera is frozen."""
        same = self._former is not None and np.array_equal(self._former, fitted)
        self._repeats = self._repeats + 1 if same else 1
        self._former = fitted
        return self._repeats >= self._after

    @property
    def repeats(self) -> int:
        """How many identical frames in a row there were, the last one included."""
        return self._repeats


class FrameChecks:
    """The checks before the engine of one source's frames, in order.

    Args:
        checks: of single images.
        live: whether the source is a camera. A file may well hold the same image many times.
    """

    def __init__(self, checks: ImageChecks, *, live: bool) -> None:
        self._checks = checks
        self._frozen = FrozenWatch() if live else None

    def check(self, seen: SeenFrame) -> str | None:
        """Take the next frame; see :meth:`ImageChecks.before`."""
        frozen = self._frozen is not None and self._frozen.frozen(seen.fitted)
        found = self._checks.before(seen)
        if found is None and frozen and self._frozen is not None:
            return f"frozen: the same image {self._frozen.repeats} times in a row"
        return found
