"""What was not tested, in words: the part of an acceptance that no metric shows."""

from __future__ import annotations

from collections import Counter

from hvq_edge.bundle.manifest import BundleManifest
from hvq_edge.common.wording import counted
from hvq_edge.evaluation.metrics.metrics_file import EvaluationRecord


def limits_of_use(manifest: BundleManifest, measured: EvaluationRecord | None) -> list[str]:
    """Return the limits of a bundle, a sentence or two each.

    Args:
        manifest: of the bundle.
        measured: on the test images; ``None``: nothing was.
    """
    names = ", ".join(manifest.categories)
    several = len(manifest.categories) > 1
    limits = [
        f"It knows {names} and nothing else. A part of another kind has no meaningful score: "
        "keep such parts away from the camera, or watch for decisions of the wrong category."
    ]
    if measured is not None:
        limits += [_kinds_tested(category, measured) for category in manifest.categories]
        limits += [
            f"{one.category}: {one.unseen_kind.images} of "
            f"{counted(one.good, 'good test image')} "
            f"{'is' if one.unseen_kind.images == 1 else 'are'} unlike every good image learnt "
            "from. Good parts of such a kind may be rejected."
            for one in measured.categories
            if one.unseen_kind is not None
        ]
    learnt = manifest.image_limits
    if learnt is not None:
        limits.append(
            "Light and focus: there is a decision only for images with a mean grey level from "
            f"{learnt.brightness_low:.0f} to {learnt.brightness_high:.0f} (of 255), a contrast of "
            f"{learnt.contrast_low:.1f} or more and a sharpness of {learnt.sharpness_low:.0f} or "
            "more, as in the training images. Within these limits a slow change of the light "
            "still moves scores."
        )
    else:
        limits.append(
            "Light and focus: no limits were learnt, so dark or blurred images are judged too."
        )
    limits += [
        "The thresholds hold for this camera, lens, light and position of the parts. After a "
        "change of any of them, run hvq-edge calibrate again and sign again.",
        f"An image is judged at {manifest.tiling} pixels. A defect "
        "that cannot be seen by eye in an image of that size must be taken as not tested.",
        "All numbers are of images that were given, not of the running line: speed, vibration, "
        "dirt on the lens and wear of tools were not part of the test.",
        "Rates hold for images taken like the test images; intervals are at 95 % confidence, "
        "so about one in twenty does not hold.",
    ]
    if several and manifest.category_mode == "auto":
        limits.append(
            "The model chooses the category itself; a part judged as the wrong category is held "
            "against the wrong threshold."
        )
    calibration = manifest.calibration
    if calibration is not None and not calibration.converged:
        limits.append("INT8 ranges: more calibration images would still have moved them.")
    return [*limits, *manifest.notes]


def _kinds_tested(category: str, measured: EvaluationRecord) -> str:
    defects = [row.defect for row in measured.images if row.category == category and not row.good]
    if not defects:
        return f"{category}: no defective part was tested at all."
    if None in defects:  # judged by an earlier version
        return f"{category}: tested with {len(defects)} defective parts of kinds not recorded."
    listed = ", ".join(f"{kind} ({number})" for kind, number in Counter(defects).most_common())
    return (
        f"{category}: tested with these kinds of defects: {listed}. Whether other kinds are found "
        "was not tested."
    )
