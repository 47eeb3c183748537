"""Whether the precisions' thresholds were learnt alike, so that their decisions can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvq_edge.bundle.manifest import BundleManifest, Precision, Threshold

if TYPE_CHECKING:
    from hvq_edge.bundle.verification import Verification


def unlike_thresholds(manifest: BundleManifest) -> dict[Precision, tuple[str, ...]]:
    """Name the categories whose threshold has another origin than that of float32.

    ``stream --calibrate`` sets those of the precision that runs, and no other: then decisions of
    two precisions differ although the graphs agree.

    Returns:
        By precision, those with at least one such category. A threshold that only one of the two
        has is one of another origin too.
    """
    reference = manifest.thresholds.get("fp32", {})
    found: dict[Precision, tuple[str, ...]] = {}
    for precision in manifest.models:
        own = manifest.thresholds.get(precision, {})
        unlike = tuple(
            name
            for name in manifest.categories
            if _origin(own.get(name)) != _origin(reference.get(name))
        )
        if unlike:
            found[precision] = unlike
    return found


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
    promise = threshold.promise
    if promise is None:
        return (threshold.rule,)
    day = promise.created.partition("T")[0]  # seconds differ from one precision to the next
    return (promise.method, promise.asked, promise.confidence, promise.source, day)
