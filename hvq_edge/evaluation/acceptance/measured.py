"""The results of an evaluation under a bundle's thresholds, with how sure they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import Bundle, Precision
from hvq_edge.evaluation.metrics.intervals import (
    Interval,
    Share,
    auroc_interval,
    mean_auroc_interval,
    share,
)
from hvq_edge.evaluation.metrics.metrics_file import EvaluationRecord, ImageRow, MetricsFile


@dataclass(frozen=True)
class CategoryNumbers:
    """One category's test images under the thresholds that the bundle has now."""

    category: str
    good: int
    defective: int
    auroc: Interval | None
    false_rejects: Share | None
    missed: Share | None
    """Both ``None`` without images of the kind, or without a threshold."""
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
    record = content.evaluations[-1]  # how the model works on the line
    precision = next(name for name in bundle.manifest.models if name == content.precision)
    thresholds = {
        name: one.value for name, one in bundle.manifest.thresholds.get(precision, {}).items()
    }
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
    judged = [row for row in rows if row.judged_as in thresholds]
    complete = len(judged) == len(rows)
    rejected = {id(row) for row in judged if row.score > thresholds[row.judged_as]}
    return CategoryNumbers(
        category=name,
        good=len(good),
        defective=len(defective),
        auroc=auroc_interval(_scores(good), _scores(defective)),
        false_rejects=share(sum(id(row) in rejected for row in good), len(good))
        if complete
        else None,
        missed=share(sum(id(row) not in rejected for row in defective), len(defective))
        if complete
        else None,
        without_threshold=len(rows) - len(judged),
    )


def _mean_auroc(categories: Iterable[Sequence[ImageRow]]) -> Interval | None:
    return mean_auroc_interval(
        [
            (_scores(row for row in rows if row.good), _scores(row for row in rows if not row.good))
            for rows in categories
        ]
    )


def _scores(rows: Iterable[ImageRow]) -> NDArray[np.float64]:
    return np.array([row.score for row in rows], dtype=np.float64)
