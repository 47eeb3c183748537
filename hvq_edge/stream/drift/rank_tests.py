"""Sequential tests that values go on as the reference values were: several tests as one array.

A value's place among reference values tells all: no distribution is assumed. While nothing changes
(values and references exchangeable), n references cut the line into n + 1 gaps, and the chance of a
gap is that of Polya's urn: (1 + values that fell into it) / (n + 1 + values so far), exactly, and
however few references there are. So the odds are learnt as the values come, and what a small
reference set happens to be like is no alarm (Vovk, Nouretdinov and Gammerman, "Testing
exchangeability on-line", 2003, with the references kept and the values counted).

Against these odds each test bets: with power bets on small p-values, e * p ** (e - 1), averaged
over the gap, so that each bet is fair to the last digit, ties aside. Wins are summed up as Shiryaev
and Roberts do, R = (1 + R) * bet: R less the number of values is a martingale, so until R reaches a
limit c, c values come on average at least (Vovk, "Testing randomness online", 2021, section 4). A
weighted mean of such tests is one again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POWERS: Floats = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
"""Of the bets: small ones win when values are far out, large ones when all have moved a little."""
_LARGEST = 1e200
_NEVER = 1e-300
_KEPT = ("edges", "mass", "slack", "wins", "since", "count", "sum", "began")


class Reference(NamedTuple):
    """What one test's values are compared with."""

    values: Floats
    """Ascending, ``[n]``."""
    weights: Floats
    """``[n + 1]``: of the gaps below, between and above; 1 where each value stands for one."""
    slack: float
    """By so much values may move and count as unmoved."""


def reference_of(values: Floats, slack: float) -> Reference:
    """Return values in any order as a reference."""
    return Reference(np.sort(values), np.ones(len(values) + 1), slack)


class Moved(NamedTuple):
    """What the strongest bet of a test says."""

    up: bool
    mean: float
    """Of the values since then."""
    values: int
    """How many these are."""
    since: float
    """Time of the first of them."""


class RankTests:
    """Tests that take one value each at a time.

    Args:
        references: one a test.
    """

    def __init__(self, references: list[Reference]) -> None:
        tests, longest = len(references), max(len(one.values) for one in references)
        self._edges = np.full((tests, longest), np.inf)
        self._mass = np.zeros((tests, longest + 1))
        for row, one in enumerate(references):
            self._edges[row, : len(one.values)] = one.values
            self._mass[row, : len(one.weights)] = one.weights
        self._slack = np.array([one.slack for one in references])
        self._rows = np.arange(tests)
        shape = (2, tests, len(POWERS))
        self._wins = np.zeros(shape)
        self._since = np.zeros(shape)
        """Page's statistic of the same bets: where it begins anew, a change may have begun."""
        self._count = np.zeros(shape)
        self._sum = np.zeros(shape)
        self._began = np.zeros(shape)

    @property
    def evidence(self) -> Floats:
        """``[tests]``: reaches c after c values or more on average, while nothing changes."""
        mean: Floats = self._wins.mean(axis=(0, 2))
        return mean

    def take(self, values: Floats, time: float = 0.0) -> None:
        """Take one value a test.

        Args:
            values: ``[tests]``; NaN is no value of that test.
            time: when they were seen.
        """
        known = np.isfinite(values)
        rows = self._rows
        total = self._mass.sum(axis=1)
        reached = np.cumsum(self._mass, axis=1) / total[:, None]
        bets = np.empty_like(self._wins)
        for side, shifted in enumerate((values - self._slack, values + self._slack)):
            gap = (self._edges < shifted[:, None]).sum(axis=1)
            high = reached[rows, gap]
            low = np.where(gap > 0, reached[rows, gap - 1], 0.0)
            if side == 0:
                low, high = 1.0 - high, 1.0 - low
            low = np.maximum(low, 0.0)[:, None]
            high = np.maximum(high[:, None], low + _NEVER)
            wide = np.maximum(high - low, _NEVER)
            bets[side] = (high**POWERS - low**POWERS) / wide
        bets[:, ~known] = 1.0
        self._wins = np.minimum((self._wins + known[:, None]) * bets, _LARGEST)
        begun = (self._since <= 1.0) & known[:, None]
        self._since = np.minimum(np.where(begun, 1.0, self._since) * bets, _LARGEST)
        self._count = np.where(begun, 0.0, self._count) + known[:, None]
        self._began = np.where(begun, time, self._began)
        self._sum = np.where(begun, 0.0, self._sum) + np.where(known, values, 0.0)[:, None]
        place = (self._edges < values[:, None]).sum(axis=1)
        self._mass[rows[known], place[known]] += 1.0

    def arrays(self) -> dict[str, Floats]:
        """Return all that it knows."""
        return {name: getattr(self, f"_{name}") for name in _KEPT}

    @classmethod
    def of(cls, arrays: Mapping[str, Floats]) -> RankTests:
        """Make tests that go on where :meth:`arrays` were taken.

        Raises:
            ValueError: they do not belong together.
        """
        tests, longest = arrays["edges"].shape
        made = cls([Reference(np.zeros(longest), np.ones(longest + 1), 0.0)] * tests)
        for name in _KEPT:
            if arrays[name].shape != getattr(made, f"_{name}").shape:
                raise ValueError(f"{name} is of another size")
            setattr(made, f"_{name}", arrays[name].astype(np.float64))
        return made

    def moved(self, test: int) -> Moved:
        """Return which way a test's values went, and since how many of them."""
        side, power = np.unravel_index(int(self._since[:, test].argmax()), (2, len(POWERS)))
        count = self._count[side, test, power]
        mean = self._sum[side, test, power] / max(count, 1.0)
        began = float(self._began[side, test, power])
        return Moved(bool(side == 0), float(mean), int(count), began)
