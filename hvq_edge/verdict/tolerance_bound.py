"""The tolerance bound of a threshold: a false-reject rate, with its confidence, and from what."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hvq_edge.common.records import Strict
from hvq_edge.common.wording import counted
from hvq_edge.errors import SettingsError
from hvq_edge.verdict.defaults import CONFIDENCE
from hvq_edge.verdict.tolerance import largest_rank, least_images, promised_rate

Method = Literal["expected-rate", "order-statistics", "extreme-value"]

Scores = NDArray[np.float64]
"""Finite scores of good parts, ascending, at least one."""


class FalseRejectBound(Strict):
    """Of good parts like those it was learnt from, at most ``rate`` are rejected."""

    method: Method
    """``expected-rate``: the rate that was asked for is the one to expect, and ``rate`` bounds it;
    ``order-statistics``: ``rate`` is kept whatever the distribution of scores; ``extreme-value``:
    it rests on a model of the tail."""
    asked: float | None = Field(None, gt=0, lt=1)
    """Rate that was asked for; ``None``: nobody asked."""
    expected: float | None = Field(None, gt=0, lt=1)
    """Share of good parts that is expected to be rejected; ``None``: not known."""
    rate: float = Field(gt=0, le=1)
    """Upper bound of the rate. Above ``asked`` where there were too few images."""
    confidence: float = Field(gt=0, lt=1)
    images: int = Field(ge=1)
    """Good images, not learnt from, that the bound rests on."""
    learnt: int = Field(0, ge=0)
    """Images learnt from that helped to place the threshold."""
    set_aside_above: float | None = None
    """Good images that score above this were set aside; ``None``: none was."""
    rank: int | None = Field(None, ge=1)
    """The threshold is the so-many-th largest of them; ``None``: extrapolated."""
    needed: int | None = Field(None, ge=1)
    """Images from which on the asked rate can be promised."""
    source: str = ""
    """Where the good parts were seen."""
    machine: str = ""
    """What judged them."""
    created: str = ""
    """ISO 8601, UTC."""
    warnings: tuple[str, ...] = ()
    """Why it may not hold, a sentence each."""

    @property
    def met(self) -> bool:
        """Whether it is as good as what was asked for."""
        found = self.rate if self.expected is None else self.expected
        return self.asked is None or found <= self.asked

    def __str__(self) -> str:
        """All of it in words, for a quality manager."""
        sure = f"{100 * self.confidence:.4g} % confidence"
        said = f"at most {percent(self.rate)} false rejects at {sure}"
        if self.expected is not None:
            more = f" and {self.learnt} learnt from" if self.learnt else ""
            return (
                f"{percent(self.expected)} false rejects expected, from "
                f"{counted(self.images, 'unseen good image')}{more}; {said}"
            )
        if self.rank is None:
            return (
                f"tail of {counted(self.images, 'good image')} extrapolated with a model: {said}, "
                "if the model is right"
            )
        return f"{_ordinal(self.rank)}largest of {counted(self.images, 'good image')}: {said}"


class BoundedThreshold(NamedTuple):
    """A threshold and its bound."""

    value: float
    bound: FalseRejectBound
    shift: float = 0.0
    """What scores of images learnt from were raised by, so that they lie where unseen ones do."""


NO_SCORES: Scores = np.zeros(0)

ThresholdRule = Callable[[Scores, float | None, float, Scores], BoundedThreshold]
"""From good scores, the asked rate (``None``: the best that can be promised), the confidence, and
the scores of images that the model learnt from, to a threshold."""


def order_statistic(
    scores: Scores,
    asked: float | None,
    confidence: float = CONFIDENCE,
    learnt: Scores = NO_SCORES,  # noqa: ARG001  # unseen images alone can promise
) -> BoundedThreshold:
    """Take a threshold from the largest good scores; holds for every distribution of scores.

    With too few scores it is the largest one, and promises what that can.

    Args:
        scores: ``[n]``, finite, ascending.
        asked: false-reject rate; ``None``: take the largest score.
        confidence: of the upper bound.
        learnt: not used.

    Raises:
        SettingsError: a rate or confidence that is not between 0 and 1.
    """
    check_asked(asked, confidence)
    n = len(scores)
    rank = 1 if asked is None else max(largest_rank(n, asked, confidence), 1)
    found = FalseRejectBound(
        method="order-statistics",
        asked=asked,
        rate=promised_rate(n, rank, confidence),
        confidence=confidence,
        images=n,
        rank=rank,
        needed=None if asked is None else least_images(asked, confidence),
    )
    return BoundedThreshold(float(scores[n - rank]), found)


def check_asked(asked: float | None, confidence: float) -> None:
    """Refuse rates that mean nothing.

    Raises:
        SettingsError: not between 0 and 1, or so small that no number of images would do.
    """
    for name, value in (("false-reject rate", asked), ("confidence", confidence)):
        if value is not None and not SMALLEST <= value <= 1 - SMALLEST:
            raise SettingsError(
                f"the {name} must lie between 0 and 1, not be {value:g}.",
                next_step="give 0.01 for 1 % of false rejects, 0.95 for 95 % confidence",
            )


SMALLEST = 1e-6
"""A rarer false reject would take millions of images to promise."""


def percent(rate: float) -> str:
    """Return a rate in percent with two digits, never less than it is."""
    value = 100 * rate
    if value <= 0:
        return "0 %"
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    # Rates that only rounding put above a round number stay there: 1 % is not 1.1 %.
    return f"{math.ceil(value / unit - 1e-6) * unit:.4g} %"


def _ordinal(rank: int) -> str:
    if rank == 1:
        return ""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(rank % 10 if rank % 100 not in (11, 12, 13) else 0)
    return f"{rank}{ending or 'th'} "
