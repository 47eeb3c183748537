"""What the good training images of a category look like, and what is unlike them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

from pydantic import Field

from hvq_edge.common.records import Strict
from hvq_edge.verdict.likeness.look import Look

_WORDS = {
    "brightness": ("darker", "brighter"),
    "sharpness": ("softer", "sharper"),
    "noise": ("", "noisier"),  # less noise and less compression do no harm
    "compression": ("", "more compressed"),
    "warmth": ("colder", "warmer"),
    "greenness": ("pinker", "greener"),
}
"""What is said of a measure below and above what is usual."""

_LEAST_SPREAD = {"sharpness": 0.1, "noise": 0.1, "compression": 0.05}
_LEAST_SPREAD_ELSE = 0.03
"""Spreads count as this at least: images of one hour under one lamp are too much alike."""

_FEW = 10
"""With so many training images the margin is doubled: few show little of what is usual."""

_GAUSSIAN = 1.4826
"""A Gaussian's standard deviation is so many times its median absolute deviation."""


class UsualValue(Strict):
    """One measure of a category's good training images."""

    median: float = Field(gt=0)
    spread: float = Field(ge=0)
    """Standard deviation of its logarithm, from the median absolute deviation."""
    lowest: float = Field(gt=0)
    """That a single image has."""
    highest: float = Field(gt=0)


class UsualLook(Strict):
    """What a category's good training images look like; :class:`.look.Look` has the measures."""

    images: int = Field(ge=1)
    brightness: UsualValue
    sharpness: UsualValue
    noise: UsualValue
    compression: UsualValue
    warmth: UsualValue
    greenness: UsualValue


class Difference(NamedTuple):
    """In what images are unlike the training images."""

    word: str
    value: float
    """Of these images."""
    usual: float
    """Of the median training image."""

    def __str__(self) -> str:
        return f"{self.word} ({self.value:.3g} of {self.usual:.3g})"


def median_look(looks: Iterable[Look]) -> Look:
    """Return the median of each measure; at least one look."""
    return Look(*map(median, zip(*looks, strict=True)))


def learn_usual(looks: Sequence[Look]) -> UsualLook:
    """Learn what images usually look like.

    Args:
        looks: of a category's good training images, at least one.
    """
    measures = zip(Look._fields, zip(*looks, strict=True), strict=True)
    values = {name: _usual(values) for name, values in measures}
    return UsualLook.model_validate({"images": len(looks), **values})


def _usual(values: Sequence[float]) -> UsualValue:
    centre = median(values)
    distances = [abs(math.log(value / centre)) for value in values]
    return UsualValue(
        median=centre,
        spread=_GAUSSIAN * median(distances),
        lowest=min(values),
        highest=max(values),
    )


def differences(look: Look, usual: UsualLook, said: Collection[str] = ()) -> Iterator[Difference]:
    """Say in what images are unlike the training images.

    A measure differs when it is beyond what any single training image has, by more than their
    spread times 1 + 10 / n for n images. With Gaussian measures and 20 training images or more, the
    median of 20 other images that are like them differs, in any measure, less than once in
    1,000,000 times. Where all 20 show one and the same part, it differs for 3 parts in 100 with 20
    training images, for 1 in 100 with 50, and for 1 in 500 with 200.

    Args:
        look: median of the images.
        usual: of the training images.
        said: words of the differences found last; these hold until a measure has come back by half
            of that margin, so that nothing flickers.
    """
    for name, words in _WORDS.items():
        value, known = getattr(look, name), getattr(usual, name)
        spread = max(known.spread, _LEAST_SPREAD.get(name, _LEAST_SPREAD_ELSE))
        margin = spread * (1 + _FEW / usual.images)
        beyond = (math.log(known.lowest / value), math.log(value / known.highest))
        for word, distance in zip(words, beyond, strict=True):
            if word and distance > margin * (0.5 if word in said else 1.0):
                yield Difference(word, value, known.median)
