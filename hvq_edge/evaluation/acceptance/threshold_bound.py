"""What a threshold promises, in the words of an acceptance, and what speaks against signing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hvq_edge.bundle.manifest import Precision, Threshold
from hvq_edge.verdict.tolerance import promised_rate
from hvq_edge.verdict.tolerance_bound import percent

LARGEST_RULE = "largest score among held-out good images"
"""Of bundles written before promises were recorded."""


@dataclass(frozen=True)
class ThresholdPromise:
    """A threshold and what it promises."""

    precision: Precision
    category: str
    threshold: Threshold
    promise: str
    """In words."""
    origin: tuple[str, ...]
    """Where it comes from, a line each."""
    least_p_value: float | None
    """The smallest that a decision can have; ``None``: there are none."""


def promise_of(precision: Precision, category: str, threshold: Threshold) -> ThresholdPromise:
    """Say what a threshold promises, and where it comes from."""
    return ThresholdPromise(
        precision=precision,
        category=category,
        threshold=threshold,
        promise=promise_in_words(threshold),
        origin=tuple(_origin(threshold)),
        least_p_value=None
        if threshold.good_scores is None
        else 1 / (threshold.good_scores.count + 1),
    )


def promise_in_words(threshold: Threshold) -> str:
    """Say what false-reject rate a threshold promises, and with how much confidence."""
    if threshold.promise is not None:
        return str(threshold.promise)
    if threshold.rule != LARGEST_RULE:
        return "nothing: no promise was recorded with this rule"
    n = threshold.images
    rate = percent(promised_rate(n, 1, 0.95))
    return f"largest of {n} good images: at most {rate} false rejects at 95 % confidence"


def _origin(threshold: Threshold) -> Iterator[str]:
    promise = threshold.promise
    if promise is None:
        # The promise says that rule in words already.
        yield "held-out good images" if threshold.rule == LARGEST_RULE else threshold.rule
    else:
        yield from (part for part in (promise.source, promise.machine, promise.created) if part)
    if threshold.highest_image:
        yield threshold.highest_image


def doubts_of(category: str, threshold: Threshold, command: str) -> Iterator[tuple[str, str]]:
    """Give what stands between a threshold and a signature, with its remedy.

    Args:
        category: of the threshold.
        threshold: the one in the bundle.
        command: that learns it again.
    """
    if threshold.set_by_one_image:
        yield (
            f"One image alone sets the threshold of {category}: {threshold.highest_image}.",
            "look at it; if the part is defective, take it out and calibrate again",
        )
    promise = threshold.promise
    if promise is None:
        if threshold.rule != LARGEST_RULE:
            yield f"The threshold of {category} promises no rate: {threshold.rule}.", command
        return
    if promise.asked is not None and not promise.kept:
        more = f" ({promise.needed} good images are needed)" if promise.needed else ""
        yield (
            f"{category}: {percent(promise.asked)} of false rejects was asked for, "
            f"{percent(promise.rate)} is promised{more}.",
            command,
        )
    for warning in promise.warnings:
        yield f"{category}: {warning}.", ""
