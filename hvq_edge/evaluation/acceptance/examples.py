"""The images of an acceptance report: what went wrong first, then what is clearest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hvq_edge.bundle.judged_images import ImageRow, verdict_of
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.thresholds import thresholds_of, typical_scores_of
from hvq_edge.common.heat_map import HeatScale
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import Dataset, DatasetImage
from hvq_edge.data.images import read_frame
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.acceptance.measured import Measured
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.thumbnails import Thumbnail, thumbnails
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.verdict.judgement import Verdict, judgements

Examples = Mapping[str, Mapping[str, Sequence[Thumbnail]]]
"""By category, then by heading."""

PER_GROUP = 3
_BYTES = 3_000_000
MISSED = "Missed defects: passed, although defective"
UNDECIDED = "Defects without a decision: neither rejected nor passed"
FALSE_REJECTS = "False rejects: rejected, although good"
BEST = "Clearest defects found"
CALMEST = "Clearest good parts"


def examples(
    bundle: Bundle,
    measured: Measured,
    dataset: Dataset,
    on_progress: ProgressCallback = silent,
) -> Examples:
    """Judge the example images anew, with their maps, on the bundle's own graph.

    Args:
        bundle: the bundle; the graph of ``measured.precision`` runs on ONNX Runtime or OpenVINO.
        measured: scores that the images are chosen by.
        dataset: where the images are.
        on_progress: called after each category.

    Raises:
        HvqEdgeError: the graph does not run here.
    """
    known = {image.path.relative_to(dataset.root).as_posix(): image for image in dataset.test()}
    thresholds = thresholds_of(bundle, measured.precision)
    typical = typical_scores_of(bundle, measured.precision)
    chosen = {
        one.category: choose_examples(
            [row for row in measured.record.images if row.category == one.category], thresholds
        )
        for one in measured.categories
    }
    judged: dict[str, ImageResult] = {}
    drawn = []
    backend = measured.backend if measured.backend in ("openvino", "onnxruntime") else "onnxruntime"
    with open_engine(bundle, precision=measured.precision, backend=backend) as engine:
        for done, (category, groups) in enumerate(chosen.items(), start=1):
            shown = [row for group in groups.values() for row in group]
            for row in shown:
                result = _judge(engine, known.get(row.path), row.refused)
                if result is not None:
                    judged[row.path] = result
                    scale = HeatScale(thresholds.get(result.chosen), typical.get(category))
                    drawn.append((result, scale))
            on_progress("examples", done, len(chosen))
    images = thumbnails(drawn, _BYTES)
    return {
        category: {
            heading: [
                images[judged[row.path]]
                for row in group
                if row.path in judged and judged[row.path] in images
            ]
            for heading, group in groups.items()
        }
        for category, groups in chosen.items()
    }


def choose_examples(
    rows: Sequence[ImageRow], thresholds: Mapping[str, float]
) -> dict[str, list[ImageRow]]:
    """Choose images of one category: each at most once, headings in the order of their weight."""
    ordered = sorted(rows, key=lambda row: math.inf if row.score is None else row.score)
    verdicts = {row.path: verdict_of(row, thresholds) for row in rows}

    def group(verdict: Verdict, *, good: bool, highest_first: bool) -> list[ImageRow]:
        found = [row for row in ordered if row.good == good and verdicts[row.path] == verdict]
        return (found[::-1] if highest_first else found)[:PER_GROUP]

    return {
        MISSED: group("pass", good=False, highest_first=False),
        UNDECIDED: group("no_decision", good=False, highest_first=True),
        FALSE_REJECTS: group("reject", good=True, highest_first=True),
        BEST: group("reject", good=False, highest_first=True),
        CALMEST: group("pass", good=True, highest_first=False),
    }


def _judge(engine: Engine, image: DatasetImage | None, refused: str | None) -> ImageResult | None:
    if image is None:
        return None
    info = engine.info
    given = None
    if info.category_mode == "input":
        given = np.array([info.categories.index(image.category)], np.int32)
    try:
        output = engine.run(read_frame(image.path, info.frame_shape)[None], given)
    except HvqEdgeError:  # an image that is gone is no reason for no report
        return None
    (judgement,) = judgements(output, info.categories)
    if not judgement.finite:
        return None  # there is no map to draw
    return ImageResult(image, judgement.category, judgement.score, judgement.map, refused=refused)
