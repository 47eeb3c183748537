"""Labelled test images as ``hvq-edge eval`` leaves them in a bundle, without judging any."""

from __future__ import annotations

from collections.abc import Sequence

from hvq_edge.bundle.judged_images import ImageRow
from hvq_edge.bundle.opened import Bundle
from hvq_edge.evaluation.metrics.metrics_file import EvaluationRecord, MetricsFile, write_metrics
from hvq_edge.evaluation.metrics.results import Metrics

GOOD = (0.1, 0.2, 0.3, 0.4)
DEFECTIVE = (0.35, 0.5, 0.6, 0.7, 0.8)


UNDEFINED = Metrics(
    image_auroc=None,
    image_ap=None,
    image_f1=None,
    pixel_auroc=None,
    pixel_ap=None,
    category_accuracy=None,
)
"""Metrics of which none is defined."""


def rows() -> tuple[ImageRow, ...]:
    """Images of ``bolt`` with these scores, and a defective one that leads to no decision."""
    common = {"category": "bolt", "judged_as": "bolt"}
    found = [
        ImageRow(path=f"{good}/{score}.png", good=good, score=score, **common)
        for good, scores in ((True, GOOD), (False, DEFECTIVE))
        for score in scores
    ]
    return (*found, ImageRow(path="dark.png", good=False, score=0.9, refused="black", **common))


def evaluated(
    bundle: Bundle,
    images: Sequence[ImageRow] | None = None,
    created: str = "9999-01-01T00:00:00+00:00",
) -> None:
    """Write them into a bundle as its evaluation at fp32."""
    images = rows() if images is None else tuple(images)
    record = EvaluationRecord(
        category="known", mean=UNDEFINED, categories=(), images=images, unreadable={}
    )
    content = MetricsFile(
        hvq_edge_version="0",
        created=created,
        target="",
        data="",
        backend="onnxruntime",
        precision="fp32",
        device="",
        evaluations=(record,),
    )
    (bundle.path / "eval-fp32").mkdir(exist_ok=True)
    write_metrics(bundle.path / "eval-fp32" / "metrics.json", content)
