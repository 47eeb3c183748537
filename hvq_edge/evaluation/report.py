"""``report.html``: one self-contained page about an evaluation, to read, print or send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hvq_edge.common.atomic import write_text
from hvq_edge.common.heat_map import HeatScale
from hvq_edge.common.svg import Place
from hvq_edge.design.language import current
from hvq_edge.design.pages import page_environment
from hvq_edge.evaluation import charts
from hvq_edge.evaluation.charts import (
    Histogram,
    TradeOff,
    roc_mark,
    roc_points,
    score_histogram,
    trade_off,
)
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.results import CategoryMetrics, Evaluation
from hvq_edge.evaluation.operating_point import OperatingPoint, operating_point
from hvq_edge.evaluation.table import COLUMNS, columns_of, percent, way_in_words
from hvq_edge.evaluation.thumbnails import (
    Thumbnail,
    examples_of,
    heat_scale,
    thumbnails,
)
from hvq_edge.evaluation.unseen import is_unseen

if TYPE_CHECKING:
    from jinja2 import Template

_THUMBNAIL_BYTES = 2_200_000


@dataclass(frozen=True)
class CategorySection:
    """What the page shows of one category."""

    metrics: CategoryMetrics
    histogram: Histogram
    roc: str | None
    mark: Place | None
    """The threshold's place on the ROC curve."""
    trade_off: TradeOff | None
    line: OperatingPoint | None
    """The threshold that is drawn."""
    examples: dict[str, tuple[Thumbnail, ...]]


@dataclass(frozen=True)
class Confusion:
    """Images of one category that were judged as another."""

    category: str
    chosen: str
    images: int


def render_report(
    evaluations: Sequence[Evaluation], *, title: str, facts: Mapping[str, str], caution: str = ""
) -> str:
    """Render the page.

    Args:
        evaluations: of one engine on one dataset, at least one. All get a table; charts and
            images are of the last, which is how the model works on the line.
        title: heading of the page.
        facts: what was evaluated, by name, as text.
        caution: what makes all numbers doubtful, a sentence above them; empty: nothing.

    Returns:
        HTML that needs no other file and no network, below 3 MB for up to 50 categories.
    """
    template = page_template("report.html")
    shown = evaluations[-1]
    return template.render(
        title=title,
        facts=facts,
        caution=caution,
        evaluations=evaluations,
        shown=shown,
        all_columns=COLUMNS,
        columns_of=columns_of,
        sections=_sections(shown),
        confusions=_confusions(shown.images),
        chart=chart_sizes(),
        is_unseen=is_unseen,
    )


def page_template(name: str) -> Template:
    """Return a page of this room, with the filters that its pages share."""
    environment = page_environment("hvq_edge.evaluation")
    environment.filters["percent"] = lambda share: current().digits(percent(share))
    environment.filters["way"] = way_in_words
    return environment.get_template(name)


def write_report(
    path: Path,
    evaluations: Sequence[Evaluation],
    *,
    title: str,
    facts: Mapping[str, str],
    caution: str = "",
) -> None:
    """Write the page of :func:`render_report` atomically.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, render_report(evaluations, title=title, facts=facts, caution=caution))


def _sections(evaluation: Evaluation) -> list[CategorySection]:
    by_category = {
        metrics.category: [
            result
            for result in evaluation.images
            if result.image.category == metrics.category and result.finite
        ]
        for metrics in evaluation.categories
    }
    lines = {
        metrics.category: operating_point(
            metrics.category,
            by_category[metrics.category],
            evaluation.thresholds,
            metrics.image_f1_threshold,
        )
        for metrics in evaluation.categories
    }

    def scale(category: str, result: ImageResult) -> HeatScale:
        line = lines[category]
        threshold = None
        if line is not None and line.in_use:  # that of the category it was judged as
            threshold = evaluation.thresholds.get(result.chosen)
        elif line is not None:  # F1-max rejects what reaches its threshold
            threshold = float(np.nextafter(np.float32(line.threshold), np.float32(-np.inf)))
        return heat_scale(by_category[category], threshold)

    chosen = {name: examples_of(results) for name, results in by_category.items()}
    images = thumbnails(
        [
            (result, scale(name, result))
            for name, groups in chosen.items()
            for group in groups.values()
            for result in group
        ],
        _THUMBNAIL_BYTES,
    )
    return [
        _section(metrics, by_category[name], lines[name], chosen[name], images)
        for metrics in evaluation.categories
        if by_category[name := metrics.category]
    ]


def _section(
    metrics: CategoryMetrics,
    results: Sequence[ImageResult],
    line: OperatingPoint | None,
    chosen: Mapping[str, Sequence[ImageResult]],
    images: Mapping[ImageResult, Thumbnail],
) -> CategorySection:
    return CategorySection(
        metrics=metrics,
        histogram=score_histogram(results, line.threshold if line else None),
        roc=roc_points(results),
        mark=roc_mark(line.decisions if line else None),
        trade_off=trade_off(results, line.decisions if line else None),
        line=line,
        examples={
            heading: tuple(images[result] for result in group if result in images)
            for heading, group in chosen.items()
        },
    )


def _confusions(images: Sequence[ImageResult]) -> list[Confusion]:
    pairs = Counter((result.image.category, result.chosen) for result in images)
    return [
        Confusion(category, chosen, number)
        for (category, chosen), number in pairs.most_common()
        if category != chosen
    ]


def chart_sizes() -> dict[str, Any]:
    """Return the geometry that the charts' macros draw by."""
    right = charts.LEFT + charts.HISTOGRAM_WIDTH
    return {
        "left": charts.LEFT,
        "top": charts.TOP,
        "bottom": charts.TOP + charts.PLOT_HEIGHT,
        "height": charts.TOP + charts.PLOT_HEIGHT + charts.BELOW,
        "histogram_right": right,
        "histogram_width": right + charts.RIGHT,
        "roc_right": charts.LEFT + charts.ROC_WIDTH,
        "roc_width": charts.LEFT + charts.ROC_WIDTH + charts.RIGHT,
    }
