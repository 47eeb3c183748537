"""Whether the precisions' thresholds were learnt alike, so that their decisions can be compared."""

from __future__ import annotations

from hvq_edge.bundle import BundleManifest, Precision, Threshold


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


def _origin(threshold: Threshold | None) -> tuple[object, ...]:
    """Return what is equal where one calibration set several precisions."""
    if threshold is None:
        return ()
    promise = threshold.promise
    if promise is None:
        return (threshold.rule,)
    day = promise.created.partition("T")[0]  # seconds differ from one precision to the next
    return (promise.method, promise.asked, promise.confidence, promise.source, day)
