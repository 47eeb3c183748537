"""The upper bound of a threshold in an acceptance's words, and what speaks against signing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hvq_edge.bundle.manifest import Precision
from hvq_edge.verdict.threshold import CHOSEN, Threshold
from hvq_edge.verdict.tolerance_bound import percent


@dataclass(frozen=True)
class ThresholdBound:
    """A threshold and its bound."""

    precision: Precision
    category: str
    threshold: Threshold
    promise: str
    """In words."""
    origin: tuple[str, ...]
    """Where it comes from, a line each."""
    least_p_value: float
    """The smallest that a decision can have."""


def threshold_bound(precision: Precision, category: str, threshold: Threshold) -> ThresholdBound:
    """Say what bounds its false rejects, and where it comes from."""
    bound = threshold.bound
    return ThresholdBound(
        precision=precision,
        category=category,
        threshold=threshold,
        promise=_without_bound(threshold) if bound is None else str(bound),
        origin=tuple(_origin(threshold)),
        least_p_value=1 / (threshold.calibration_scores.count + 1),
    )


def _without_bound(threshold: Threshold) -> str:
    chosen = threshold.rule.startswith(CHOSEN)
    return f"none: it was {'chosen on the test images' if chosen else 'set by hand'}"


def _origin(threshold: Threshold) -> Iterator[str]:
    bound = threshold.bound
    if bound is None:
        yield threshold.rule
    else:
        yield from (part for part in (bound.source, bound.machine, bound.created) if part)
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
    bound = threshold.bound
    if bound is None:
        yield (
            f"The threshold of {category} has no upper bound: {threshold.rule}.",
            command,
        )
        return
    if not bound.met:
        more = f" ({bound.needed} good images are needed)" if bound.needed else ""
        yield (
            f"{category}: {percent(bound.asked or 0)} of false rejects was asked for, "
            f"the upper bound is {percent(bound.rate)}{more}.",
            command,
        )
    for warning in bound.warnings:
        yield f"{category}: {warning}.", ""
