"""``metrics.json``: the results of ``hvq-edge eval`` for machines.

``docs/reference/metrics.md`` describes the file. Within ``hvq-edge-metrics/1`` fields are only ever
added, each with a default, and a reader passes over fields that it does not know: so this version
reads the files of older and newer ones of the same format.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from hvq_edge.bundle.judged_images import ImageRow, read_metrics_as
from hvq_edge.common.atomic import write_text
from hvq_edge.common.records import Extensible
from hvq_edge.evaluation.metrics.results import CategoryMetrics, Evaluation, Metrics
from hvq_edge.evaluation.operating_point import decisions_at
from hvq_edge.runtime.engine import EngineInfo


class EvaluationRecord(Extensible):
    """Results with the category known, or chosen by the model."""

    category: Literal["known", "chosen"]
    mean: Metrics
    categories: tuple[CategoryMetrics, ...]
    images: tuple[ImageRow, ...]
    unreadable: dict[str, str]
    """Files left out, with the cause."""


class MetricsFile(Extensible):
    """The content of ``metrics.json``."""

    format: Literal["hvq-edge-metrics/1"] = "hvq-edge-metrics/1"
    hvq_edge_version: str
    created: str
    """ISO 8601, UTC."""
    target: str
    """Absolute path of the run or bundle."""
    data: str
    """Absolute path of the dataset."""
    backend: str
    precision: str
    device: str
    evaluations: tuple[EvaluationRecord, ...]


def metrics_file(target: Path, info: EngineInfo, evaluations: Sequence[Evaluation]) -> MetricsFile:
    """Gather evaluations of one engine on one dataset."""
    return MetricsFile(
        hvq_edge_version=version("hvq-edge"),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        target=str(target.resolve()),
        data=str(evaluations[0].data.resolve()),
        backend=info.backend,
        precision=info.precision,
        device=info.device,
        evaluations=tuple(_record(evaluation) for evaluation in evaluations),
    )


def write_metrics(path: Path, content: MetricsFile) -> None:
    """Write ``metrics.json`` atomically.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, content.model_dump_json(indent=2) + "\n")


def read_metrics(path: Path) -> MetricsFile:
    """Read ``metrics.json`` of this version, or of another with the same format.

    Raises:
        InputError: it cannot be read, or is of another format.
    """
    return read_metrics_as(MetricsFile, path)


def _record(evaluation: Evaluation) -> EvaluationRecord:
    def relative(path: Path) -> str:
        inside = path.is_relative_to(evaluation.data)
        return (path.relative_to(evaluation.data) if inside else path).as_posix()

    decided = decisions_at(evaluation.images, evaluation.thresholds)
    verdicts = decided.verdicts if decided else {}
    return EvaluationRecord(
        category="known" if evaluation.known_category else "chosen",
        mean=evaluation.mean,
        categories=evaluation.categories,
        images=tuple(
            ImageRow(
                path=relative(result.image.path),
                category=result.image.category,
                judged_as=result.chosen,
                good=result.image.good,
                defect=None if result.image.good else result.image.defect,
                score=result.score if result.finite else None,
                refused=result.refused,
                verdict=verdicts.get(result),
                margin=result.margin if math.isfinite(result.margin) else None,
            )
            for result in evaluation.images
        ),
        unreadable={relative(fault.path): fault.cause for fault in evaluation.unreadable},
    )
