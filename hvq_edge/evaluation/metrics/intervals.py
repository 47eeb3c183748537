"""How far an AUROC of few images can be trusted: bootstrap intervals at 95 % confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.verdict.tolerance import INTERVAL_CONFIDENCE, Interval

RESAMPLES = 2000
"""Draws of a bootstrap."""
_SEED = 20_000
"""The same report twice has the same intervals."""


def auroc_interval(
    good: NDArray[np.floating[Any]],
    defective: NDArray[np.floating[Any]],
    draws: int = RESAMPLES,
) -> Interval | None:
    """Return the AUROC with its bootstrap interval; ``None`` where one class is missing.

    Images are drawn anew with replacement, good and defective ones apart, and the interval runs
    from the 2.5th to the 97.5th percentile of the AUROCs found (percentile bootstrap). Where all
    defective ones score above all good ones every draw gives 1, and the interval is empty: then the
    number of images says how much that means.

    Args:
        good: scores ``[n]``, finite.
        defective: scores ``[m]``, finite.
        draws: of the bootstrap.
    """
    return mean_auroc_interval([(good, defective)], draws)


def mean_auroc_interval(
    categories: Sequence[tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]],
    draws: int = RESAMPLES,
) -> Interval | None:
    """Return the mean AUROC of several categories with its bootstrap interval.

    Each category's images are drawn anew by themselves, so its numbers of images stay as they
    are; the interval is that of the mean over categories, draw by draw.

    Args:
        categories: scores of good and of defective images, as in :func:`auroc_interval`; those
            that lack one of the two have no AUROC and are left out.
        draws: of the bootstrap.

    Returns:
        ``None`` where no category has both.
    """
    chance = np.random.default_rng(_SEED)  # one for all: categories must not draw alike
    found = [
        _auroc_draws(good, defective, draws, chance)
        for good, defective in categories
        if len(good) and len(defective)
    ]
    if not found:
        return None
    edge = 100 * (1 - INTERVAL_CONFIDENCE) / 2
    low, high = np.percentile(np.mean([drawn for _, drawn in found], axis=0), [edge, 100 - edge])
    return Interval(float(np.mean([value for value, _ in found])), float(low), float(high))


def _auroc_draws(
    good: NDArray[np.floating[Any]],
    defective: NDArray[np.floating[Any]],
    draws: int,
    chance: np.random.Generator,
) -> tuple[float, NDArray[np.float64]]:
    """Return the AUROC, and that of each draw ``[draws]``."""
    n, m = len(good), len(defective)
    wins = (defective[:, None] > good).astype(np.float64) + 0.5 * (defective[:, None] == good)
    times_defective = chance.multinomial(m, np.full(m, 1 / m), draws).astype(np.float64)
    times_good = chance.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64)
    return float(wins.mean()), ((times_defective @ wins) * times_good).sum(1) / (n * m)
