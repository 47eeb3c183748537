"""How far a runner's outputs are from the PyTorch model's, and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.precision import Precision
from hvq_edge.bundle.verification import Agreement, CategoryDecisions, ImageVerdicts, Limits
from hvq_edge.verdict.judgement import count_verdicts

Outputs = Mapping[str, NDArray[Any]]


FLOAT = Limits(map_error=1e-3, map_correlation=0.99999, code_agreement=0.999, decisions_changed=0.0)
# A code flips where two prototypes lie almost equally near; then the map changes a little
# everywhere. So for reduced precision the decisions are the gate, and the rest says it is sane.
REDUCED = Limits(map_error=1.0, map_correlation=0.97, code_agreement=0.8, decisions_changed=0.05)
LIMITS: dict[Precision, Limits] = {
    "fp32": FLOAT,
    "fp16": REDUCED,
    "int8": REDUCED,
    "int8-fp16": REDUCED,
}

CONFIDENCE = 0.95
"""A category fails where a true share at the limit would change fewer verdicts this often."""


def compare(
    reference: Sequence[Outputs],
    other: Sequence[Outputs],
    decisions: Sequence[ImageVerdicts],
    precision: Precision,
    runner: str,
    limits: Limits | None = None,
) -> Agreement:
    """Compare outputs image by image.

    Args:
        reference: of the PyTorch model; ``score``, ``map``, ``codes``, ``category`` of a batch.
        other: of the other runner, in the same order.
        decisions: on each image, in the same order.
        precision: of the other runner.
        runner: its name.
        limits: default: those of the precision.
    """
    limits = limits or LIMITS[precision]
    known = [key for key in reference[0] if key in other[0]]  # no margin where it is not asked
    joined = [
        {key: np.concatenate([outputs[key] for outputs in side]) for key in known}
        for side in (reference, other)
    ]
    ours, theirs = joined
    maps = ours["map"].astype(np.float64), theirs["map"].astype(np.float64)
    scale = max(float(np.abs(maps[0]).max()), 1e-12)
    finite = bool(np.isfinite(maps[1]).all() and np.isfinite(theirs["score"]).all())
    same = (ours["codes"] == theirs["codes"]).all((1, 2))
    compared = same if same.any() else np.ones_like(same)
    maps = maps[0][compared], maps[1][compared]
    map_error = float(np.abs(maps[0] - maps[1]).max()) / scale if finite else float("inf")
    correlation = float(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1]) if finite else 0.0
    # An infinite score or margin on both sides is equal; on one side it is a fault, not a warning.
    with np.errstate(invalid="ignore"):
        score_error = np.abs(ours["score"].astype(np.float64) - theirs["score"])
    equal = (ours["codes"] == theirs["codes"]).mean((0, 2))
    category = float((ours["category"] == theirs["category"]).mean())
    by_category = tuple(_by_category(decisions))
    changed = tuple(one.image for one in decisions if one.changed)

    faults = []
    if not finite:
        faults.append("map or score is not finite")
    if map_error > limits.map_error:
        faults.append(f"map error {map_error:.2g} > {limits.map_error:.2g}")
    if correlation < limits.map_correlation:
        faults.append(f"map correlation {correlation:.5f} < {limits.map_correlation}")
    if equal.min() < limits.code_agreement:
        faults.append(f"code agreement {equal.min():.3f} < {limits.code_agreement}")
    faults += _decision_faults(by_category, limits.decisions_changed)
    return Agreement(
        precision=precision,
        runner=runner,
        images=len(ours["score"]),
        map_error=map_error,
        map_correlation=correlation,
        score_error_median=float(np.median(score_error)),
        score_error_p95=float(np.quantile(score_error, 0.95)) if finite else float("inf"),
        score_error_max=float(score_error.max()),
        margin_error_max=_margin_error(ours, theirs),
        code_agreement=tuple(float(share) for share in equal),
        category_agreement=category,
        decisions_changed=changed,
        decisions=by_category,
        limits=limits,
        faults=tuple(faults),
    )


def _by_category(decisions: Sequence[ImageVerdicts]) -> Iterator[CategoryDecisions]:
    for name in dict.fromkeys(one.category for one in decisions):
        own = [one for one in decisions if one.category == name]
        yield CategoryDecisions(
            category=name,
            images=len(own),
            changed=tuple(one for one in own if one.changed),
            good_verdicts=count_verdicts(one.other.verdict for one in own if one.good),
            defective_verdicts=count_verdicts(one.other.verdict for one in own if not one.good),
        )


def _decision_faults(found: Sequence[CategoryDecisions], limit: float) -> list[str]:
    from scipy.stats import binom

    images = sum(one.images for one in found)
    changed = sum(len(one.changed) for one in found)
    faults = []
    if changed > limit * images:
        faults.append(f"decisions changed {changed / images:.1%} > {limit:.1%}")
    for one in found:
        # Of one category there are few: 3 of 48 are more than 5 %, and no evidence of it.
        allowed = max(binom.ppf(CONFIDENCE, one.images, limit), 1 if limit else 0)
        if len(one.changed) > allowed and len(found) > 1:
            share = len(one.changed) / one.images
            faults.append(f"decisions changed on {one.category} {share:.1%} > {limit:.1%}")
    return faults


def _margin_error(ours: Outputs, theirs: Outputs) -> float | None:
    if "margin" not in ours or "margin" not in theirs or not np.isfinite(ours["margin"]).all():
        return None
    return float(np.abs(ours["margin"].astype(np.float64) - theirs["margin"]).max())
