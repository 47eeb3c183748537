"""The threshold of one category and precision: its record, and how it follows from good scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
from pydantic import Field

from hvq_edge.common.records import Strict
from hvq_edge.verdict.calibration_scores import CalibrationScores, table_of
from hvq_edge.verdict.defaults import CONFIDENCE
from hvq_edge.verdict.tolerance_bound import (
    FalseRejectBound,
    Scores,
    ThresholdRule,
    order_statistic,
)

CHOSEN = "chosen on labelled test images"
"""How the rule of a threshold begins that defects helped to choose."""
_ALIKE = 0.3
"""Lag-1 autocorrelation from which on it is spoken of."""
_ENOUGH = 20
"""Scores from which on it is measured."""


class Threshold(Strict):
    """Scores above ``value`` are rejected."""

    value: float
    images: int = Field(ge=1)
    """Good images it was learnt from."""
    rule: str
    """How, in words: a quality manager reads this."""
    highest_image: str | None = None
    """The image that set it; relative to the training data."""
    next_highest: float | None = None
    """Score of the next one below."""
    median: float
    """Score of the median good image."""
    set_aside: tuple[str, ...] = ()
    """Good images whose scores the others do not explain; they set no threshold."""
    bound: FalseRejectBound | None
    """What is known of its false rejects; ``None``: it was set by hand, or on test images."""
    calibration_scores: CalibrationScores
    """Turns a score into a p-value."""

    @property
    def set_by_one_image(self) -> bool:
        """Whether one image alone sets it: twice as far from the median as any other.

        Such an image is often a defective part among the good ones.
        """
        if self.next_highest is None:
            return False
        return self.value - self.median > 2 * (self.next_highest - self.median)


class GoodPart(NamedTuple):
    """A good part's score."""

    score: float
    """Finite."""
    name: str
    """Of its image or frame."""


def learn_threshold(
    parts: Sequence[GoodPart],
    *,
    asked: float | None = None,
    confidence: float = CONFIDENCE,
    rule: ThresholdRule = order_statistic,
    learnt: Sequence[GoodPart] = (),
    source: str = "",
    machine: str = "",
) -> Threshold:
    """Learn the threshold of one category and precision.

    Args:
        parts: good parts in the order in which they were seen, at least one.
        asked: false-reject rate; ``None``: the lowest upper bound.
        confidence: of the upper bound.
        rule: how.
        learnt: good parts that the model learnt from, which score lower; may be empty.
        source: where the parts were seen, for the record.
        machine: what judged them, for the record.

    Raises:
        InputError: the rule cannot work with these scores.
    """
    scores: Scores = np.sort(np.array([part.score for part in parts], np.float64))
    known: Scores = np.sort(np.array([part.score for part in learnt], np.float64))
    value, bound, shift = rule(scores, asked, confidence, known)
    alike = autocorrelation_warning([part.score for part in parts])
    bound = bound.model_copy(
        update={
            "source": source,
            "machine": machine,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "warnings": (*bound.warnings, *([alike] if alike else [])),
        }
    )
    setting: str | None = None
    below: float | None = None
    aside: tuple[str, ...] = ()
    if bound.set_aside_above is not None:
        pooled = [*parts, *(GoodPart(part.score + shift, part.name) for part in learnt)]
        aside = tuple(part.name for part in sorted(pooled) if part.score > bound.set_aside_above)
        scores = scores[scores <= bound.set_aside_above]
    if bound.expected is not None:
        passing = max((part for part in parts if part.score <= value), default=None)
        setting = passing.name if passing else None
    if bound.rank is not None:
        descending = sorted(parts, reverse=True)
        setting = descending[bound.rank - 1].name
        below = descending[bound.rank].score if bound.rank < len(parts) else None
    return Threshold(
        value=value,
        images=len(parts),
        rule=str(bound),
        highest_image=setting,
        next_highest=below,
        median=float(np.median(scores)),
        set_aside=aside,
        bound=bound,
        calibration_scores=table_of(scores.tolist()),
    )


def autocorrelation_warning(scores: Sequence[float]) -> str:
    """Warn where neighbouring scores are alike; empty where they could be independent.

    Frames of a video that show the same part are not new evidence, and the upper bound counts each
    of them as such. With a correlation r of neighbours, n scores tell as much of their mean as
    n (1 - r) / (1 + r) independent ones (Bayley and Hammersley, "The effective number of
    independent observations in an autocorrelated time series", 1946).

    Args:
        scores: in the order in which they were seen.
    """
    values = np.asarray(scores, np.float64)
    if len(values) < _ENOUGH or not values.std():
        return ""
    centred = values - values.mean()
    r = float((centred[1:] * centred[:-1]).sum() / np.square(centred).sum())
    if r < max(_ALIKE, 3 / math.sqrt(len(values))):
        return ""
    worth = max(1, int(len(values) * (1 - r) / (1 + r)))
    return (
        f"neighbouring images score alike (correlation {r:.2f}), as frames of the same part do: "
        f"these {len(values)} may be worth only about {worth} independent ones"
    )
