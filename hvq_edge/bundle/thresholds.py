"""From the scores of good parts to a threshold, and into the bundle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np

from hvq_edge.bundle.manifest import Bundle, Precision, Threshold, open_bundle, write_manifest
from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.defaults import CONFIDENCE
from hvq_edge.verdict.tolerance_bound import Rule, Scores, order_statistic

Thresholds = Mapping[Precision, Mapping[str, Threshold]]
"""By precision and category."""

_ALIKE = 0.3
"""Correlation of neighbours from which on they are spoken of."""
_ENOUGH = 20
"""Scores from which on it is measured."""


class GoodPart(NamedTuple):
    """A good part's score."""

    score: float
    """Finite."""
    name: str
    """Of its image or frame."""


def learn_threshold(
    parts: Sequence[GoodPart],
    *,
    asked: float | None = None,
    confidence: float = CONFIDENCE,
    rule: Rule = order_statistic,
    source: str = "",
    machine: str = "",
) -> Threshold:
    """Learn the threshold of one category and precision.

    Args:
        parts: good parts in the order in which they were seen, at least one.
        asked: false-reject rate; ``None``: the best that can be promised.
        confidence: with which the rate is promised.
        rule: how.
        source: where the parts were seen, for the record.
        machine: what judged them, for the record.

    Raises:
        InputError: the rule cannot work with these scores.
    """
    scores: Scores = np.sort(np.array([part.score for part in parts], np.float64))
    bound = rule(scores, asked, confidence)
    alike = alikeness([part.score for part in parts])
    promise = bound.promise.model_copy(
        update={
            "source": source,
            "machine": machine,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "warnings": (*bound.promise.warnings, *([alike] if alike else [])),
        }
    )
    setting, below = None, None
    if promise.rank is not None:
        descending = sorted(parts, reverse=True)
        setting = descending[promise.rank - 1].name
        below = descending[promise.rank].score if promise.rank < len(parts) else None
    return Threshold(
        value=bound.value,
        images=len(parts),
        rule=str(promise),
        highest_image=setting,
        next_highest=below,
        median=float(np.median(scores)),
        promise=promise,
        good_scores=table_of(scores.tolist()),
    )


def alikeness(scores: Sequence[float]) -> str:
    """Say how alike scores of neighbours are; empty where they could be independent.

    Frames of a video that show the same part are not new evidence, and the promise counts each of
    them as such. With a correlation r of neighbours, n scores tell as much of their mean as
    n (1 - r) / (1 + r) independent ones (Bayley and Hammersley, "The effective number of
    independent observations in an autocorrelated time series", 1946).

    Args:
        scores: in the order in which they were seen.
    """
    values = np.asarray(scores, np.float64)
    if len(values) < _ENOUGH or not values.std():
        return ""
    centred = values - values.mean()
    r = float((centred[1:] * centred[:-1]).sum() / np.square(centred).sum())
    if r < max(_ALIKE, 3 / math.sqrt(len(values))):
        return ""
    worth = max(1, int(len(values) * (1 - r) / (1 + r)))
    return (
        f"neighbouring images score alike (correlation {r:.2f}), as frames of the same part do: "
        f"these {len(values)} may be worth only about {worth} independent ones"
    )


def put_thresholds(bundle: Bundle, learnt: Thresholds, images: Iterable[str] = ()) -> Bundle:
    """Write thresholds into ``bundle.json``, atomically; those of other categories stay.

    Args:
        bundle: the bundle; its manifest is read again first, so that nothing else is lost.
        learnt: at least one threshold.
        images: SHA-256 of the image files they were learnt from.

    Returns:
        The bundle as it is now.

    Raises:
        BundleError: it is gone.
        OutputError: it cannot be written.
    """
    manifest = open_bundle(bundle.path).manifest
    thresholds = {name: dict(former) for name, former in manifest.thresholds.items()}
    stays = any(
        category not in learnt.get(precision, {})
        for precision, former in thresholds.items()
        for category in former
    )
    for precision, found in learnt.items():
        merged = {**thresholds.get(precision, {}), **found}
        order = [name for name in manifest.categories if name in merged]
        thresholds[precision] = {name: merged[name] for name in order}
    former_images = manifest.threshold_images if stays else ()
    digests = tuple(dict.fromkeys((*former_images, *images)))
    update = {"thresholds": thresholds, "threshold_images": digests}
    changed = manifest.model_copy(update=update)
    write_manifest(bundle.path, changed)
    return Bundle(bundle.path, changed)
