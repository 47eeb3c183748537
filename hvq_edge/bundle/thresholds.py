"""The thresholds of a bundle: read here, written here, compared here.

Nobody else takes them out of the manifest by hand. What a threshold is stands in
:mod:`hvq_edge.verdict.threshold`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hvq_edge.bundle.manifest import (
    BundleManifest,
    FileRecord,
    FormerThresholds,
    Precision,
    write_manifest,
)
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.errors import BundleError, SettingsError
from hvq_edge.verdict.calibration_scores import CalibrationScores
from hvq_edge.verdict.threshold import Threshold

if TYPE_CHECKING:
    from hvq_edge.bundle.verification import Verification

logger = logging.getLogger(__name__)

Thresholds = Mapping[Precision, Mapping[str, Threshold]]
"""By precision and category."""

BY_HAND = "set by hand on the live page"
MOST_FORMER = 10
"""Changes of thresholds that can be undone."""
_LEARNT = "; learnt: "


def threshold_records(manifest: BundleManifest, precision: str) -> Mapping[str, Threshold]:
    """Return the thresholds of a precision by category; empty where the bundle has none."""
    return next((found for name, found in manifest.thresholds.items() if name == precision), {})


def thresholds_of(bundle: Bundle, precision: str) -> dict[str, float]:
    """Return what scores of a precision are held against, by category."""
    records = threshold_records(bundle.manifest, precision)
    return {category: threshold.value for category, threshold in records.items()}


def calibration_scores_of(bundle: Bundle, precision: str) -> dict[str, CalibrationScores]:
    """Return what good parts score in a precision, by category.

    A threshold that is changed while the inspector runs changes nothing of it.
    """
    records = threshold_records(bundle.manifest, precision)
    return {category: threshold.calibration_scores for category, threshold in records.items()}


def typical_scores_of(bundle: Bundle, precision: str) -> dict[str, float]:
    """Return what a typical good part scores in a precision, by category."""
    records = threshold_records(bundle.manifest, precision)
    return {category: threshold.median for category, threshold in records.items()}


def put_thresholds(
    bundle: Bundle, learnt: Thresholds, images: Iterable[str] = (), why: str = "calibrated again"
) -> Bundle:
    """Write thresholds into ``bundle.json``, atomically; those of other categories stay.

    What they replace stays in ``former_thresholds``.

    Args:
        bundle: as it judged; its manifest is read again first, so that nothing else is lost.
        learnt: at least one threshold.
        images: SHA-256 of the image files they were learnt from.
        why: what they come from, in words, for the record.

    Returns:
        The bundle as it is now.

    Raises:
        BundleError: it is gone, or another one lies there.
        OutputError: it cannot be written.
    """
    manifest = _reopened(bundle, learnt).manifest
    stays = any(
        category not in learnt.get(precision, {})
        for precision, former in manifest.thresholds.items()
        for category in former
    )
    former_images = manifest.threshold_images if stays else ()
    digests = tuple(dict.fromkeys((*former_images, *images)))
    return _write(bundle.path, _replaced(manifest, learnt, why), digests)


def save_threshold(bundle: Bundle, precision: str, category: str, value: float) -> Threshold:
    """Write a threshold into ``bundle.json``, which keeps when, and what it was before.

    The whole manifest is read anew and replaced atomically, so that a kill leaves the former one.

    Args:
        bundle: as it judges.
        precision: whose scores it is for: those of ``int8`` and ``fp32`` differ.
        category: which must have a threshold already.
        value: scores above are rejected.

    Returns:
        The threshold written.

    Raises:
        BundleError: no bundle there, or another one, or it has no threshold of this precision and
            category.
        SettingsError: not a finite number.
        OutputError: it cannot be written.
    """
    if not math.isfinite(value):
        raise SettingsError(
            f"a threshold must be a finite number, not {value}.",
            next_step="give a number on the scale of the scores",
        )
    bundle = _reopened(bundle, [precision])
    folder, manifest = bundle.path, bundle.manifest
    name = next((name for name in manifest.thresholds if name == precision), None)
    former = manifest.thresholds[name].get(category) if name else None
    if name is None or former is None:
        raise BundleError(
            f"the bundle {folder} has no {precision} threshold of {category!r} to replace.",
            next_step="run hvq-edge export again on a run trained with held-out good images",
        )
    saved = Threshold(
        value=value,
        images=former.images,
        rule=_rule_by_hand(former),
        median=former.median,  # no image set this one, so none is named
        bound=None,
        # p-values do not depend on where the threshold lies
        calibration_scores=former.calibration_scores,
    )
    changed = _replaced(manifest, {name: {category: saved}}, BY_HAND)
    _write(folder, changed, manifest.threshold_images)
    scores = saved.calibration_scores
    logger.info(
        "threshold of %s (%s) by hand: %.6g -> %.6g; of %d good parts known it rejects %d -> %d",
        *(category, precision, former.value, value),
        *(scores.count, scores.exceeding(former.value), scores.exceeding(value)),
    )
    return saved


def undo_thresholds(folder: Path) -> tuple[Bundle, FormerThresholds]:
    """Bring the thresholds back that the last change of thresholds replaced.

    Args:
        folder: of the bundle.

    Returns:
        The bundle as it is now, and what was brought back.

    Raises:
        BundleError: no bundle there, or nothing to undo.
        OutputError: it cannot be written.
    """
    bundle = open_bundle(folder)
    folder, manifest = bundle.path, bundle.manifest
    if not manifest.former_thresholds:
        raise BundleError(
            f"the bundle {folder} keeps no former thresholds: nothing to undo.",
            next_step="set thresholds with hvq-edge calibrate --good DIR, or run hvq-edge export "
            "again",
        )
    changed, last = before_last_change(manifest), manifest.former_thresholds[-1]
    return _write(folder, changed, last.images), last


def before_last_change(manifest: BundleManifest) -> BundleManifest:
    """Return a manifest with the thresholds before their last change; it must keep one."""
    *earlier, last = manifest.former_thresholds
    return _merged(manifest, last.thresholds, tuple(earlier))


def _reopened(judged: Bundle, precisions: Iterable[str]) -> Bundle:
    """Open a bundle again; scores of one graph say nothing of another's.

    Raises:
        BundleError: it is gone, or another one was installed or exported there meanwhile.
    """
    bundle = open_bundle(judged.path)
    for precision in precisions:
        if _graph_of(bundle.manifest, precision) != _graph_of(judged.manifest, precision):
            raise BundleError(
                f"{bundle.path} is not the bundle any more that was opened here: another one was "
                "put there meanwhile. No threshold was written.",
                next_step="start again, with the bundle that is there now",
            )
    return bundle


def _graph_of(manifest: BundleManifest, precision: str) -> FileRecord | None:
    names = (file for name, file in manifest.models.items() if name == precision)
    return manifest.files.get(next(names, ""))


def _replaced(manifest: BundleManifest, new: Thresholds, why: str) -> BundleManifest:
    """Return a manifest with new thresholds, which keeps those that they replace."""
    former = FormerThresholds(
        replaced=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        why=why,
        thresholds={
            precision: {name: manifest.thresholds.get(precision, {}).get(name) for name in found}
            for precision, found in new.items()
        },
        images=manifest.threshold_images,
    )
    return _merged(manifest, new, (*manifest.former_thresholds, former)[-MOST_FORMER:])


def _merged(
    manifest: BundleManifest,
    new: Mapping[Precision, Mapping[str, Threshold | None]],
    former: tuple[FormerThresholds, ...],
) -> BundleManifest:
    """Return a manifest with some thresholds changed, and ``None`` taken out."""
    thresholds = dict(manifest.thresholds)
    for precision, found in new.items():
        merged = {**thresholds.get(precision, {}), **found}
        kept = {name: one for name in manifest.categories if (one := merged.get(name)) is not None}
        thresholds[precision] = kept
    filled = {precision: found for precision, found in thresholds.items() if found}
    return manifest.model_copy(update={"thresholds": filled, "former_thresholds": former})


def _write(folder: Path, manifest: BundleManifest, images: tuple[str, ...]) -> Bundle:
    changed = manifest.model_copy(update={"threshold_images": images})
    write_manifest(folder, changed)
    return Bundle(folder, changed)


def _rule_by_hand(former: Threshold) -> str:
    """Return the new rule: the last value, and the rule of the one that was learnt."""
    learnt = former.rule
    if learnt.startswith(BY_HAND):
        learnt = learnt.partition(_LEARNT)[2]
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return f"{BY_HAND} at {now}; before: {former.value:.9g}{_LEARNT}{learnt}"


def unlike_thresholds(manifest: BundleManifest) -> dict[Precision, tuple[str, ...]]:
    """Name the categories whose threshold has another origin than that of float32.

    ``stream --calibrate`` sets those of the precision that runs, and no other: then decisions of
    two precisions differ although the graphs agree.

    Returns:
        By precision, those with at least one such category. A threshold that only one of the two
        has is one of another origin too.
    """
    reference = threshold_records(manifest, "fp32")
    found: dict[Precision, tuple[str, ...]] = {}
    for precision in manifest.models:
        own = threshold_records(manifest, precision)
        unlike = tuple(
            name
            for name in manifest.categories
            if _origin(own.get(name)) != _origin(reference.get(name))
        )
        if unlike:
            found[precision] = unlike
    return found


class Newer(NamedTuple):
    """The last change of a category's thresholds."""

    precisions: tuple[Precision, ...]
    """Whose thresholds it set."""
    why: str
    """What it was, in words."""


