"""Detection metrics on arrays of scores, for images and for pixels alike.

Conventions are those of the MVTec AD and VisA literature: defective is the positive class, a
larger score is more anomalous, and every metric is threshold-free or taken at its best threshold.
Areas are scikit-learn's: ties count half, average precision is the step-wise sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.extras import require
from hvq_edge.errors import InputError

Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.bool_]
Weights = NDArray[np.integer[Any]] | None


@dataclass(frozen=True)
class BestF1:
    """The largest F1 score over all thresholds."""

    f1: float
    """Harmonic mean of precision and recall, 0 to 1."""
    threshold: float
    """The score at and above which an image is called defective there."""


@dataclass(frozen=True)
class RocCurve:
    """Receiver operating characteristic, from (0, 0) to (1, 1)."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]


def auroc(scores: Scores, defective: Labels, counts: Weights = None) -> float | None:
    """Area under the ROC curve: the chance that a defective one scores above a good one.

    Args:
        scores: floating point ``[n]``, finite.
        defective: bool ``[n]``.
        counts: integer ``[n]``, at least 0: how often each pair occurs; ``None``: once.

    Returns:
        0 to 1, or ``None`` where one of the two classes is missing.

    Raises:
        InputError: other shapes or dtypes, or a score that is not finite.
        MissingCapability: scikit-learn is not installed.

    Example:
        >>> auroc(np.array([0.1, 0.4, 0.9]), np.array([False, True, True]))
        1.0
    """
    if not _has_both(scores, defective, counts):
        return None
    return float(require("sklearn.metrics").roc_auc_score(defective, scores, sample_weight=counts))


def average_precision(scores: Scores, defective: Labels, counts: Weights = None) -> float | None:
    """Area under the precision-recall curve, summed step-wise.

    Args:
        scores: floating point ``[n]``, finite.
        defective: bool ``[n]``.
        counts: integer ``[n]``, at least 0: how often each pair occurs; ``None``: once.

    Returns:
        0 to 1, or ``None`` where one of the two classes is missing.

    Raises:
        InputError: other shapes or dtypes, or a score that is not finite.
        MissingCapability: scikit-learn is not installed.
    """
    if not _has_both(scores, defective, counts):
        return None
    return float(
        require("sklearn.metrics").average_precision_score(defective, scores, sample_weight=counts)
    )


def best_f1(scores: Scores, defective: Labels, counts: Weights = None) -> BestF1 | None:
    """The largest F1 score over all thresholds ("F1-max").

    It is chosen on the test images themselves: a ceiling to compare models by, not a threshold
    to inspect with.

    Args:
        scores: floating point ``[n]``, finite.
        defective: bool ``[n]``.
        counts: integer ``[n]``, at least 0: how often each pair occurs; ``None``: once.

    Returns:
        The best F1 with its threshold (the highest of equals), or ``None`` where one of the two
        classes is missing.

    Raises:
        InputError: other shapes or dtypes, or a score that is not finite.
        MissingCapability: scikit-learn is not installed.
    """
    if not _has_both(scores, defective, counts):
        return None
    precision, recall, thresholds = require("sklearn.metrics").precision_recall_curve(
        defective, scores, sample_weight=counts
    )
    # The last pair, precision 1 at recall 0, belongs to no threshold.
    total = np.maximum(precision[:-1] + recall[:-1], np.finfo(np.float64).tiny)
    f1 = 2 * precision[:-1] * recall[:-1] / total
    best = int(np.flatnonzero(f1 == f1.max())[-1])
    return BestF1(float(f1[best]), float(thresholds[best]))


def recall_at(scores: Scores, defective: Labels, rate: float) -> float | None:
    """The share of defective ones that is found where at most ``rate`` of the good are rejected.

    The threshold is the best one for these scores themselves: it compares rankings where a line
    works, and is no threshold to inspect with.

    Args:
        scores: floating point ``[n]``, finite.
        defective: bool ``[n]``.
        rate: 0 to 1.

    Returns:
        0 to 1, or ``None`` where one of the two classes is missing.

    Raises:
        InputError: other shapes or dtypes, or a score that is not finite.
        MissingCapability: scikit-learn is not installed.

    Example:
        >>> recall_at(np.array([0.1, 0.4, 0.3, 0.9]), np.array([False, False, True, True]), 0.05)
        0.5
    """
    if not _has_both(scores, defective, None):
        return None
    false_positive, true_positive, _ = require("sklearn.metrics").roc_curve(
        defective, scores, drop_intermediate=False
    )
    return float(true_positive[false_positive <= rate].max())


def roc_curve(scores: Scores, defective: Labels) -> RocCurve | None:
    """The ROC curve, without points that lie on a line between their neighbours.

    Args:
        scores: floating point ``[n]``, finite.
        defective: bool ``[n]``.

    Returns:
        The curve, or ``None`` where one of the two classes is missing.

    Raises:
        InputError: other shapes or dtypes, or a score that is not finite.
        MissingCapability: scikit-learn is not installed.
    """
    if not _has_both(scores, defective, None):
        return None
    false_positive, true_positive, _ = require("sklearn.metrics").roc_curve(defective, scores)
    return RocCurve(false_positive, true_positive)


def _has_both(scores: Scores, defective: Labels, counts: Weights) -> bool:
    """Check the arguments; tell whether both classes occur."""
    if (
        scores.ndim != 1
        or not np.issubdtype(scores.dtype, np.floating)
        or defective.dtype != np.bool_
        or defective.shape != scores.shape
        or (counts is not None and counts.shape != scores.shape)
    ):
        raise InputError(
            f"scores are {scores.dtype} {list(scores.shape)} and labels {defective.dtype} "
            f"{list(defective.shape)}; expected floating point [n] and bool [n]."
        )
    if counts is not None and (not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any()):
        raise InputError("counts must be integers of at least 0.")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise InputError(
            f"{wrong.size} of {scores.size} scores are not finite (the first is number "
            f"{wrong[0]}: {scores[wrong[0]]}).",
            next_step="check the model with hvq-edge verify",
        )
    counted = defective if counts is None else defective[counts > 0]
    return bool(counted.any()) and not bool(counted.all())
