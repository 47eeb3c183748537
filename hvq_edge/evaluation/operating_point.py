"""What a threshold does to test images: who is rejected, and where that lies on the ROC curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvq_edge.evaluation.image_result import ImageResult


@dataclass(frozen=True)
class Decisions:
    """Images of one category, sorted into rejected and passed."""

    rejected: frozenset[ImageResult]
    good: int
    defective: int
    false_rejects: int
    """Good images among the rejected."""
    missed: int
    """Defective images not among them."""

    @property
    def false_reject_rate(self) -> float | None:
        """Share of the good images that are rejected; ``None`` without good images."""
        return self.false_rejects / self.good if self.good else None

    @property
    def detection_rate(self) -> float | None:
        """Share of the defective images that are rejected; ``None`` without any."""
        return 1.0 - self.missed / self.defective if self.defective else None

    def wrong(self, result: ImageResult) -> bool:
        """Whether an image is a false reject or a missed defect."""
        return (result in self.rejected) == result.image.good


def decisions_at(
    results: Sequence[ImageResult], thresholds: Mapping[str, float]
) -> Decisions | None:
    """Decide as on the line: rejected where the score is above its category's threshold.

    Args:
        results: images of one category.
        thresholds: by category; an image is held against that of the category it was judged as.

    Returns:
        The decisions, or ``None`` where a threshold is missing.
    """
    if not all(result.chosen in thresholds for result in results):
        return None
    return _sorted_out(
        results, {result for result in results if result.score > thresholds[result.chosen]}
    )


def decisions_from(results: Sequence[ImageResult], lowest: float) -> Decisions:
    """Decide as F1-max does: rejected where the score is ``lowest`` or more.

    Args:
        results: images of one category.
        lowest: score, one for all of them.
    """
    return _sorted_out(results, {result for result in results if result.score >= lowest})


def _sorted_out(results: Sequence[ImageResult], rejected: set[ImageResult]) -> Decisions:
    good = [result for result in results if result.image.good]
    defective = [result for result in results if not result.image.good]
    return Decisions(
        rejected=frozenset(rejected),
        good=len(good),
        defective=len(defective),
        false_rejects=sum(result in rejected for result in good),
        missed=sum(result not in rejected for result in defective),
    )


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold that the report draws for a category, and what it does."""

    threshold: float
    in_use: bool
    """Whether it is the one in use; else it is that of F1-max on these very images."""
    decisions: Decisions | None
    """``None`` where an image was judged as a category without a threshold."""


def operating_point(
    category: str,
    results: Sequence[ImageResult],
    thresholds: Mapping[str, float],
    best_f1_threshold: float | None,
) -> OperatingPoint | None:
    """Choose the threshold to draw: the one in use, else that of F1-max, else none.

    Args:
        category: its name.
        results: its images.
        thresholds: those in use, by category; may be empty.
        best_f1_threshold: score at and above which F1-max calls an image defective.
    """
    if category in thresholds:
        return OperatingPoint(thresholds[category], True, decisions_at(results, thresholds))
    if best_f1_threshold is None:
        return None
    return OperatingPoint(best_f1_threshold, False, decisions_from(results, best_f1_threshold))
