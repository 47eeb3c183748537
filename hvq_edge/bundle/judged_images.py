"""Labelled test images that ``hvq-edge eval`` has judged, as whoever runs a bundle reads them.

They show what a threshold costs. A device needs no more of ``metrics.json`` than these rows; the
whole file is read by :mod:`hvq_edge.evaluation.metrics.metrics_file`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.records import Extensible, Model, read_record
from hvq_edge.errors import HvqEdgeError, InputError
from hvq_edge.run.record import RECORD_NAME, read_run
from hvq_edge.verdict.judgement import Verdict, rule

METRICS_NAME = "metrics.json"
"""In a run's folder, or one beside a bundle's graphs."""


class ImageRow(Extensible):
    """One judged test image."""

    path: str
    """Relative to the data, with forward slashes."""
    category: str
    judged_as: str
    """The category given or chosen."""
    good: bool
    defect: str | None = None
    """The kind of defect, which is the name of its folder; ``None``: good, or by a version that did
    not record it."""
    score: float | None
    """``None`` where it is not finite."""
    refused: str | None = None
    """Why the line decides nothing on it whatever the threshold; ``None`` where it decides."""
    verdict: Verdict | None = None
    """Of the line at the thresholds in use; ``None`` where there are none, as of a run."""
    margin: float | None = None
    """1 at the centre of the category chosen, 0 as far off as an image of it may be; ``None``
    where the category was given."""


class _Evaluation(Extensible):
    category: Literal["known", "chosen"] | None = None
    images: tuple[ImageRow, ...]


class _JudgedImages(Extensible):
    format: Literal["hvq-edge-metrics/1"]
    created: str
    evaluations: tuple[_Evaluation, ...]


class Labelled(NamedTuple):
    """Labelled test images, or why there are none."""

    rows: tuple[ImageRow, ...]
    untested: str = ""
    """Empty where there are some."""

    def of(self, category: str) -> Labelled:
        """Return the images of a category; none of them unless one shows a defect."""
        own = tuple(row for row in self.rows if row.category == category)
        if self.untested or any(not row.good for row in own):
            return Labelled(own, self.untested)
        return Labelled(own, f"no test image shows a defect of {category}")


def find_labelled(bundle: Bundle, precision: str) -> Labelled:
    """Return the labelled test images of a bundle, or in words why there are none."""
    try:
        return Labelled(labelled_rows(bundle, precision))
    except HvqEdgeError as error:
        return Labelled((), f"{error.cause.removesuffix('.')}: {error.next_step}")


def labelled_rows(bundle: Bundle, precision: str) -> tuple[ImageRow, ...]:
    """Return the labelled test images that a bundle's graph, or its run's model, has judged.

    Raises:
        InputError: nothing was evaluated, or before the bundle was exported.
    """
    path = bundle.path / f"eval-{precision}" / METRICS_NAME
    run = bundle.path.resolve().parent
    of_run = precision == "fp32" and not path.is_file() and (run / RECORD_NAME).is_file()
    of_run = of_run and not bundle.manifest.changed_since_export
    if of_run and read_run(run).checkpoint_sha256 == bundle.manifest.checkpoint_sha256:
        path = run / METRICS_NAME
    remedy = f"hvq-edge eval {bundle.path} --precision {precision} --data DIR"
    if not path.is_file():
        raise InputError(
            f"no labelled test images were judged at {precision}.", next_step=f"run {remedy}"
        )
    content = read_metrics_as(_JudgedImages, path)
    if path.parent != run and content.created < bundle.manifest.created:
        raise InputError(
            f"{path} is older than the bundle: it is of other graphs.", next_step=f"run {remedy}"
        )
    images = on_the_line(content.evaluations, bundle).images
    return tuple(row for row in images if row.category in bundle.manifest.categories)


class _WithCategory(Protocol):
    @property
    def category(self) -> Literal["known", "chosen"] | None: ...


Judged = TypeVar("Judged", bound=_WithCategory)


def on_the_line(evaluations: Sequence[Judged], bundle: Bundle) -> Judged:
    """Return the evaluation that judges as a bundle does: is it told the category or not."""
    wanted = "chosen" if bundle.manifest.category_mode == "auto" else "known"
    found = [one for one in evaluations if one.category == wanted]
    return (found or list(evaluations))[-1]


def read_metrics_as(model: type[Model], path: Path) -> Model:
    """Read ``metrics.json``, or as much of it as a model asks for.

    Raises:
        InputError: it cannot be read, or is of another format.
    """
    return read_record(
        path,
        model,
        InputError,
        kind="a file of metrics",
        next_step="run hvq-edge eval --data DIR, which writes it",
        again="run hvq-edge eval again with this version",
    )


def verdict_of(row: ImageRow, thresholds: Mapping[str, float]) -> Verdict:
    """Return what the line says of a test image at thresholds, by category."""
    score = math.nan if row.score is None else row.score
    return rule(row.refused, row.judged_as, score, thresholds).verdict


def trade_off_corners(good: Iterable[float], defective: Iterable[float]) -> list[tuple[int, int]]:
    """Return the corners of the curve on which one threshold for all images rises.

    Args:
        good: finite scores of the good images that a threshold decides on.
        defective: the same of defective ones.

    Returns:
        How many good images are rejected and how many defective ones missed, from the threshold
        that rejects all to the one that rejects none, without points on the line between their
        neighbours.
    """
    goods, defects = (np.sort(np.array(list(one), np.float64)) for one in (good, defective))
    values = np.unique(np.concatenate([goods, defects]))
    rejected = len(goods) - np.searchsorted(goods, values, "right")
    missed = np.searchsorted(defects, values, "right")
    corners: list[tuple[int, int]] = []
    for across, up in zip([len(goods), *rejected.tolist()], [0, *missed.tolist()], strict=True):
        if corners and across != corners[-1][0] and up != corners[-1][1]:
            corners.append((corners[-1][0], up))  # a step: no threshold lies between
        if len(corners) > 1 and (
            corners[-2][0] == corners[-1][0] == across or corners[-2][1] == corners[-1][1] == up
        ):
            corners.pop()  # on the line between its neighbours
        corners.append((across, up))
    return corners
