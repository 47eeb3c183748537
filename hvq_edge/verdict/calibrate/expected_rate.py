"""The threshold at which a wanted share of good parts is expected to be rejected.

Held-out images tell where the scores of good parts lie, and there are few of them. The images that
the model learnt from are many, and score lower, all of them alike. So these are shifted by the
difference of the medians and join the held-out ones; the error of that shift is added to the
threshold (docs/explanation/accuracy.md, "Thresholds", compares rules). An image whose score the
others do not explain is set aside: among good images there is now and then a defective one.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from hvq_edge.common.wording import counted
from hvq_edge.verdict.defaults import CONFIDENCE
from hvq_edge.verdict.tolerance import promised_rate
from hvq_edge.verdict.tolerance_bound import (
    NO_SCORES,
    BoundedThreshold,
    FalseRejectBound,
    Scores,
    check_asked,
    percent,
)

OUTLIER_LEVEL = 0.001
"""Chance to set aside an image where all are good and their scores are normal."""
MOST_SET_ASIDE = 0.1
"""Share of the images that is set aside at most."""
FEW = 3
"""Unseen images from which on the rate is about kept; with fewer that is said."""


def expected_rate(
    scores: Scores,
    asked: float | None,
    confidence: float = CONFIDENCE,
    learnt: Scores = NO_SCORES,
) -> BoundedThreshold:
    """Take the threshold whose expected false-reject rate is the one that was asked for.

    Args:
        scores: of images that the model has not seen, ``[n]``, finite, ascending, at least one.
        asked: false-reject rate; ``None`` is refused.
        confidence: of the bound that stands beside it.
        learnt: scores of images that the model learnt from, finite, ascending; may be empty.

    Returns:
        The threshold. Its bound counts unseen images only: it is the upper confidence limit
        (Clopper and Pearson) of the rate, given how many of them are above the threshold.

    Raises:
        SettingsError: no rate, or a rate or confidence that is not between 0 and 1.
    """
    check_asked(asked, confidence)
    assert asked is not None
    shift = float(np.median(scores) - np.median(learnt)) if len(learnt) else 0.0
    pooled = np.sort(np.concatenate([scores, learnt + shift]))
    kept = pooled[: len(pooled) - outliers(pooled)]
    value = threshold_at_rate(kept, asked)
    if len(learnt):
        value += float(np.std(learnt)) / math.sqrt(len(scores))
    unseen = scores[scores <= kept[-1]]  # what was set aside promises nothing
    above = int((unseen > value).sum())
    n = len(unseen)
    warnings = []
    if len(kept) + 1 < 1 / asked:
        warnings.append(
            f"{counted(len(kept), 'good image')} {'is' if len(kept) == 1 else 'are'} few for "
            f"{percent(asked)}: the threshold rests on a model of the largest scores"
        )
    if len(learnt) and len(scores) < FEW:
        warnings.append(
            f"only {len(scores)} of the good images were held out: what new good parts score is "
            "hardly known"
        )
    bound = FalseRejectBound(
        method="expected-rate",
        asked=asked,
        expected=asked,
        rate=promised_rate(n, above + 1, confidence) if above < n else 1.0,
        confidence=confidence,
        images=n,
        learnt=len(learnt),
        set_aside_above=float(kept[-1]) if len(kept) < len(pooled) else None,
        warnings=tuple(warnings),
    )
    return BoundedThreshold(value, bound, shift)


def threshold_at_rate(scores: Scores, rate: float) -> float:
    """Return the value that a new score of the same kind exceeds with a probability.

    A new score exceeds the k-th largest of n with probability k / (n + 1), however scores are
    distributed; between two of them the value is interpolated. Beyond the largest the upper half is
    taken for an exponential tail: its k - 1 excesses over its smallest have a sum S, and a new
    score exceeds that by more than x with probability k / (n + 1) (1 + x / S) ** -(k - 1) (the
    predictive distribution, since the rate is estimated). Tails that are lighter, as scores' are,
    give a threshold that rejects less.

    Args:
        scores: ``[n]``, finite, ascending, at least one.
        rate: between 0 and 1.
    """
    n = len(scores)
    place = rate * (n + 1)  # from above: 1 is the largest
    if place >= 1:
        whole = min(math.floor(place), n)
        upper, lower = scores[n - whole], scores[max(n - whole - 1, 0)]
        return float(upper + (place - whole) * (lower - upper))
    k = (n + 1) // 2
    if k < 2:
        return float(scores[-1])  # one or two scores have no tail
    start = scores[n - k]
    total = float((scores[n - k :] - start).sum())
    beyond: float = total * ((k / place) ** (1 / (k - 1)) - 1)
    return max(float(start) + beyond, float(scores[-1]))


def outliers(scores: Scores) -> int:
    """Count the largest scores that the others do not explain.

    The generalised extreme Studentised deviate test for large values (Rosner, "Percentage points
    for a generalized ESD many-outlier procedure", Technometrics 25, 1983), at
    :data:`OUTLIER_LEVEL`: it finds several at once, of which none hides another.

    Args:
        scores: ``[n]``, finite, ascending.

    Returns:
        How many from above; at most :data:`MOST_SET_ASIDE` of them.
    """
    found = 0
    for aside in range(int(MOST_SET_ASIDE * len(scores))):
        rest = scores[: len(scores) - aside]
        n, spread = len(rest), float(rest.std(ddof=1))
        if spread <= 0:
            break
        t = _student_t(1 - OUTLIER_LEVEL / n, n - 2)
        limit = (n - 1) * t / math.sqrt((n - 2 + t * t) * n)
        if (rest[-1] - rest.mean()) / spread > limit:
            found = aside + 1
    return found


def _student_t(probability: float, freedom: int) -> float:
    """Return a quantile of Student's t by its expansion at the normal one (Fisher and Cornish).

    A device has no SciPy. Within 3 % of the exact one from 8 degrees of freedom on.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))
