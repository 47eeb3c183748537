"""A threshold chosen on labelled test images, because a user asked for an operating point.

It is the best for these very images, defects included; what it does to others is not known. So it
carries no bound, and its rule says how it was chosen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from hvq_edge.bundle.judged_images import ImageRow, labelled_rows
from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.thresholds import put_thresholds, threshold_records
from hvq_edge.errors import InputError, SettingsError
from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.judgement import exceeds
from hvq_edge.verdict.threshold import CHOSEN, Threshold

_FORM = re.compile(r"(f1)|(recall|false-reject)=(\S+)")


class AskedPoint(NamedTuple):
    """An operating point to reach."""

    kind: Literal["f1", "recall", "false-reject"]
    rate: float = 0.0

    def __str__(self) -> str:
        """As it is given."""
        return self.kind if self.kind == "f1" else f"{self.kind}={self.rate:g}"


def read_point(given: str) -> AskedPoint:
    """Read ``f1``, ``recall=0.95`` or ``false-reject=0.02``.

    Raises:
        SettingsError: it is none of these, or the rate is not from 0 to 1.
    """
    found = _FORM.fullmatch(given)
    if found and found[1]:
        return AskedPoint("f1")
    try:
        rate = float(found[3]) if found else math.nan
    except ValueError:
        rate = math.nan
    if found is None or not 0 <= rate <= 1:
        raise SettingsError(
            f"the operating point {given!r} is none of f1, recall=R and false-reject=R with R from "
            "0 to 1.",
            next_step="give recall=0.95 for 95 % of the defects found",
        )
    return AskedPoint("recall" if found[2] == "recall" else "false-reject", rate)


def choose_thresholds(
    bundle: Bundle, point: AskedPoint, precisions: Sequence[Precision]
) -> tuple[Bundle, dict[Precision, dict[str, Threshold]]]:
    """Choose thresholds on the test images that ``hvq-edge eval`` judged, and write them.

    Args:
        bundle: was evaluated at these precisions.
        point: the operating point that each category shall have.
        precisions: of the bundle.

    Returns:
        The bundle as it is now, and its new thresholds.

    Raises:
        InputError: not evaluated, or no category has both good and defective test images.
        OutputError: ``bundle.json`` cannot be written.
    """
    chosen: dict[Precision, dict[str, Threshold]] = {}
    for precision in precisions:
        rows = labelled_rows(bundle, precision)
        former = threshold_records(bundle.manifest, precision)
        for name in bundle.manifest.categories:
            # A threshold meets what is judged as its category.
            met = [row for row in rows if row.judged_as == name and row.refused is None]
            found = _chosen(met, point, former.get(name))
            if found is not None:
                chosen.setdefault(precision, {})[name] = found
    if not chosen:
        raise InputError(
            "no category has both good and defective test images with a score.",
            next_step=f"run hvq-edge eval {bundle.path} --data DIR on images of both",
        )
    return put_thresholds(bundle, chosen, why=f"calibrate --operating-point {point}"), chosen


def threshold_at_point(
    good: Sequence[float], defective: Sequence[float], point: AskedPoint
) -> float:
    """Return the threshold of an operating point: scores above it are rejected.

    It lies half way between two scores. For ``recall`` it is the highest that finds so many
    defects, for ``false-reject`` the lowest that rejects no more good ones, for ``f1`` the highest
    with the largest F1 score.

    Args:
        good: scores of good images, at least one.
        defective: scores of defective images, at least one.
        point: what to reach.
    """
    scores = sorted({*good, *defective})
    places = [(low + high) / 2 for low, high in pairwise(scores)]
    # Below the lowest all are rejected; at the highest none is.
    places = [math.nextafter(scores[0], -math.inf), *places, scores[-1]]

    def above(own: Sequence[float], place: float) -> int:
        return sum(exceeds(score, place) for score in own)

    if point.kind == "false-reject":
        return next(p for p in places if above(good, p) <= point.rate * len(good) + 1e-9)
    if point.kind == "recall":
        return next(
            p for p in reversed(places) if above(defective, p) >= point.rate * len(defective) - 1e-9
        )

    def f1(place: float) -> float:
        found = above(defective, place)
        return 2 * found / (found + above(good, place) + len(defective))

    return max(reversed(places), key=f1)


def _chosen(
    rows: Sequence[ImageRow], point: AskedPoint, former: Threshold | None
) -> Threshold | None:
    good = [row.score for row in rows if row.good and row.score is not None]
    defective = [row.score for row in rows if not row.good and row.score is not None]
    if not good or not defective:
        return None
    value = threshold_at_point(good, defective, point)
    lost = sum(exceeds(score, value) for score in good)
    found = sum(exceeds(score, value) for score in defective)
    return Threshold(
        value=value,
        images=len(good),
        rule=f"{CHOSEN}: {point}; of these very images it rejects {found} of {len(defective)} "
        f"defective and {lost} of {len(good)} good ones, which says nothing of others",
        median=sorted(good)[len(good) // 2],
        bound=None,
        calibration_scores=former.calibration_scores if former else table_of(good),
    )
