"""Thresholds beyond the largest good score: peaks over threshold with a generalised Pareto tail.

Fewer images do than order statistics need, at the price of a model: the excesses over a high
score are taken to follow a generalised Pareto distribution, as they do in the limit for most
distributions (Pickands, "Statistical inference using extreme order statistics", Annals of
Statistics 3, 1975; Coles, "An Introduction to Statistical Modeling of Extreme Values", 2001,
chapter 4). Its parameters come from probability-weighted moments, steadier than maximum likelihood
with few excesses (Hosking and Wallis, Technometrics 29, 1987); the confidence from a bootstrap.
That is approximate: docs/how-to/calibrate.md says how often it held in simulation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import InputError
from hvq_edge.verdict.defaults import CONFIDENCE, FALSE_REJECT
from hvq_edge.verdict.tolerance_bound import (
    NO_SCORES,
    BoundedThreshold,
    FalseRejectBound,
    Scores,
    check_asked,
)

TAIL_SHARE = 0.25
"""Of the scores, the largest, whose excesses are fitted."""
LEAST_EXCESSES = 30
BOOTSTRAPS = 1000
POOR_FIT = 0.1
"""p-value of the fit below which the model is called doubtful."""
HEAVY = 0.4
"""Shape from which on the moments that the fit uses hardly exist (they need 0.5)."""


class Tail(NamedTuple):
    """Of a generalised Pareto distribution; arrays where many were fitted at once."""

    shape: NDArray[np.float64]
    """Above 0: heavier than exponential; below 0: it ends."""
    scale: NDArray[np.float64]


def extreme_value(
    scores: Scores,
    asked: float | None = FALSE_REJECT,
    confidence: float = CONFIDENCE,
    learnt: Scores = NO_SCORES,  # noqa: ARG001  # the tail is that of unseen images
    *,
    seed: int = 0,
) -> BoundedThreshold:
    """Take a threshold from a model of the tail of good scores.

    Args:
        scores: ``[n]``, finite, ascending.
        asked: false-reject rate; ``None``: the default one.
        confidence: share of bootstrapped thresholds that the threshold is not below.
        learnt: not used.
        seed: of the bootstrap: the same scores give the same threshold.

    Raises:
        SettingsError: a rate or confidence that is not between 0 and 1.
        InputError: too few scores, a rate inside the sample's body, or a tail without spread.
    """
    asked = FALSE_REJECT if asked is None else asked
    check_asked(asked, confidence)
    n = len(scores)
    count = int(n * TAIL_SHARE)
    if count < LEAST_EXCESSES:
        least = math.ceil(LEAST_EXCESSES / TAIL_SHARE)
        raise InputError(
            f"an extreme-value model needs at least {least} good images of a category, and there "
            f"are {n}.",
            next_step="take more images, or use --method order-statistics",
        )
    if asked > count / n:
        raise InputError(
            f"a false-reject rate of {asked:g} lies inside the good scores: there is nothing to "
            "extrapolate.",
            next_step="use --method order-statistics",
        )
    start = float(scores[n - count - 1])
    excesses = scores[n - count :] - start
    if np.unique(excesses).size < LEAST_EXCESSES // 2:
        raise InputError(
            "the largest good scores are nearly all the same: a tail cannot be fitted.",
            next_step="use --method order-statistics",
        )
    generator = np.random.default_rng(seed)
    tail = fit_tail(excesses[None])
    value = start + float(_beyond(tail, asked * n / count)[0])
    bound = max(
        value,
        _resampled(scores, count, asked, confidence, generator),
        start + _pivotal(tail, value - start, count, asked * n / count, confidence, generator),
    )
    found = FalseRejectBound(
        method="extreme-value",
        asked=asked,
        rate=asked,
        confidence=confidence,
        images=n,
        warnings=_doubts(excesses, tail, generator),
    )
    return BoundedThreshold(bound, found)


def fit_tail(excesses: NDArray[np.float64]) -> Tail:
    """Fit generalised Pareto tails by probability-weighted moments.

    Args:
        excesses: ``[fits, n]``, ascending in each row, not negative.
    """
    n = excesses.shape[1]
    mean = excesses.mean(1)
    # Plotting positions that Hosking and Wallis recommend.
    weight = 1 - (np.arange(1, n + 1) - 0.35) / n
    moment = (excesses * weight).mean(1)
    apart = np.maximum(mean - 2 * moment, 1e-9 * np.maximum(mean, 1e-300))
    return Tail(shape=2 - mean / apart, scale=2 * mean * moment / apart)


def _resampled(
    scores: Scores, count: int, asked: float, confidence: float, generator: np.random.Generator
) -> float:
    """Return the percentile bootstrap's bound: scores drawn again, the start of the tail too."""
    n = len(scores)
    drawn = np.sort(generator.choice(scores, (BOOTSTRAPS, n)), axis=1)
    starts = drawn[:, n - count - 1]
    tails = fit_tail(drawn[:, n - count :] - starts[:, None])
    return float(np.quantile(starts + _beyond(tails, asked * n / count), confidence))


