"""Outputs of two engines, and how they agree."""

from __future__ import annotations

import numpy as np

from hvq_edge.bundle.verification import ImageVerdicts, SideVerdict
from hvq_edge.export.verify.agreement import compare


def outputs(seed: int, **changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "score": rng.normal(size=1),
        "map": rng.normal(size=(1, 4, 4)),
        "codes": rng.integers(0, 9, (1, 2, 16)),
        "category": np.zeros(1, np.int32),
        **changes,
    }


def decision(name: str, ours: bool, theirs: bool, category: str = "nut") -> ImageVerdicts:
    sides = [
        SideVerdict(
            category=category,
            score=float(rejected),
            threshold=0.5,
            verdict="reject" if rejected else "pass",
            reason="",
        )
        for rejected in (ours, theirs)
    ]
    return ImageVerdicts(
        image=name, category=category, good=True, reference=sides[0], other=sides[1]
    )


def compare_one(other: dict, verdicts=(("a", False, False),), precision="fp32", **options):
    decisions = [decision(*verdict) for verdict in verdicts]
    return compare([outputs(0)], [other], decisions, precision, "test", **options)
