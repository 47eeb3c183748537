"""What a threshold does to test images: which verdicts they get, and where on the ROC curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.verdict.judgement import Verdict, VerdictCounts, count_verdicts, rule


@dataclass(frozen=True)
class Decisions:
    """The verdicts on the images of one category."""

    verdicts: Mapping[ImageResult, Verdict]
    good: VerdictCounts
    """Verdicts on good images: the rejected are false rejects."""
    defective: VerdictCounts
    """Verdicts on defective images: the passed are missed."""

    @property
    def false_reject_rate(self) -> float | None:
        """Share of the good images that are rejected; ``None`` without good images."""
        return self.good.rejected / self.good.total if self.good.total else None

    @property
    def detection_rate(self) -> float | None:
        """Share of the defective images that are rejected; ``None`` without any."""
        return self.defective.rejected / self.defective.total if self.defective.total else None

    def wrong(self, result: ImageResult) -> bool:
        """Whether an image is a false reject or a missed defect."""
        return self.verdicts[result] == ("reject" if result.image.good else "pass")


def decisions_at(
    results: Sequence[ImageResult], thresholds: Mapping[str, float]
) -> Decisions | None:
    """Decide as on the line.

    Args:
        results: images of one category.
        thresholds: by category; an image is held against that of the category it was judged as.

    Returns:
        The decisions, or ``None`` where no threshold is known at all.
    """
    if not thresholds:
        return None
    return _decisions(
        {one: rule(one.refused, one.chosen, one.score, thresholds).verdict for one in results}
    )


def decisions_from(results: Sequence[ImageResult], lowest: float) -> Decisions:
    """Decide as F1-max does: rejected where the score is ``lowest`` or more.

    Args:
        results: images of one category.
        lowest: score, one for all of them.
    """
    return _decisions({one: "reject" if one.score >= lowest else "pass" for one in results})


def _decisions(verdicts: Mapping[ImageResult, Verdict]) -> Decisions:
    return Decisions(
        verdicts=verdicts,
        good=count_verdicts(verdict for one, verdict in verdicts.items() if one.image.good),
        defective=count_verdicts(
            verdict for one, verdict in verdicts.items() if not one.image.good
        ),
    )


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold that the report draws for a category, and what it does."""

    threshold: float
    in_use: bool
    """Whether it is the one in use; else it is that of F1-max on these very images."""
    decisions: Decisions | None
    """``None`` where no threshold is known."""


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
