"""How far a runner's outputs are from the PyTorch model's, and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from hvq_edge.bundle import Precision

Outputs = Mapping[str, NDArray[Any]]


class Limits(BaseModel):
    """What a precision may differ by."""

    model_config = ConfigDict(frozen=True)

    map_error: float
    """Largest difference of a map's cell, relative to the largest absolute value of all maps.

    Over the pictures whose codes are all equal, where there are any: a token that lies between two
    prototypes may take either, which moves its map a little, and counts as a differing code."""
    map_correlation: float
    """Of all cells of the same pictures."""
    code_agreement: float
    """Share of equal codes, on the worst level."""
    decisions_changed: float
    """Share of the pictures."""


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


class Agreement(BaseModel):
    """One runner against PyTorch, over all pictures."""

    model_config = ConfigDict(frozen=True)

    precision: Precision
    runner: str
    pictures: int
    map_error: float
    map_correlation: float
    score_error_median: float
    score_error_max: float
    """Absolute, in units of the score."""
    code_agreement: tuple[float, ...]
    """Share of equal codes, level by level; the top level last."""
    category_agreement: float
    decisions_changed: tuple[str, ...]
    """Pictures whose verdict differs, each under its own precision's threshold."""
    limits: Limits
    faults: tuple[str, ...]
    """Which limits were broken, in words; empty: passed."""

    @property
    def passed(self) -> bool:
        """Whether every number is within its limit."""
        return not self.faults


def compare(
    reference: Sequence[Outputs],
    other: Sequence[Outputs],
    verdicts: Sequence[tuple[str, bool, bool]],
    precision: Precision,
    runner: str,
    limits: Limits | None = None,
) -> Agreement:
    """Compare outputs picture by picture.

    Args:
        reference: of the PyTorch model; ``score``, ``map``, ``codes``, ``category`` of a batch.
        other: of the other runner, in the same order.
        verdicts: for each picture its name, whether PyTorch rejects it, whether the other does.
        precision: of the other runner.
        runner: its name.
        limits: default: those of the precision.
    """
    limits = limits or LIMITS[precision]
    joined = [
        {key: np.concatenate([outputs[key] for outputs in side]) for key in reference[0]}
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
    score_error = np.abs(ours["score"].astype(np.float64) - theirs["score"])
    equal = (ours["codes"] == theirs["codes"]).mean((0, 2))
    category = float((ours["category"] == theirs["category"]).mean())
    changed = tuple(name for name, ours_, theirs_ in verdicts if ours_ != theirs_)

    faults = []
    if not finite:
        faults.append("map or score is not finite")
    if map_error > limits.map_error:
        faults.append(f"map error {map_error:.2g} > {limits.map_error:.2g}")
    if correlation < limits.map_correlation:
        faults.append(f"map correlation {correlation:.5f} < {limits.map_correlation}")
    if equal.min() < limits.code_agreement:
        faults.append(f"code agreement {equal.min():.3f} < {limits.code_agreement}")
    if len(changed) > limits.decisions_changed * len(verdicts):
        share = len(changed) / len(verdicts)
        faults.append(f"decisions changed {share:.1%} > {limits.decisions_changed:.1%}")
    return Agreement(
        precision=precision,
        runner=runner,
        pictures=len(ours["score"]),
        map_error=map_error,
        map_correlation=correlation,
        score_error_median=float(np.median(score_error)),
        score_error_max=float(score_error.max()),
        code_agreement=tuple(float(share) for share in equal),
        category_agreement=category,
        decisions_changed=changed,
        limits=limits,
        faults=tuple(faults),
    )
