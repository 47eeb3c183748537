"""A share of few, and how far it can be trusted: exact intervals at 95 % confidence."""

from __future__ import annotations

from dataclasses import dataclass

from hvq_edge.verdict.tolerance import promised_rate

CONFIDENCE = 0.95


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
    one_side = (1 + CONFIDENCE) / 2
    low = 1 - promised_rate(total, total - count + 1, one_side) if count else 0.0
    high = promised_rate(total, count + 1, one_side) if count < total else 1.0
    return Share(count, total, Interval(count / total, low, high))
