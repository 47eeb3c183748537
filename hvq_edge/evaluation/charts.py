"""Geometry of the report's two charts, in SVG user units; ``report.html`` draws them.

The page draws its own charts so that they follow its light, dark and print colours and stay sharp
at any size, at two kilobytes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hvq_edge.bundle.judged_images import trade_off_corners
from hvq_edge.common.svg import Place, linear, points, round_steps
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.image_metrics import RocCurve, roc_curve
from hvq_edge.evaluation.operating_point import Decisions

LEFT, TOP, PLOT_HEIGHT, BELOW = 36.0, 10.0, 150.0, 34.0
HISTOGRAM_WIDTH, ROC_WIDTH, RIGHT = 380.0, PLOT_HEIGHT, 12.0
_BINS = 32


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, on one side of the axis."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """How many good images (upwards) and defective ones (downwards) have which score."""

    good: tuple[Bar, ...]
    defective: tuple[Bar, ...]
    axis: float
    """y of the axis between them."""
    threshold: float | None
    """x of the threshold that is drawn."""
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def score_histogram(results: Sequence[ImageResult], threshold: float | None) -> Histogram:
    """Lay out the histogram of a category's scores.

    Good images stand on the axis and defective ones hang below it, on one scale, so that
    neither hides the other where they overlap.

    Args:
        results: at least one image.
        threshold: score at which to draw a line; the axis is made to reach it.
    """
    scores = np.array([result.score for result in results])
    good = np.array([result.image.good for result in results])
    shown = scores if threshold is None else np.append(scores, threshold)
    low, high = float(shown.min()), float(shown.max())
    if high - low < 1e-9 * max(abs(low), 1.0):  # all scores are the same
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    counts = [np.histogram(scores[chosen], edges)[0] for chosen in (good, ~good)]
    most_good, most_defective = (int(count.max()) for count in counts)
    unit = PLOT_HEIGHT / (most_good + most_defective)
    axis = TOP + unit * most_good

    x = linear(low, high, LEFT, LEFT + HISTOGRAM_WIDTH)

    def bars(count: Sequence[int], upwards: bool) -> tuple[Bar, ...]:
        placed = zip(pairwise(edges), count, strict=True)
        return tuple(
            Bar(
                x=x(left),
                y=axis - unit * number if upwards else axis,
                width=x(right) - x(left) - 0.6,
                height=unit * number,
            )
            for (left, right), number in placed
            if number
        )

    return Histogram(
        good=bars(counts[0].tolist(), True),
        defective=bars(counts[1].tolist(), False),
        axis=axis,
        threshold=None if threshold is None else x(threshold),
        x_ticks=tuple(Tick(x(value), f"{value:g}") for value in round_steps(low, high, 5)),
        y_ticks=tuple(
            Tick(axis - unit * number, f"{abs(number):g}")
            for number in round_steps(-most_defective, most_good, 6)
            if number.is_integer()
        ),
    )


def roc_points(results: Sequence[ImageResult]) -> str | None:
    """Return a category's ROC curve as the ``points`` of an SVG polyline; ``None``: undefined."""
    curve: RocCurve | None = roc_curve(
        np.array([result.score for result in results], dtype=np.float64),
        np.array([not result.image.good for result in results], dtype=np.bool_),
    )
    if curve is None:
        return None
    rates = zip(curve.false_positive_rate, curve.true_positive_rate, strict=True)
    return points(_roc_place(across, up) for across, up in rates)


def roc_mark(decisions: Decisions | None) -> Place | None:
    """Return where a threshold's decisions lie in the ROC chart; ``None``: undefined."""
    if decisions is None or decisions.false_reject_rate is None or decisions.detection_rate is None:
        return None
    return _roc_place(decisions.false_reject_rate, decisions.detection_rate)


@dataclass(frozen=True)
class TradeOff:
    """Missed defects against false rejects, at every threshold."""

    curve: str
    """``points`` of an SVG polyline."""
    mark: Place | None
    """The threshold that is drawn; ``None``: there is none."""
    said: str
    """What it costs, in words; empty without one."""


def trade_off(results: Sequence[ImageResult], decisions: Decisions | None) -> TradeOff | None:
    """Lay out what a category's threshold trades: good parts rejected for defects missed.

    One threshold for all the images rises along the curve. Images that lead to no decision are
    neither rejected nor missed at any.

    Args:
        results: images of one category.
        decisions: on these images, at the threshold that is drawn; ``None``: there is none.

    Returns:
        ``None`` without good or without defective images.
    """
    goods = sum(result.image.good for result in results)
    defects = len(results) - goods
    if not goods or not defects:
        return None
    decided = [one for one in results if one.finite and one.refused is None]
    corners = trade_off_corners(
        (one.score for one in decided if one.image.good),
        (one.score for one in decided if not one.image.good),
    )
    mark, said = None, ""
    if decisions is not None:
        lost, passed = decisions.good.rejected, decisions.defective.passed
        mark = _roc_place(lost / goods, passed / defects)
        said = f"{passed} of {defects} defects missed, {lost} of {goods} good rejected"
    curve = points(_roc_place(across / goods, up / defects) for across, up in corners)
    return TradeOff(curve, mark, said)


def _roc_place(false_positive_rate: float, true_positive_rate: float) -> Place:
    return LEFT + ROC_WIDTH * false_positive_rate, TOP + PLOT_HEIGHT * (1 - true_positive_rate)
