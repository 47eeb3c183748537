"""What an evaluation found: a record an image, metrics a category, and their means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import computed_field

from hvq_edge.common.records import Extensible
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.image_metrics import auroc, average_precision, best_f1, recall_at
from hvq_edge.evaluation.metrics.pixel_tally import PixelTally
from hvq_edge.evaluation.operating_point import decisions_at
from hvq_edge.evaluation.unseen import UnseenGood, unseen_good
from hvq_edge.verdict.judgement import VerdictCounts


@dataclass(frozen=True)
class Unreadable:
    """A file that was left out, and why."""

    path: Path
    cause: str


class Metrics(Extensible):
    """Metrics from 0 to 1; ``None`` where they are not defined (one class missing, no masks).

    Fields that came later have a default, so that older files of metrics can be read, and fields
    that this version does not know are passed over.
    """

    image_auroc: float | None
    image_ap: float | None
    image_f1: float | None
    """F1-max: at the best threshold on the test images themselves."""
    image_recall_at_5: float | None = None
    """Defective images found where at most 5 % of the good test images are rejected."""
    image_recall_at_1: float | None = None
    """The same at 1 %: with fewer than 100 good images, above all of them."""
    pixel_auroc: float | None
    pixel_ap: float | None
    pixel_f1: float | None = None
    """F1-max over all pixels: at the best threshold on the test images themselves."""
    pixel_aupro: float | None = None
    """Area under the per-region overlap up to a false positive rate of 0.3, divided by it."""
    category_accuracy: float | None
    """Share of images judged as their own category; ``None`` where the category was given."""


class CategoryMetrics(Metrics):
    """Metrics of one category's test images."""

    category: str
    good: int
    defective: int
    image_f1_threshold: float | None
    threshold: float | None = None
    """The threshold in use for this category; decisions follow that of the judged category."""
    good_verdicts: VerdictCounts | None = None
    """What the line would have said of the good images; ``None`` without any threshold."""
    defective_verdicts: VerdictCounts | None = None
    """The same of the defective images. Those without a decision are neither found nor missed."""
    not_finite: int = 0
    """Images without a finite score or map: the line gives no decision, and no metric ranks
    them."""
    regions: int | None = None
    """Defect regions that ``pixel_aupro`` averages over; ``None`` for a category without masks."""
    without_mask: int | None = None
    """Defective images left out of the pixel metrics: their mask is missing or unreadable."""
    unseen_good: UnseenGood | None = None
    """Good images of a kind that no training image shows; ``None`` where the category was
    given, or by a version that did not count them."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def false_rejects(self) -> int | None:
        """Good images that are rejected at the thresholds in use."""
        return None if self.good_verdicts is None else self.good_verdicts.rejected

    @computed_field  # type: ignore[prop-decorator]
    @property
    def missed(self) -> int | None:
        """Defective images that pass at the thresholds in use."""
        return None if self.defective_verdicts is None else self.defective_verdicts.passed

    @property
    def unseen_kind(self) -> UnseenGood | None:
        """:attr:`unseen_good` where they are a kind and not single odd images."""
        unseen = self.unseen_good
        return unseen if unseen is not None and unseen.is_kind(self.good) else None


@dataclass(frozen=True)
class Evaluation:
    """All results of one engine on one dataset."""

    data: Path
    """The dataset's root."""
    known_category: bool
    """Whether the category was given; else the model chose it."""
    images: tuple[ImageResult, ...]
    unreadable: tuple[Unreadable, ...]
    categories: tuple[CategoryMetrics, ...]
    mean: Metrics
    """Mean over the categories for which a metric is defined."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """The thresholds in use, by category."""


def category_metrics(
    category: str,
    results: Sequence[ImageResult],
    pixels: PixelTally | None,
    *,
    known_category: bool,
    thresholds: Mapping[str, float],
    without_mask: int = 0,
) -> CategoryMetrics:
    """Compute the metrics of one category.

    Args:
        category: its name.
        results: its test images.
        pixels: counts of its pixels; ``None`` where it has no masks.
        known_category: whether the category was given.
        thresholds: by category; may be empty.
        without_mask: defective images that ``pixels`` leaves out.

    Raises:
        MissingCapability: scikit-learn is not installed.
    """
    ranked = [result for result in results if result.finite]
    scores = np.array([result.score for result in ranked], dtype=np.float64)
    defective = np.array([not result.image.good for result in ranked], dtype=np.bool_)
    f1 = best_f1(scores, defective)
    right = [result.chosen == category for result in results]
    decisions = decisions_at(results, thresholds)
    return CategoryMetrics(
        category=category,
        good=sum(result.image.good for result in results),
        defective=sum(not result.image.good for result in results),
        image_auroc=auroc(scores, defective),
        image_ap=average_precision(scores, defective),
        image_f1=f1.f1 if f1 else None,
        image_recall_at_5=recall_at(scores, defective, 0.05),
        image_recall_at_1=recall_at(scores, defective, 0.01),
        image_f1_threshold=f1.threshold if f1 else None,
        pixel_auroc=pixels.auroc() if pixels else None,
        pixel_ap=pixels.average_precision() if pixels else None,
        pixel_f1=pixels.best_f1() if pixels else None,
        pixel_aupro=pixels.aupro() if pixels else None,
        category_accuracy=None if known_category else sum(right) / len(right),
        threshold=thresholds.get(category),
        good_verdicts=decisions.good if decisions else None,
        defective_verdicts=decisions.defective if decisions else None,
        not_finite=len(results) - len(ranked),
        regions=pixels.regions if pixels else None,
        without_mask=without_mask if pixels else None,
        unseen_good=unseen_good(ranked),
    )


def mean_metrics(categories: Iterable[Metrics]) -> Metrics:
    """Average each metric over the categories for which it is defined."""
    listed = list(categories)
    means: dict[str, float | None] = {}
    for name in Metrics.model_fields:
        values = [value for one in listed if (value := getattr(one, name)) is not None]
        means[name] = float(np.mean(values)) if values else None
    return Metrics(**means)