def last_changes(manifest: BundleManifest) -> dict[str, Newer]:
    """Return the last change of each category's thresholds since the export, where there was one.

    ``stream --calibrate`` and the live page set those of the precision that runs: another one
    would judge by the thresholds of before.
    """
    found: dict[str, Newer] = {}
    for change in reversed(manifest.former_thresholds):
        for category in manifest.categories:
            changed = tuple(one for one, names in change.thresholds.items() if category in names)
            if changed and category not in found:
                found[category] = Newer(changed, change.why)
    return found


def set_last(manifest: BundleManifest) -> tuple[Precision, ...]:
    """Return the precisions that have the last thresholds of every category.

    Returns:
        All precisions where none has.
    """
    changes = last_changes(manifest).values()
    names = (one for one in manifest.models if all(one in each.precisions for each in changes))
    return tuple(names) or tuple(manifest.models)


def changed_by_thresholds(
    verification: Verification, manifest: BundleManifest
) -> dict[Precision, tuple[str, ...]]:
    """Name what :func:`unlike_thresholds` finds where decisions of ``hvq-edge verify`` changed.

    There thresholds alone change decisions, and no layer need be at fault.

    Args:
        verification: of the manifest's bundle.
        manifest: as it is now.
    """
    changed = {
        row.precision
        for row in verification.comparisons
        if not row.passed and row.decisions_changed
    }
    unlike = unlike_thresholds(manifest)
    return {precision: names for precision, names in unlike.items() if precision in changed}


def _origin(threshold: Threshold | None) -> tuple[object, ...]:
    """Return what is equal where one calibration set several precisions."""
    if threshold is None:
        return ()
    bound = threshold.bound
    if bound is None:
        return (threshold.rule,)
    day = bound.created.partition("T")[0]  # seconds differ from one precision to the next
    return (bound.method, bound.asked, bound.confidence, bound.source, day)
