"""How far a number from few pictures can be trusted: intervals at 95 % confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import MissingCapability

CONFIDENCE = 0.95
RESAMPLES = 2000
_SEED = 20_000
"""The same report twice has the same intervals."""


@dataclass(frozen=True)
class Interval:
    """A measured value and the interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """``count`` of ``total``, with the exact interval of the share behind it."""

    count: int
    total: int
    interval: Interval


def share(count: int, total: int) -> Share | None:
    """Return a share with its Clopper-Pearson interval; ``None`` of nothing.

    It holds for every true share and every number of pictures; it is wide because it is exact.

    Args:
        count: how many, from 0 to ``total``.
        total: of how many.

    Raises:
        MissingCapability: SciPy is not installed.

    Example:
        >>> found = share(0, 60)
        >>> f"{found.interval.high:.3f}"
        '0.060'
    """
    if not total:
        return None
    found = _stats().binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
    return Share(count, total, Interval(count / total, float(found.low), float(found.high)))


def auroc_interval(
    good: NDArray[np.floating[Any]], defective: NDArray[np.floating[Any]]
) -> Interval | None:
    """Return the AUROC with its bootstrap interval; ``None`` where one class is missing.

    Pictures are drawn anew with replacement, good and defective ones apart, and the interval runs
    from the 2.5th to the 97.5th percentile of the AUROCs found (percentile bootstrap). Where all
    defective ones score above all good ones every draw gives 1, and the interval is empty: then the
    number of pictures says how much that means.

    Args:
        good: scores ``[n]``, finite.
        defective: scores ``[m]``, finite.
    """
    n, m = len(good), len(defective)
    if not n or not m:
        return None
    wins = (defective[:, None] > good).astype(np.float64) + 0.5 * (defective[:, None] == good)
    chance = np.random.default_rng(_SEED)
    times_defective = chance.multinomial(m, np.full(m, 1 / m), RESAMPLES).astype(np.float64)
    times_good = chance.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)
    found = ((times_defective @ wins) * times_good).sum(1) / (n * m)
    edge = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(found, [edge, 100 - edge])
    return Interval(float(wins.mean()), float(low), float(high))


def promise_of_largest(pictures: int) -> float:
    """Return the false-reject rate that the largest of so many good scores promises at 95 %.

    A rate above p would leave n scores below such a threshold with a chance of less than
    ``(1 - p)**n``; it is 5 % at ``p = 1 - 0.05**(1/n)``. This holds for any distribution of scores,
    for parts like those that were measured.

    Example:
        >>> round(promise_of_largest(30), 3)
        0.095
    """
    return 1.0 - float((1.0 - CONFIDENCE) ** (1.0 / pictures))


def _stats() -> Any:  # noqa: ANN401  # a module without types
    try:
        import scipy.stats
    except ImportError as error:
        raise MissingCapability(
            f"SciPy cannot be imported: {error}.", next_step="run pip install 'hvq-edge[train]'"
        ) from error
    return scipy.stats
