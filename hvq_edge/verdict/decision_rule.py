"""From the verdicts on single frames to what the line acts on: hysteresis, k of n, grades, regions.

::

    decide (a frame against its threshold) ──▶ hysteresis | k of n ──▶ regions ──▶ grade
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hvq_edge.verdict.decision import Decision, PartVerdict
from hvq_edge.verdict.decision_settings import DecisionSettings, KOfN
from hvq_edge.verdict.regions import Region, find_regions

if TYPE_CHECKING:
    from hvq_edge.stream.sources.source import Frame


logger = logging.getLogger(__name__)


class DecisionRule:
    """Applies the rule to the decisions of one camera, in order.

    Args:
        settings: the rule.
    """

    def __init__(self, settings: DecisionSettings) -> None:
        self._settings = settings
        self._rejecting: set[str] = set()
        self._seen = self._above = self._undecided = self._parts = 0
        self._part: str | None = None
        """Serial number of the part in hand, where it is known."""

    def apply(self, plain: Decision, frame: Frame, thresholds: Mapping[str, float]) -> Decision:
        """Return the final decision on the next frame.

        Args:
            plain: the frame alone against its threshold (:func:`hvq_edge.verdict.decision.decide`).
            frame: the same frame.
            thresholds: by category; those that ``plain`` was decided by.
        """
        decision, limit = plain, thresholds.get(plain.category or "", math.nan)
        if self._settings.k_of_n is not None:
            decision = self._count(plain, self._settings.k_of_n)
        elif self._settings.hysteresis:
            decision, limit = self._hold(plain, limit)
        if decision.verdict != "reject" or decision.score is None:
            return decision
        regions = self._regions(decision, frame, limit)
        excess = (decision.score - limit) / abs(limit) if limit else math.inf
        return replace(decision, regions=regions, grade=self._grade(regions, excess))

    def _hold(self, plain: Decision, threshold: float) -> tuple[Decision, float]:
        """Hysteresis: return the decision, and the limit that its score was held against."""
        if plain.verdict == "no_decision" or plain.category is None or plain.score is None:
            return plain, threshold  # a frame that shows nothing changes nothing
        release = threshold - self._settings.hysteresis * abs(threshold)
        if plain.verdict == "reject":
            self._rejecting.add(plain.category)
        elif plain.category in self._rejecting:
            if plain.score > release:
                reason = f"score {plain.score:.6g} after a reject, not yet within {release:.6g}"
                return replace(plain, verdict="reject", reason=reason), release
            self._rejecting.discard(plain.category)
        return plain, threshold

    def _count(self, plain: Decision, rule: KOfN) -> Decision:
        cut_short = None
        if self._seen and plain.part and self._part and plain.part != self._part:
            # A frame too many or too few must not mix two parts, and all that come after.
            missing = rule.n - self._seen
            cut_short = part_verdict(self._parts, rule, self._above, self._undecided + missing)
            logger.warning(
                "%s: part %s gave %d of %d frames: %s; %s begins",
                *(plain.camera, self._part, self._seen, rule.n),
                *(cut_short.verdict.replace("_", " "), plain.part),
            )
            self._end_part()
        self._part = plain.part or self._part
        self._seen += 1
        self._above += plain.verdict == "reject"
        self._undecided += plain.verdict == "no_decision"
        decision = replace(plain, cut_short=cut_short)
        if plain.verdict == "reject":
            reason = f"{plain.reason}, {self._above} of the {rule.k} frames that reject a part"
            verdict = plain.verdict if self._above >= rule.k else "pass"
            decision = replace(decision, verdict=verdict, reason=reason)
        if self._seen < rule.n:
            return replace(decision, more_frames=True)
        part = part_verdict(self._parts, rule, self._above, self._undecided)
        self._end_part()
        return replace(decision, part_verdict=part)

    def _end_part(self) -> None:
        self._parts += 1
        self._seen = self._above = self._undecided = 0
        self._part = None

    def _regions(self, decision: Decision, frame: Frame, limit: float) -> tuple[Region, ...]:
        anomaly_map, image, score = decision.map, frame.image, decision.score
        if anomaly_map is None or image is None or score is None:
            return ()
        if not np.isfinite(anomaly_map).all():
            return ()
        height, width = image.shape[:2]
        mm_per_pixel = self._settings.mm_per_pixel
        return find_regions(anomaly_map, score, limit, height, width, mm_per_pixel)

    def _grade(self, regions: tuple[Region, ...], excess: float) -> str | None:
        """Return the worst grade that is reached, or ``None``."""
        in_mm = self._settings.mm_per_pixel is not None
        area = sum((region.area_mm2 or 0.0) if in_mm else region.area for region in regions)
        for grade in reversed(self._settings.grades):
            without_limits = grade.area is None and grade.excess is None
            large = grade.area is not None and area >= grade.area
            strong = grade.excess is not None and excess >= grade.excess
            if without_limits or large or strong:
                return grade.name
        return None


def part_verdict(number: int, rule: KOfN, above: int, undecided: int) -> PartVerdict:
    """Judge a whole part from its frames.

    Rejected when ``k`` frames are above the threshold; no decision when the frames that could not
    be judged might have made it ``k``; else passed.

    Args:
        number: of the part, from 0.
        rule: ``k`` and ``n``.
        above: frames above the threshold.
        undecided: frames without a decision.
    """
    if above >= rule.k:
        return PartVerdict(number, "reject", rule.n, above, undecided)
    if above + undecided >= rule.k:
        return PartVerdict(number, "no_decision", rule.n, above, undecided)
    return PartVerdict(number, "pass", rule.n, above, undecided)
