"""How often a threshold taken from good scores rejects good parts, however scores are distributed.

Put the threshold at the k-th largest of n independent good scores, and reject what is above it. The
share p of all good parts that it rejects is then itself random, and for continuous scores follows
Beta(k, n - k + 1), so that

    P(p <= rate) = P(Binomial(n, rate) >= k)

whatever the distribution: a one-sided distribution-free tolerance bound (Wilks, "Determination of
sample sizes for setting tolerance limits", Annals of Mathematical Statistics 12, 1941; Hahn and
Meeker, "Statistical Intervals", 1991, chapter 5). Scores that tie only make p smaller, because a
score equal to the threshold passes. Standard library only: a device computes it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

INTERVAL_CONFIDENCE = 0.95
"""Of the interval of a :class:`Share`."""
_SURE = 1e-12
"""What sums of probabilities may lose to rounding; always to the safe side."""
_HALVINGS = 60


def largest_rank(n: int, rate: float, confidence: float) -> int:
    """Return the largest k whose k-th largest score keeps the promise.

    Args:
        n: independent good scores.
        rate: largest false-reject rate, between 0 and 1.
        confidence: with which the rate shall hold, between 0 and 1.

    Returns:
        k, at most n; 0 where even the largest score cannot promise it.
    """
    below, k = 0.0, 0  # below: P(Binomial(n, rate) < k)
    while k < n:
        below += _probability(n, k, rate)
        if below > 1 - confidence - _SURE:
            break
        k += 1
    return k


def promised_rate(n: int, k: int, confidence: float) -> float:
    """Return the smallest false-reject rate that the k-th largest of n scores can promise.

    It is the ``confidence`` quantile of Beta(k, n - k + 1), rounded up.

    Args:
        n: independent good scores, at least 1.
        k: rank from above, 1 to n.
        confidence: with which the rate shall hold, between 0 and 1.
    """
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if math.fsum(_probability(n, j, middle) for j in range(k)) <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high


def least_images(rate: float, confidence: float) -> int:
    """Return how many good scores it takes until the largest one keeps the promise.

    Args:
        rate: largest false-reject rate, between 0 and 1.
        confidence: between 0 and 1.
    """
    n = max(1, math.floor(math.log1p(-confidence) / math.log1p(-rate)) - 1)
    while largest_rank(n, rate, confidence) < 1:
        n += 1
    return n


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

    It holds for every true share and every number of images; it is wide because it is exact.

    Args:
        count: how many, from 0 to ``total``.
        total: of how many.

    Example:
        >>> found = share(0, 60)
        >>> f"{found.interval.high:.3f}"
        '0.060'
    """
    if not total:
        return None
    one_side = (1 + INTERVAL_CONFIDENCE) / 2
    low = 1 - promised_rate(total, total - count + 1, one_side) if count else 0.0
    high = promised_rate(total, count + 1, one_side) if count < total else 1.0
    return Share(count, total, Interval(count / total, low, high))


def _probability(n: int, k: int, rate: float) -> float:
    """P(Binomial(n, rate) = k)."""
    if rate <= 0 or rate >= 1:
        return float(k == (n if rate >= 1 else 0))
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(rate) + (n - k) * math.log1p(-rate))
