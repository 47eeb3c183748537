"""What is watched of a part, and what is said and advised when it moves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvq_edge.verdict.likeness.look import Look

Floats = NDArray[np.float64]

SCORE, MARGIN = "score", "margin"
PLACES = ("across", "down")
IMAGE = (*Look._fields, *PLACES)
"""Measures of the image alone."""

_SPREAD_SLACK = 0.5
"""A measure may move by so much of its spread: the light of no line is constant."""
_SCORE_SLACK = 0.1
"""Less for scores: a third of their spread doubles 5 % of false rejects."""
_FEATURE_SLACK = 0.25
"""For the margin and for codes: they move with scores, and before them."""
_LEAST_SLACK = {"sharpness": 0.1, "noise": 0.1, "compression": 0.05, "across": 0.01, "down": 0.01}
_LEAST_SLACK |= {"warmth": 0.01, "greenness": 0.01}
_LEAST_SLACK_ELSE = 0.03
"""Of the logarithm of a measure of the image: what counts as unmoved, however alike parts are."""

_OPTICS = "see to the lamp, the exposure, and dirt on lens and lamp"
_FOCUS = "clean the lens; check focus and vibration"
_COLOUR = "check the lamp's age, light from elsewhere and the white balance"
_PLACE = "check the camera's mount, the fixture and when the trigger comes"
_ALL = (
    "compare an image with one from before: light, focus, place; else new material or a worn tool"
)
_PARTS = "look at the parts: new material, another supplier or variant, a worn tool"


class Saying(NamedTuple):
    """What is said of a measure that went down or up, and what to do."""

    down: str
    up: str
    remedy: str


_SAYINGS = {
    "brightness": Saying("darker", "brighter", _OPTICS),
    # Where blur leaves no edges, what is left is noise, which looks sharp.
    "sharpness": Saying("softer", "sharper or nothing but noise", _FOCUS),
    "noise": Saying("less noise", "noisier", "check light and gain, and that the lens is clean"),
    "compression": Saying(
        "less compressed", "more compressed", "check the camera's bit rate and quality"
    ),
    "warmth": Saying("colder", "warmer", _COLOUR),
    "greenness": Saying("pinker", "greener", _COLOUR),
    "across": Saying("placed elsewhere across", "placed elsewhere across", _PLACE),
    "down": Saying("placed elsewhere along", "placed elsewhere along", _PLACE),
    SCORE: Saying(
        "lower scores of passed parts", "higher scores of passed parts", "look at rejects of late"
    ),
    MARGIN: Saying("further from the category's centre", "closer to its category", _ALL),
}
_CODES = Saying("commoner codes at level {}", "rarer codes at level {}", _PARTS)


def saying_of(measure: str) -> Saying:
    """Return what is said of a measure; of codes it is named ``codes 0`` and so on."""
    kind, _, level = measure.partition(" ")
    if kind != "codes":
        return _SAYINGS[measure]
    return _CODES._replace(down=_CODES.down.format(level), up=_CODES.up.format(level))


def remedies(measures: list[str]) -> str:
    """Return what to do, each remedy once: the image's causes before those of the parts."""
    image = [measure for measure in measures if measure in IMAGE]
    said = [saying_of(measure).remedy for measure in (image or measures)]
    return "; ".join(dict.fromkeys(said))


def image_measures(look: Look, small: NDArray[np.float32]) -> Floats:
    """Return :data:`IMAGE` of an image: logarithms of its look, and where its edges lie.

    Args:
        look: of the image.
        small: ``[side, side]``, grey levels, as :func:`hvq_edge.verdict.placement.small_grey`.
    """
    across, down = np.diff(small, axis=1)[:-1], np.diff(small, axis=0)[:, :-1]
    energy = across * across + down * down
    total = float(energy.sum()) + 1e-9
    middle = np.arange(len(energy)) / len(energy)
    places = (float(energy.sum(0) @ middle) / total, float(energy.sum(1) @ middle) / total)
    return np.array([*np.log(look), *places])


def shown(measure: str, value: float) -> float:
    """Return a value as people know it: looks are watched as logarithms."""
    return float(np.exp(value)) if measure in Look._fields else value


def slack_of(measure: str, values: Floats) -> float:
    """Return by how much a measure may move unmentioned, from its reference values."""
    centre = np.median(values)
    spread = 1.4826 * float(np.median(np.abs(values - centre)))
    if measure == SCORE:
        return _SCORE_SLACK * spread
    if measure not in IMAGE:
        return _FEATURE_SLACK * spread
    return max(_SPREAD_SLACK * spread, _LEAST_SLACK.get(measure, _LEAST_SLACK_ELSE))


def share_of(measure: str, levels: int) -> float:
    """Return a measure's share of the false alarms.

    A third goes to scores, a third to the image, a third to codes and the margin.
    """
    if measure == SCORE:
        return 1 / 3
    return 1 / 3 / (len(IMAGE) if measure in IMAGE else levels + 1)


class CodeUsage:
    """How often each code of each level is used, counted over parts.

    Args:
        levels: of codes.
    """

    def __init__(self, levels: int) -> None:
        self._counts = np.zeros((levels, 1))

    @property
    def counts(self) -> Floats:
        """``[levels, codes]``."""
        return self._counts

    @counts.setter
    def counts(self, counts: Floats) -> None:
        self._counts = counts

    def count(self, codes: NDArray[np.int32]) -> None:
        """Count a part's codes, ``[levels, tokens]``."""
        size = max(int(codes.max()) + 1, self._counts.shape[1])
        grown = np.zeros((len(codes), size))
        grown[:, : self._counts.shape[1]] = self._counts
        for level, used in enumerate(codes):
            grown[level] += np.bincount(used, minlength=size)
        self._counts = grown

    def surprise(self, codes: NDArray[np.int32]) -> Floats:
        """Return how rare a part's codes are: mean bits a token, ``[levels]``."""
        counts = self._counts + 0.5
        # A code that was never seen stands in a place of its own: the last.
        bits = np.log2(counts.sum(1, keepdims=True) / np.pad(counts, ((0, 0), (0, 1)), "minimum"))
        places = np.minimum(codes, counts.shape[1])
        mean: Floats = np.take_along_axis(bits, places, axis=1).mean(axis=1)
        return mean
