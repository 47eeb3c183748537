"""Watches whether a camera's images, and their scores, are like those of the training images."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from hvq_edge.verdict.likeness.look import Look
from hvq_edge.verdict.likeness.usual import UsualLook, differences, median_look

WINDOW = 20
"""Frames of one category whose median counts."""

SETTLED = WINDOW // 2
"""Frames in a row that must tell of the same change."""

HIGH_SCORES = 0.05
"""Scores are high when half of the frames score above all but this share of the good images. Good
parts do so in one window of 100,000 where 39 good images are known, and in 14 where 19 are; with
fewer nothing is said."""
NO_LONGER_HIGH = 0.1

REMEDY = (
    "see to light, focus and the camera's settings; if they are to stay, learn thresholds again "
    "with hvq-edge stream --calibrate N, let the bundle learn what is good (hvq-edge review, then "
    "hvq-edge learn), or train with images from this camera"
)
_SCORES = "scores higher than those of good images"

logger = logging.getLogger(__name__)


@dataclass
class _Seen:
    """The last frames of one category."""

    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=WINDOW))
    p_values: deque[float | None] = field(default_factory=lambda: deque(maxlen=WINDOW))
    former: tuple[str, ...] = ()
    """Words of the differences that the former frame left."""
    alike: int = 0
    """Frames in a row that left these."""
    said: tuple[str, ...] | None = None
    """Words of the differences said last; ``None`` before the first window."""
    text: str = ""


class LikenessWatch:
    """Compares a camera's last frames with the training images, each category apart.

    What the first window tells is said at once. A later change is said when half a window has told
    the same: then the window holds hardly a frame from before it, and the numbers are right. Only
    frames with a score count. One thread takes them, any thread reads :attr:`said`.

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
        self._seen: dict[str, _Seen] = {}

    def take(self, category: str, look: Look, p_value: float | None) -> None:
        """Take a frame with a score.

        Args:
            category: that it was judged as; one of :attr:`usual`.
            look: what it looks like.
            p_value: of its score; ``None`` where that is not known.
        """
        seen = self._seen.setdefault(category, _Seen())
        seen.looks.append(look)
        seen.p_values.append(p_value)
        if len(seen.looks) < WINDOW:
            return
        found = _differences(seen, self.usual[category])
        words = tuple(found)
        seen.alike = seen.alike + 1 if words == seen.former else 1
        seen.former = words
        if words != seen.said and (seen.said is None or seen.alike >= SETTLED):
            news = bool(words or seen.said)
            seen.said, seen.text = words, ", ".join(found.values())
            if news:
                self._say(category)

    def _say(self, category: str) -> None:
        self.said = "; ".join(
            f"unlike the training images of {name}: {seen.text}"
            for name, seen in self._seen.items()
            if seen.text
        )
        if self._seen[category].text:
            logger.warning("%s: %s: %s", self._camera, self.said, REMEDY)
        else:
            logger.info("%s: %s is like the training images again", self._camera, category)


def _differences(seen: _Seen, usual: UsualLook) -> dict[str, str]:
    """Return what the window's differences are called, and how they are said."""
    former = seen.said or ()
    found = {one.word: str(one) for one in differences(median_look(seen.looks), usual, former)}
    known = [p_value for p_value in seen.p_values if p_value is not None]
    limit = NO_LONGER_HIGH if _SCORES in former else HIGH_SCORES
    if len(known) == WINDOW and median(known) <= limit:
        found[_SCORES] = f"{_SCORES} (median p-value {median(known):.2g})"
    return found
