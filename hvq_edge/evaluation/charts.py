"""Geometry of the report's two charts, in SVG user units; ``report.html`` draws them.

The page draws its own charts so that they follow its light, dark and print colours and stay sharp
at any size, at two kilobytes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hvq_edge.evaluation.metrics import RocCurve, roc_curve
from hvq_edge.evaluation.results import PictureResult

LEFT, TOP, PLOT_HEIGHT, BELOW = 36.0, 10.0, 150.0, 34.0
HISTOGRAM_WIDTH, ROC_WIDTH, RIGHT = 380.0, PLOT_HEIGHT, 12.0
_BINS = 32


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram that stands on the axis."""

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
    """How many good and defective pictures have which score."""

    good: tuple[Bar, ...]
    defective: tuple[Bar, ...]
    threshold: float | None
    """x of the threshold in use."""
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def score_histogram(results: Sequence[PictureResult], threshold: float | None) -> Histogram:
    """Lay out the histogram of a category's scores.

    Args:
        results: at least one picture.
        threshold: score above which pictures are rejected, if one is in use.
    """
    scores = np.array([result.score for result in results])
    good = np.array([result.picture.good for result in results])
    shown = scores if threshold is None else np.append(scores, threshold)
    low, high = float(shown.min()), float(shown.max())
    if high - low < 1e-9 * max(abs(low), 1.0):  # all scores are the same
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    counts = [np.histogram(scores[chosen], edges)[0] for chosen in (good, ~good)]
    top = int(max(count.max() for count in counts))
    bottom = TOP + PLOT_HEIGHT

    def x(score: float) -> float:
        return LEFT + HISTOGRAM_WIDTH * (score - low) / (high - low)

    def bars(count: Sequence[int]) -> tuple[Bar, ...]:
        placed = zip(pairwise(edges), count, strict=True)
        heights = ((pair, PLOT_HEIGHT * number / top) for pair, number in placed if number)
        return tuple(
            Bar(x(left), bottom - height, x(right) - x(left) - 0.6, height)
            for (left, right), height in heights
        )

    return Histogram(
        good=bars(counts[0].tolist()),
        defective=bars(counts[1].tolist()),
        threshold=None if threshold is None else x(threshold),
        x_ticks=tuple(Tick(x(value), f"{value:g}") for value in round_steps(low, high, 5)),
        y_ticks=tuple(
            Tick(bottom - PLOT_HEIGHT * value / top, f"{value:g}")
            for value in round_steps(0, top, 3)
            if float(value).is_integer()
        ),
    )


def roc_points(results: Sequence[PictureResult]) -> str | None:
    """Return a category's ROC curve as the ``points`` of an SVG polyline; ``None``: undefined."""
    curve: RocCurve | None = roc_curve(
        np.array([result.score for result in results], dtype=np.float64),
        np.array([not result.picture.good for result in results], dtype=np.bool_),
    )
    if curve is None:
        return None
    places = zip(curve.false_positive_rate, curve.true_positive_rate, strict=True)
    return " ".join(
        f"{LEFT + ROC_WIDTH * across:.1f},{TOP + PLOT_HEIGHT * (1 - up):.1f}"
        for across, up in places
    )


def round_steps(low: float, high: float, about: int) -> list[float]:
    """Return round numbers from ``low`` to ``high``, about so many: multiples of 1, 2 or 5."""
    rough = (high - low) / about
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]
