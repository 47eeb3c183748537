"""The one rule: from an engine's output to ``pass``, ``reject`` or ``no_decision``.

::

    engine output ──judgements──▶ Judgement ─┐
    image ──usable.ImageChecks──▶ fault ─────┴─refusal──▶ rule, with a threshold ──▶ Ruling

Everybody who says whether a part would be rejected asks here: the line, the commands that learn
thresholds, ``eval``, ``verify``, the acceptance report, a bundle's self test and the live page. So
a number in a report is what the line would have done.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hvq_edge.runtime.engine import EngineOutput

Verdict = Literal["pass", "reject", "no_decision"]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the engine said of one image."""

    category: str
    """The category that the image was judged as: given, or chosen by the graph."""
    score: float
    """Larger is more anomalous."""
    map: NDArray[np.float32]
    """``[side / 16, side / 16]``."""
    margin: float = math.inf
    """Below 0 the image shows no part that the model knows; infinite where the category was
    given."""
    codes: NDArray[np.int32] | None = None
    """``[levels, tokens]``; ``None`` where they are not known."""

    @property
    def finite(self) -> bool:
        """Whether the score and the whole map are numbers."""
        return math.isfinite(self.score) and bool(np.isfinite(self.map).all())


def judgements(
    output: EngineOutput | Mapping[str, NDArray[Any]], categories: Sequence[str]
) -> list[Judgement]:
    """Take an engine's output apart.

    Args:
        output: of a batch; without ``margin`` where the category was given.
        categories: the engine's, in the order of the category index.

    Returns:
        A judgement an image. An index that the engine has no category for gives a category that
        no threshold is known for, and so no decision.
    """
    return [
        Judgement(
            category=categories[index]
            if 0 <= index < len(categories)
            else f"unknown category {index}",
            score=float(output["score"][i]),
            margin=float(output["margin"][i]) if "margin" in output else math.inf,
            map=output["map"][i].copy(),  # an engine may use its output buffers again
            codes=output["codes"][i].copy() if "codes" in output else None,
        )
        for i, index in enumerate(int(number) for number in output["category"])
    ]


def refusal(judgement: Judgement | None, fault: str | None) -> str | None:
    """Say why an image leads to no decision whatever the threshold.

    Args:
        judgement: what the engine said; ``None`` if it was not asked.
        fault: why the image itself cannot be judged (:mod:`hvq_edge.verdict.image_checks`).

    Returns:
        The reason in words, or ``None`` for an image that a threshold decides on.
    """
    if fault is not None:
        return fault
    if judgement is None:
        return "the engine was not asked"
    if not math.isfinite(judgement.score):
        return f"the score is not a finite number ({judgement.score})"
    if not judgement.finite:
        return "the anomaly map is not finite"
    if not judgement.margin >= 0:  # so written, NaN is no part either
        return f"unknown part: unlike every category (margin {judgement.margin:.3g})"
    return None


class Ruling(NamedTuple):
    """A verdict and its reason."""

    verdict: Verdict
    reason: str
    """In words, for the log."""


def exceeds(score: float, threshold: float) -> bool:
    """Whether a score is rejected at a threshold; a score equal to it passes."""
    return score > threshold


def rule(
    refused: str | None,
    category: str | None,
    score: float,
    thresholds: Mapping[str, float],
    precision: str = "",
) -> Ruling:
    """Decide on one image.

    Args:
        refused: what :func:`refusal` says of it.
        category: that it was judged as; ``None`` where the engine was not asked.
        score: its score; not read where it is refused.
        thresholds: of this precision, by category.
        precision: for the reason when the category has no threshold.
    """
    if refused is not None:
        return Ruling("no_decision", refused)
    threshold = thresholds.get(category or "")
    if threshold is None or not math.isfinite(threshold):
        at = f" at {precision}" if precision else ""
        return Ruling("no_decision", f"no threshold for {category}{at}")
    if exceeds(score, threshold):
        return Ruling("reject", f"score {score:.6g} above threshold {threshold:.6g}")
    return Ruling("pass", f"score {score:.6g} within threshold {threshold:.6g}")


@dataclass(frozen=True)
class VerdictCounts:
    """How many images got which verdict."""

    rejected: int
    passed: int
    no_decision: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.rejected + self.passed + self.no_decision


def count_verdicts(verdicts: Iterable[Verdict]) -> VerdictCounts:
    """Count verdicts."""
    listed = list(verdicts)
    return VerdictCounts(
        rejected=listed.count("reject"),
        passed=listed.count("pass"),
        no_decision=listed.count("no_decision"),
    )
