"""What a change of thresholds does: to the good parts known, and to labelled test images.

Labelled defects only show here what a threshold costs. Those that ``hvq-edge eval`` has judged are
held against the thresholds before and now; nothing is judged again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hvq_edge.bundle.judged_images import ImageRow, Labelled, find_labelled, verdict_of
from hvq_edge.bundle.manifest import BundleManifest, KnownDefects, Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.thresholds import Thresholds
from hvq_edge.verdict.threshold import Threshold
from hvq_edge.verdict.tolerance import Share, share


@dataclass(frozen=True)
class BeforeAndNow:
    """How many images the thresholds before reject, and those now; ``None``: no such images."""

    before: Share | None
    """``None`` too where there was no threshold."""
    now: Share | None


@dataclass(frozen=True)
class ThresholdChange:
    """The change of one threshold."""

    category: str
    precision: Precision
    old: float | None
    new: float | None
    """``None``: none any more."""
    set_by: str | None
    """The image that sets the new one; ``None``: not one alone."""
    good_shown: BeforeAndNow
    """Of the good images that it was learnt from; where a change is undone, of those that the
    threshold was learnt from that is gone."""
    good_tested: BeforeAndNow
    """Of the good test images of the category."""
    defects: BeforeAndNow
    """Of the defective test images of the category."""
    known_defects: BeforeAndNow
    """Of the known defects of the category, each judged by a metric that was not fitted to it, in
    float32."""
    untested: str
    """Why there are no labelled test images; empty where there are."""


def threshold_changes(
    bundle: Bundle,
    before: BundleManifest | None,
    changed: Mapping[Precision, Collection[str]] | None = None,
    *,
    undone: bool = False,
) -> list[ThresholdChange]:
    """Compare the thresholds of a bundle with those before.

    Args:
        bundle: as it is now.
        before: the manifest before; ``None``: there was none.
        changed: the categories to compare, by precision; ``None``: all that have thresholds.
        undone: a change was taken back: it is counted on the same images as when it was made.

    Returns:
        A change a category and precision.
    """
    former: Thresholds = before.thresholds if before is not None else {}
    now = bundle.manifest.thresholds
    found: list[ThresholdChange] = []
    for precision, names in (now if changed is None else changed).items():
        labelled = find_labelled(bundle, precision)
        own = former.get(precision, {}), now.get(precision, {})
        training = bundle.manifest.training
        known = {} if training is None else training.known_defects
        found += [
            _change(name, precision, own, labelled.of(name), known.get(name), undone)
            for name in names
        ]
    return found


def _change(
    name: str,
    precision: Precision,
    records: tuple[Mapping[str, Threshold], Mapping[str, Threshold]],
    labelled: Labelled,
    known: KnownDefects | None,
    undone: bool,
) -> ThresholdChange:
    old, new = (own.get(name) for own in records)
    good = [row for row in labelled.rows if row.good]
    defective = [row for row in labelled.rows if not row.good]
    shown = (old or new) if undone else (new or old)
    return ThresholdChange(
        category=name,
        precision=precision,
        old=None if old is None else old.value,
        new=None if new is None else new.value,
        set_by=None if new is None else new.highest_image,
        good_shown=BeforeAndNow(*(_exceeding(shown, one) for one in (old, new))),
        good_tested=BeforeAndNow(*(_rejected(good, own, name) for own in records)),
        defects=BeforeAndNow(*(_rejected(defective, own, name) for own in records)),
        known_defects=BeforeAndNow(*(known_defects_found(known, one) for one in (old, new))),
        untested=labelled.untested,
    )


def known_defects_found(known: KnownDefects | None, at: Threshold | None) -> Share | None:
    """Count the known defects above a threshold; ``None``: none of them has a score."""
    if known is None or at is None or not known.scores:
        return None
    return share(sum(score > at.value for score in known.scores), len(known.scores))


def _exceeding(known: Threshold | None, at: Threshold | None) -> Share | None:
    if known is None or at is None:
        return None
    scores = known.calibration_scores
    return share(scores.exceeding(at.value), scores.count)


def _rejected(
    rows: Sequence[ImageRow], records: Mapping[str, Threshold], name: str
) -> Share | None:
    if name not in records:
        return None
    values = {category: threshold.value for category, threshold in records.items()}
    return share(sum(verdict_of(row, values) == "reject" for row in rows), len(rows))
