"""What good parts score, kept beside a threshold, and a score's p-value against it.

The p-value of a part is the share of good parts that score at least as high, the part itself
counted in: (1 + #{good >= score}) / (n + 1). Whatever the distribution, a good part that is
exchangeable with the kept ones has a p-value of at most a with a probability of at most a (Vovk,
Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, section 2.2: a conformal
p-value). So it means the same for every category and precision, which raw scores do not.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise

from pydantic import Field, model_validator

from hvq_edge.common.records import Strict

EXACT = 64
"""The largest scores are kept one by one: there decisions fall."""
THINNED = 64
"""Of those below, so many at equal steps of rank."""


class CalibrationScores(Strict):
    """A compact table of good scores. p-values from it are exact in the tail, else rounded up."""

    count: int = Field(ge=1)
    """Good scores that the table stands for."""
    scores: tuple[float, ...] = Field(min_length=1)
    """Some of them, ascending, no two the same."""
    above: tuple[int, ...]
    """How many of the ``count`` are larger than each."""

    @model_validator(mode="after")
    def _fits(self) -> CalibrationScores:
        if len(self.scores) != len(self.above):
            raise ValueError("scores and above differ in length")
        if any(a >= b for a, b in pairwise(self.scores)):
            raise ValueError("scores do not ascend")
        if any(a <= b for a, b in pairwise((self.count, *self.above))) or self.above[-1] != 0:
            raise ValueError("above does not fall from count to 0")
        return self

    def p_value(self, score: float) -> float:
        """Return a score's p-value: small where few good parts score as high.

        Args:
            score: of this category and precision; not NaN.

        Returns:
            1 / (count + 1) to 1.

        Raises:
            ValueError: the score is NaN.
        """
        if math.isnan(score):
            raise ValueError("a score that is not a number has no p-value")
        below = bisect_left(self.scores, score)  # kept scores that are smaller
        reaching = self.above[below - 1] if below else self.count
        return (1 + reaching) / (self.count + 1)


def p_value(
    known: Mapping[str, CalibrationScores], category: str | None, score: float | None
) -> float | None:
    """Return the p-value of a score; ``None`` without a score, or a record of its category.

    Args:
        known: what good parts score, by category.
        category: that the score is of.
        score: not NaN.
    """
    scores = known.get(category or "")
    return None if scores is None or score is None else scores.p_value(score)


def table_of(scores: Sequence[float]) -> CalibrationScores:
    """Keep a compact table of good scores.

    Args:
        scores: finite, at least one, in any order.

    Raises:
        ValueError: there is none.
    """
    ordered = sorted(scores)
    if not ordered:
        raise ValueError("a table of good scores needs at least one")
    thinned = max(len(ordered) - EXACT, 0)
    step = max(math.ceil(thinned / THINNED), 1)
    places = [*range(0, thinned, step), *range(thinned, len(ordered))]
    kept = sorted({ordered[place] for place in places})
    return CalibrationScores(
        count=len(ordered),
        scores=tuple(kept),
        above=tuple(len(ordered) - bisect_right(ordered, score) for score in kept),
    )