def _pivotal(
    tail: Tail,
    above: float,
    count: int,
    share: float,
    confidence: float,
    generator: np.random.Generator,
) -> float:
    """Return a bound above the tail's start from how far fits to the fitted tail fall short of it.

    The percentile bootstrap alone is too low for small samples, whose fits lean downwards.
    """
    from scipy.stats import genpareto

    size = (BOOTSTRAPS, count)
    shape, scale = float(tail.shape[0]), float(tail.scale[0])
    drawn = np.sort(genpareto.rvs(shape, scale=scale, size=size, random_state=generator), axis=1)
    ratio = float(np.quantile(_beyond(fit_tail(drawn), share) / above, 1 - confidence))
    return above / max(ratio, 0.05)


def _beyond(tail: Tail, share: float) -> NDArray[np.float64]:
    """How far above the tail's start so small a share of it lies."""
    from scipy.stats import genpareto

    return np.asarray(genpareto.isf(share, tail.shape, scale=np.maximum(tail.scale, 1e-300)))


def _doubts(
    excesses: NDArray[np.float64], tail: Tail, generator: np.random.Generator
) -> tuple[str, ...]:
    """Say why the model may be wrong: its distance from the excesses, and a very heavy tail.

    The p-value of the Kolmogorov-Smirnov distance is bootstrapped, because the parameters were
    fitted to the same excesses.
    """
    from scipy.stats import genpareto

    n, fits = len(excesses), BOOTSTRAPS // 4
    shape, scale = float(tail.shape[0]), float(tail.scale[0])
    drawn = np.sort(
        genpareto.rvs(shape, scale=scale, size=(fits, n), random_state=generator), axis=1
    )
    expected = _distance(drawn, fit_tail(drawn))
    p = float((1 + (expected >= _distance(excesses[None], tail)[0]).sum()) / (1 + fits))
    doubts = []
    if p < POOR_FIT:
        doubts.append(
            f"the model fits the largest scores badly (p = {p:.2g}): do not rely on its upper bound"
        )
    if shape > HEAVY:
        doubts.append(
            f"the tail is very heavy (shape {shape:.2f}): look at the images that score highest"
        )
    return tuple(doubts)


def _distance(excesses: NDArray[np.float64], tail: Tail) -> NDArray[np.float64]:
    """Kolmogorov-Smirnov distance of each row from its fit, ``[fits]``."""
    from scipy.stats import genpareto

    n = excesses.shape[1]
    share = genpareto.cdf(excesses, tail.shape[:, None], scale=tail.scale[:, None])
    steps = np.arange(n + 1) / n
    return np.asarray(np.maximum(steps[1:] - share, share - steps[:-1]).max(1))
