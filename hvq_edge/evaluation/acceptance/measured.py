"""The results of an evaluation under a bundle's thresholds, with how sure they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.judged_images import ImageRow, on_the_line, verdict_of
from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.thresholds import thresholds_of
from hvq_edge.evaluation.metrics.intervals import auroc_interval, mean_auroc_interval
from hvq_edge.evaluation.metrics.metrics_file import EvaluationRecord, MetricsFile
from hvq_edge.verdict.judgement import count_verdicts
from hvq_edge.verdict.tolerance import Interval, Share, share


@dataclass(frozen=True)
class CategoryNumbers:
    """One category's test images under the thresholds that the bundle has now."""

    category: str
    good: int
    defective: int
    auroc: Interval | None
    false_rejects: Share | None
    """Good images that are rejected; ``None`` without good images."""
    missed: Share | None
    """Defective images that pass; ``None`` without defective images."""
    found: Share | None
    """Defective images that are rejected; ``None`` without defective images."""
    good_undecided: int = 0
    """Good images without a decision."""
    defective_undecided: int = 0
    """Defective images without a decision: neither found nor missed."""
    without_threshold: int = 0
    """Images judged as a category that has none."""


@dataclass(frozen=True)
class Measured:
    """The results of one ``hvq-edge eval``."""

    precision: Precision
    backend: str
    device: str
    created: str
    data: Path
    of_bundle: bool
    """Else of the PyTorch model it was exported from."""
    record: EvaluationRecord
    categories: tuple[CategoryNumbers, ...]
    all: CategoryNumbers
    """Over all images; its AUROC is the mean of the categories'."""

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.precision}, {self.backend}" + ("" if self.of_bundle else " (before export)")


def measured_of(bundle: Bundle, content: MetricsFile, of_bundle: bool) -> Measured:
    """Count what a ``metrics.json`` says under the thresholds that a bundle has now.

    Args:
        bundle: has the file's precision.
        content: with one evaluation at least.
        of_bundle: whether it is of the bundle, not of the run it was exported from.
    """
    record = on_the_line(content.evaluations, bundle)
    precision = next(name for name in bundle.manifest.models if name == content.precision)
    thresholds = thresholds_of(bundle, precision)
    names = list(dict.fromkeys(row.category for row in record.images))
    own = {name: [row for row in record.images if row.category == name] for name in names}
    return Measured(
        precision=precision,
        backend=content.backend,
        device=content.device,
        created=content.created,
        data=Path(content.data),
        of_bundle=of_bundle,
        record=record,
        categories=tuple(_numbers(name, rows, thresholds) for name, rows in own.items()),
        all=replace(_numbers("all", record.images, thresholds), auroc=_mean_auroc(own.values())),
    )


def _numbers(name: str, rows: Sequence[ImageRow], thresholds: dict[str, float]) -> CategoryNumbers:
    good = [row for row in rows if row.good]
    defective = [row for row in rows if not row.good]
    on_good = count_verdicts(verdict_of(row, thresholds) for row in good)
    on_defective = count_verdicts(verdict_of(row, thresholds) for row in defective)
    return CategoryNumbers(
        category=name,
        good=len(good),
        defective=len(defective),
        auroc=auroc_interval(_scores(good), _scores(defective)),
        false_rejects=share(on_good.rejected, len(good)),
        missed=share(on_defective.passed, len(defective)),
        found=share(on_defective.rejected, len(defective)),
        good_undecided=on_good.no_decision,
        defective_undecided=on_defective.no_decision,
        without_threshold=sum(row.judged_as not in thresholds for row in rows),
    )


def _mean_auroc(categories: Iterable[Sequence[ImageRow]]) -> Interval | None:
    return mean_auroc_interval(
        [
            (_scores(row for row in rows if row.good), _scores(row for row in rows if not row.good))
            for rows in categories
        ]
    )


def _scores(rows: Iterable[ImageRow]) -> NDArray[np.float64]:
    return np.array([row.score for row in rows if row.score is not None], dtype=np.float64)
