"""Which decisions are worth a look by a person: decided alike by the line and by whoever reads.

The sample of passes is drawn by a hash of a seed, camera and frame. The seed is made at the start
of a session and stands in its first row, so anybody can say afterwards which passes had to be kept:
nobody chose them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Queue = Literal["reject", "near_miss", "no_decision", "sample"]
QUEUES: tuple[Queue, ...] = ("reject", "near_miss", "no_decision", "sample")
_KEYS = ("sample", "near", "seed")


@dataclass(frozen=True)
class Choice:
    """What of a session is kept for review, beside its rejects."""

    sample: float = 0.0
    """Share of passes that are kept, whatever they score."""
    near: float = 0.0
    """A pass whose score is below the threshold by less than this share of it is a near miss."""
    seed: str = field(default_factory=lambda: secrets.token_hex(8))

    def is_sampled(self, camera: str, frame: int) -> bool:
        """Tell whether a frame is in the sample, if it is a pass."""
        drawn = hashlib.sha256(f"{self.seed}:{frame}:{camera}".encode()).digest()[:8]
        return int.from_bytes(drawn, "big") < self.sample * 2**64

    def is_near(self, score: float | None, threshold: float | None) -> bool:
        """Tell whether the score of a pass is near the threshold."""
        if score is None or threshold is None:
            return False
        return score > threshold - self.near * abs(threshold)

    def queue(
        self, verdict: str, camera: str, frame: int, score: float | None, threshold: float | None
    ) -> Queue | None:
        """Return where a decision is shown; ``None``: nowhere.

        A near miss that the sample drew belongs to the sample: else those of it that are judged
        would no longer be some of all passes.

        Args:
            verdict: ``pass``, ``reject`` or ``no_decision``.
            camera: as the log names it.
            frame: its number.
            score: of the decision.
            threshold: in force for it.
        """
        if verdict in ("reject", "no_decision"):
            return "reject" if verdict == "reject" else "no_decision"
        if self.is_sampled(camera, frame):
            return "sample"
        return "near_miss" if self.is_near(score, threshold) else None

    def details(self) -> dict[str, Any]:
        """Return what a session's first row says of it."""
        return {"sample": self.sample, "near": self.near, "seed": self.seed}


NOTHING = Choice(seed="")
"""Of a session that keeps rejects alone."""


def choice_of(details: Mapping[str, Any]) -> Choice:
    """Return the choice of a session, given what its first row says."""
    said = details.get("images")
    if not isinstance(said, dict) or not all(key in said for key in _KEYS):
        return NOTHING
    try:
        return Choice(float(said["sample"]), float(said["near"]), str(said["seed"]))
    except (TypeError, ValueError):
        return NOTHING
