"""What a measurement of robustness found: verdicts by disturbance, strength and category."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby

import numpy as np
from pydantic import BaseModel, ConfigDict

from hvq_edge.verdict.judgement import VerdictCounts

CLEAN = "as it is"


class Counts(BaseModel):
    """The verdicts on one category's test images."""

    model_config = ConfigDict(frozen=True)

    good: VerdictCounts
    defective: VerdictCounts

    @property
    def found(self) -> float:
        """Share of the defective images that are rejected; NaN without any."""
        return _share(self.defective.rejected, self.defective.total)

    @property
    def good_rejected(self) -> float:
        """Share of the good images that are rejected; NaN without any."""
        return _share(self.good.rejected, self.good.total)

    @property
    def no_decision(self) -> float:
        """Share of all images that lead to no decision."""
        undecided = self.good.no_decision + self.defective.no_decision
        return _share(undecided, self.good.total + self.defective.total)


RATES: Mapping[str, Callable[[Counts], float]] = {
    "found": lambda counts: counts.found,
    "good rejected": lambda counts: counts.good_rejected,
    "no decision": lambda counts: counts.no_decision,
}


class Row(BaseModel):
    """The verdicts under one strength of one disturbance."""

    model_config = ConfigDict(frozen=True)

    disturbance: str
    """:data:`CLEAN` for none."""
    strength: str
    categories: dict[str, Counts]

    def mean(self, rate: str) -> float:
        """Mean of one of :data:`RATES` over the categories that have such images."""
        return float(np.nanmean([RATES[rate](counts) for counts in self.categories.values()]))


class Robustness(BaseModel):
    """A whole measurement."""

    model_config = ConfigDict(frozen=True)

    key: str
    """Of all that the verdicts depend on."""
    preset: str
    engine: str
    images: int
    rows: tuple[Row, ...]
    """The first one of images as they are, then three of each disturbance."""

    @property
    def clean(self) -> Row:
        """The images as they are."""
        return self.rows[0]

    @property
    def disturbed(self) -> dict[str, tuple[Row, ...]]:
        """Rows by disturbance, the mildest strength first."""
        groups = groupby(self.rows[1:], lambda row: row.disturbance)
        return {name: tuple(rows) for name, rows in groups}


def _share(some: int, total: int) -> float:
    return some / total if total else float("nan")
