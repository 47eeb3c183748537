"""``acceptance.html``: one page that a quality manager reads, prints and signs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hvq_edge.bundle.integrity.report_sources import ACCEPTANCE_NAME, META, report_sources
from hvq_edge.bundle.opened import bundle_folder
from hvq_edge.bundle.thresholds import thresholds_of
from hvq_edge.common.atomic import write_text
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.layouts.folders import DatasetImage
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.acceptance.acceptance import (
    Acceptance,
    OpenPoint,
    collect,
)
from hvq_edge.evaluation.acceptance.examples import Examples, examples
from hvq_edge.evaluation.acceptance.measured import Measured
from hvq_edge.evaluation.acceptance.model_card import refresh_card
from hvq_edge.evaluation.charts import Histogram, TradeOff, score_histogram, trade_off
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.intervals import RESAMPLES
from hvq_edge.evaluation.operating_point import decisions_at
from hvq_edge.evaluation.report import chart_sizes, page_template


@dataclass(frozen=True)
class Drawing:
    """The charts of a category with its threshold."""

    histogram: Histogram
    threshold: float | None
    trade_off: TradeOff | None
    in_use: bool = True
    """For the chart's macro: a threshold of an acceptance is always the one in use."""


def write_acceptance(
    target: Path, out: Path | None = None, on_progress: ProgressCallback = silent
) -> tuple[Acceptance, Path]:
    """Write the acceptance report of a bundle.

    Args:
        target: a bundle's folder, or the run's that has it.
        out: the page to write; ``None``: ``acceptance.html`` in the bundle.
        on_progress: called while example images are judged.

    Returns:
        What it says, and where it is.

    Raises:
        BundleError: no bundle there.
        OutputError: the page cannot be written.
    """
    if out is None:
        refresh_card(bundle_folder(target), create=True)
    found = collect(target)
    shown: Examples = {}
    if found.shown is not None and found.dataset is not None:
        try:
            shown = examples(found.bundle, found.shown, found.dataset, on_progress)
        except HvqEdgeError as error:
            found.open_points.append(
                OpenPoint(f"No example images: {error.cause}", error.next_step)
            )
    page = out or found.bundle.path / ACCEPTANCE_NAME
    write_text(page, render_acceptance(found, shown))
    return found, page


def render_acceptance(found: Acceptance, shown: Examples) -> str:
    """Render the page: HTML that needs no other file and no network."""
    drawings = {}
    if found.shown is not None:
        drawings = {
            one.category: _drawing(found, found.shown, one.category)
            for one in found.shown.categories
        }
    promises = {
        one.category: one
        for one in found.thresholds
        if found.shown is not None and one.precision == found.shown.precision
    }
    return page_template("acceptance/acceptance.html").render(
        found=found,
        sources_name=META,
        sources=report_sources(found.bundle),
        manifest=found.bundle.manifest,
        shown=found.shown,
        drawings=drawings,
        promises=promises,
        examples=shown,
        verification=found.verification,
        resamples=RESAMPLES,
        chart=chart_sizes(),
    )


def _drawing(found: Acceptance, measured: Measured, category: str) -> Drawing:
    thresholds = thresholds_of(found.bundle, measured.precision)
    value = thresholds.get(category)
    empty = np.zeros((0, 0), np.float32)
    results = [
        ImageResult(
            DatasetImage(Path(row.path), category, "test", "good" if row.good else "defective"),
            row.judged_as,
            math.nan if row.score is None else row.score,
            empty,
            refused=row.refused,
        )
        for row in measured.record.images
        if row.category == category
    ]
    decided = decisions_at(results, thresholds)
    ranked = [result for result in results if result.finite]
    return Drawing(score_histogram(ranked, value), value, trade_off(results, decided))
