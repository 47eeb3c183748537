"""What learning changes: thresholds learnt anew, verdicts that flip, images to doubt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hvq_edge.bundle.learnt import Compared, Seen, Side, count
from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.thresholds import threshold_records, thresholds_of
from hvq_edge.common.wording import counted
from hvq_edge.errors import GateFailed, InputError
from hvq_edge.export.learn.judged import JudgedImage, Outcome
from hvq_edge.export.learn.known_good import former_parts
from hvq_edge.verdict.calibrate.expected_rate import expected_rate
from hvq_edge.verdict.defaults import FALSE_REJECT
from hvq_edge.verdict.judgement import rule
from hvq_edge.verdict.threshold import GoodPart, Threshold, learn_threshold

KEPT = "kept, since images called good set a lower one"
"""How the rule of a threshold begins that learning did not lower."""
LEAST_KNOWN = 3
"""Defective images of a category from which on new good ones are held against them."""
LIKE_DEFECTS = 0.25
"""A good image that scores above this share of the known defects scores like them."""

Regression = Sequence[tuple[JudgedImage, Seen]]
Outcomes = Mapping[Precision, Sequence[Outcome]]
"""In the order of a regression set."""
Crossed = Mapping[Precision, Mapping[tuple[str, str], Outcome]]
"""Of images that were learnt, by category and hash: as judged while only the others were."""


def new_thresholds(
    before: Bundle,
    regression: Regression,
    after: Outcomes,
    crossed: Crossed,
    learnt: Sequence[str],
    machines: Mapping[Precision, str],
    false_reject: float | None,
) -> tuple[dict[Precision, dict[str, Threshold]], list[str]]:
    """Learn the thresholds of categories that learnt, anew and by the default rule.

    The good images are the held-out ones, or where none is at hand the scores that they had; and
    the new ones, each judged while only the others were learnt.

    Args:
        before: the bundle that learnt.
        regression: what was judged.
        after: by the new bundle.
        crossed: new images, judged without themselves.
        learnt: categories.
        machines: what judged, in words, by precision.
        false_reject: rate to aim at; ``None``: each as its former one.

    Returns:
        Thresholds, and notes: a sentence each without its full stop.
    """
    found: dict[Precision, dict[str, Threshold]] = {}
    notes: list[str] = []
    for precision in after:
        former = threshold_records(before.manifest, precision)
        found[precision] = {}
        for name in learnt:
            had = former.get(name)
            parts = _held_out(regression, after[precision], name)
            source = "held-out good images of the training data"
            again = any(one.category == name for one in before.manifest.learnt)
            if had is not None and (again or not parts):
                parts = former_parts(had.calibration_scores)
                source = "the scores that its good images had before"
                notes.append(
                    f"{name} at {precision}: of the good images known before, the scores count "
                    "that they had then"
                    + ("" if again else ": the images are not at hand (--data names them)")
                )
            limit = like_defects(
                [
                    outcome.score
                    for (image, _), outcome in zip(regression, after[precision], strict=True)
                    if not image.good and image.category == name == outcome.category
                ]
            )
            new = [
                GoodPart(one.score, image.name)
                for image, seen in regression
                if seen == "learnt" and image.category == name
                if (one := crossed[precision].get((name, image.sha256))) is not None
                and one.category == name
                and one.refused is None
                and one.score < limit
            ]
            if not parts and not new:
                notes.append(f"{name} at {precision}: no good score is known: no new threshold")
                continue
            bound = had.bound if had is not None else None
            asked = false_reject or (bound.asked if bound else None) or FALSE_REJECT
            learnt_now = learn_threshold(
                [*parts, *new],
                asked=asked,
                rule=expected_rate,
                source=f"{source}, and {counted(len(new), 'image')} called good since",
                machine=machines[precision],
            )
            found[precision][name] = not_below(learnt_now, had)
            scores = [part.score for part in (*parts, *new)]
            notes += of_rise(f"{name} at {precision}", learnt_now, had, scores, asked)
    return found, notes


def of_rise(
    where: str, new: Threshold, former: Threshold | None, scores: Sequence[float], asked: float
) -> list[str]:
    """Say that a threshold rises, and whether good images asked for it.

    Args:
        where: category and precision.
        new: threshold.
        former: ``None``: there was none.
        scores: of the good images that the new one rests on.
        asked: share of good parts that it may reject.
    """
    if former is None or new.value <= former.value:
        return []
    rise = f"{where}: the threshold rises from {former.value:.4g} to {new.value:.4g}"
    above = sum(score > former.value for score in scores)
    if above <= asked * len(scores):
        rise += (
            f", though {above} of {counted(len(scores), 'good image')} were above the former one, "
            "which rested on more scores than are known here"
        )
    return [f"{rise}; known defects say what that misses (--judged DIR gives more of them)"]


def not_below(new: Threshold, former: Threshold | None) -> Threshold:
    """Return a new threshold, or the former one with the new scores where that is higher.

    It rests on good images that are not at hand any more, those learnt from among them; more good
    images cannot show that fewer good parts should pass. The bound of the lower one holds all the
    more.
    """
    if former is None or new.value >= former.value:
        return new
    update = {
        "value": former.value,
        "highest_image": None,
        "next_highest": None,
        "rule": f"{KEPT}; before: {former.rule}; for {new.value:.6g}: {new.rule}",
    }
    return new.model_copy(update=update)


def like_defects(scores: Sequence[float]) -> float:
    """Return from which score on a good image scores like the known defects.

    Args:
        scores: of known defects.

    Returns:
        Infinity where there are fewer than :data:`LEAST_KNOWN`.
    """
    known = [score for score in scores if math.isfinite(score)]
    return float(np.quantile(known, LIKE_DEFECTS)) if len(known) >= LEAST_KNOWN else math.inf


def _held_out(regression: Regression, outcomes: Sequence[Outcome], name: str) -> list[GoodPart]:
    return [
        GoodPart(outcome.score, image.name)
        for (image, seen), outcome in zip(regression, outcomes, strict=True)
        if seen == "held out"
        and image.category == name == outcome.category
        and outcome.refused is None
    ]


def compared(
    before: Bundle,
    after: Bundle,
    regression: Regression,
    was: Outcomes,
    now: Outcomes,
    crossed: Crossed,
    learnt: Sequence[str],
) -> dict[Precision, tuple[Compared, ...]]:
    """Return every image of the regression set with both verdicts, by precision.

    Raises:
        GateFailed: an image of a category that learnt nothing got other numbers.
        InputError: one would be taken for a category that learnt.
    """
    rows: dict[Precision, tuple[Compared, ...]] = {}
    for precision in was:
        old, new = thresholds_of(before, precision), thresholds_of(after, precision)
        made = []
        for (image, seen), first, second in zip(
            regression, was[precision], now[precision], strict=True
        ):
            same = (first.category, first.score, first.margin) == (
                second.category,
                second.score,
                second.margin,
            )
            if second.category in learnt and first.category not in learnt:
                raise InputError(
                    f"{image.name}, which was judged as {first.category}, would be taken for "
                    f"{second.category} at {precision}: what was called good there is too like it.",
                    next_step="leave such images out, or put them into train/good and train again",
                )
            if not same and first.category not in learnt:
                raise GateFailed(
                    f"{image.name}, which is judged as {first.category}, scores another value at "
                    f"{precision}, although only {', '.join(learnt)} learnt.",
                    next_step="report this: learning must not touch other categories",
                )
            key = (image.category, image.sha256)
            then = crossed[precision].get(key, second) if seen == "learnt" else second
            made.append(
                Compared(
                    image=image.name,
                    category=image.category,
                    good=image.good,
                    defect=image.defect,
                    seen=seen,
                    before=_side(first, old),
                    after=_side(then, new),
                    identical=same,
                )
            )
        rows[precision] = tuple(made)
    return rows


def _side(outcome: Outcome, thresholds: Mapping[str, float]) -> Side:
    ruling = rule(outcome.refused, outcome.category, outcome.score, thresholds)
    return Side(
        score=outcome.score if math.isfinite(outcome.score) else None,
        threshold=thresholds.get(outcome.category),
        verdict=ruling.verdict,
        reason=ruling.reason,
    )


def doubts(
    rows: Mapping[Precision, tuple[Compared, ...]], learnt: Sequence[str]
) -> tuple[str, ...]:
    """Say which of the new good images look defective, and where defects are missed now.

    Returns:
        A sentence each without its full stop.
    """
    said: list[str] = []
    for name in learnt:
        for precision, found in rows.items():
            lost = [
                row
                for row in found
                if row.category == name
                and not row.good
                and row.before.verdict == "reject" != row.after.verdict
            ]
            if lost:
                counts = count(found, name, False)
                said.append(
                    f"{name} at {precision}: {counts.rejected_after} of "
                    f"{counted(counts.images, 'known defect')} are found, before "
                    f"{counts.rejected_before}; missed now: {_some([row.image for row in lost])}"
                )
        own = [row for row in rows["fp32"] if row.category == name]
        like = like_defects(
            [r.after.score for r in own if not r.good and r.after.score is not None]
        )
        for row in own:
            score = row.after.score
            if row.seen != "learnt" or score is None:
                continue
            if score >= like:
                said.append(
                    f"{row.image} ({name}) scores like the known defects: {score:.3g}, and "
                    f"{1 - LIKE_DEFECTS:.0%} of these score {like:.3g} or more. It "
                    "joined the prototypes and sets no threshold; if that part is not good, take "
                    "the image out and learn again"
                )
            elif row.after.verdict == "reject":
                said.append(
                    f"{row.image} ({name}) would still be rejected if only the others were learnt "
                    f"({score:.3g}): look whether that part is good"
                )
    return tuple(said)


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
