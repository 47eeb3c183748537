"""A threshold that an operator found, kept in the bundle."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from pathlib import Path

from hvq_edge.bundle.manifest import Threshold, open_bundle, write_manifest
from hvq_edge.errors import BundleError, SettingsError

BY_HAND = "set by hand on the live page"
_LEARNT = "; learnt: "


def save_threshold(folder: Path, precision: str, category: str, value: float) -> Threshold:
    """Write a threshold into ``bundle.json``, which keeps when, and what it was before.

    The whole manifest is read anew and replaced atomically, so that a kill leaves the former one.

    Args:
        folder: of the bundle.
        precision: whose scores it is for: those of ``int8`` and ``fp32`` differ.
        category: which must have a threshold already.
        value: scores above are rejected.

    Returns:
        The threshold written.

    Raises:
        BundleError: no bundle there, or it has no threshold of this precision and category.
        SettingsError: not a finite number.
        OutputError: it cannot be written.
    """
    if not math.isfinite(value):
        raise SettingsError(
            f"a threshold must be a finite number, not {value}.",
            next_step="give a number on the scale of the scores",
        )
    manifest = open_bundle(folder).manifest
    thresholds = {name: dict(limits) for name, limits in manifest.thresholds.items()}
    limits = next((found for name, found in thresholds.items() if name == precision), {})
    former = limits.get(category)
    if former is None:
        raise BundleError(
            f"the bundle {folder} has no {precision} threshold of {category!r} to replace.",
            next_step="run hvq-edge export again on a run trained with held-out good images",
        )
    saved = Threshold(
        value=value,
        images=former.images,
        rule=_rule(former),
        median=former.median,  # no image set this one, so none is named
        good_scores=former.good_scores,  # p-values do not depend on where the threshold lies
    )
    limits[category] = saved
    write_manifest(folder, manifest.model_copy(update={"thresholds": thresholds}))
    return saved


def _rule(former: Threshold) -> str:
    """Return the new rule: the last value, and the rule of the one that was learnt."""
    learnt = former.rule
    if learnt.startswith(BY_HAND):
        learnt = learnt.partition(_LEARNT)[2]
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return f"{BY_HAND} at {now}; before: {former.value:.9g}{_LEARNT}{learnt}"
