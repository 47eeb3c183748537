"""Watches whether a camera's images, and their scores, are like those of the training images."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from statistics import median

from hvq_edge.verdict.likeness.look import Look
from hvq_edge.verdict.likeness.usual import UsualLook, differences, median_look

WINDOW = 20
"""Frames of one category whose median counts."""

HIGH_SCORES = 0.05
"""Scores are high when the median frame scores as high as this share of good images at most. Of 20
good parts, ten do so less than once in 100,000 windows."""
NO_LONGER_HIGH = 0.1

REMEDY = (
    "see to light, focus and the camera's settings; if they are to stay, learn thresholds again "
    "with hvq-edge stream --calibrate N, or train with images from this camera"
)
_SCORES = "scores higher than those of good images"

logger = logging.getLogger(__name__)


class LikenessWatch:
    """Compares a camera's last frames with the training images, each category apart.

    Only frames with a score count. One thread takes them, any thread reads :attr:`said`.

    Args:
        camera: its name, for the warning: one whenever the kinds of differences change.
        usual: what the training images look like, by category; others are not watched.
    """

    def __init__(self, camera: str, usual: Mapping[str, UsualLook]) -> None:
        self.usual = usual
        self.said = ""
        """``unlike the training images of bolt: softer (0.21 of 0.48)``; empty while they are
        alike, or fewer than :data:`WINDOW` frames were seen."""
        self._camera = camera
        self._frames: dict[str, deque[tuple[Look, float | None]]] = {}
        self._words: dict[str, tuple[str, ...]] = {}
        self._texts: dict[str, str] = {}

    def take(self, category: str, look: Look, p_value: float | None) -> None:
        """Take a frame with a score.

        Args:
            category: that it was judged as; one of :attr:`usual`.
            look: what it looks like.
            p_value: of its score; ``None`` where that is not known.
        """
        frames = self._frames.setdefault(category, deque(maxlen=WINDOW))
        frames.append((look, p_value))
        if len(frames) < WINDOW:
            return
        former = self._words.get(category, ())
        found = {
            difference.word: str(difference)
            for difference in differences(
                median_look(look for look, _ in frames), self.usual[category], former
            )
        }
        known = [p_value for _, p_value in frames if p_value is not None]
        limit = NO_LONGER_HIGH if _SCORES in former else HIGH_SCORES
        if len(known) == WINDOW and median(known) <= limit:
            found[_SCORES] = f"{_SCORES} (median p-value {median(known):.2g})"
        if tuple(found) != former:
            self._change(category, found)

    def _change(self, category: str, found: Mapping[str, str]) -> None:
        self._words[category] = tuple(found)
        self._texts[category] = ", ".join(found.values())
        self.said = "; ".join(
            f"unlike the training images of {name}: {text}"
            for name, text in self._texts.items()
            if text
        )
        if found:
            logger.warning("%s: %s: %s", self._camera, self.said, REMEDY)
        else:
            logger.info("%s: %s is like the training images again", self._camera, category)
