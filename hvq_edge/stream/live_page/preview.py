"""What another threshold would have done to recent frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hvq_edge.stream.live_page.recent import Record
from hvq_edge.verdict.judgement import exceeds

FRAMES = 500


@dataclass(frozen=True)
class Preview:
    """Counts over the same recent frames of one category."""

    frames: int
    would_reject: int
    rejects_now: int
    """With the threshold now in force, whenever it was set."""
    lowest: float | None
    """Score among them; ``None`` without frames."""
    highest: float | None


def preview(records: Sequence[Record], category: str, threshold: float, in_force: float) -> Preview:
    """Judge the scores of the last frames of a category again.

    Frames without a decision have no part in it: no threshold would have changed them. Rules over
    several frames of a part are not applied: this counts frames, not parts.

    Args:
        records: oldest first.
        category: whose frames count.
        threshold: to try.
        in_force: to compare with.
    """
    scores = [
        record.score
        for record in records
        if record.category == category
        and record.verdict != "no_decision"
        and record.score is not None
        and math.isfinite(record.score)
    ][-FRAMES:]
    return Preview(
        frames=len(scores),
        would_reject=sum(exceeds(score, threshold) for score in scores),
        rejects_now=sum(exceeds(score, in_force) for score in scores),
        lowest=min(scores, default=None),
        highest=max(scores, default=None),
    )
