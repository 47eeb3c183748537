"""The decision on one frame: ``pass``, ``reject`` or ``no_decision``, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.verdict.judgement import Judgement, Verdict, refusal, rule
from hvq_edge.verdict.regions import Region

if TYPE_CHECKING:
    from hvq_edge.stream.sources.source import Frame


@dataclass(frozen=True)
class PartVerdict:
    """The verdict on a part that was seen in several frames."""

    number: int
    """Of the part at its camera, from 0."""
    verdict: Verdict
    frames: int
    above: int
    """Frames above the threshold."""
    undecided: int
    """Frames without a decision."""


@dataclass(frozen=True, eq=False)
class Decision:
    """The decision on one frame."""

    frame: int
    """Index of the frame in its source."""
    time: float
    """When the frame arrived: seconds since 1970, UTC."""
    category: str | None
    """``None`` where the engine was not asked."""
    score: float | None
    """Finite; ``None`` where there is none."""
    verdict: Verdict
    reason: str
    """In words, for the log."""
    latency_ms: float
    """Milliseconds from the frame's arrival to this decision."""
    map: NDArray[np.float32] | None = None
    """Anomaly map ``[side / 16, side / 16]``; ``None`` where there is none."""
    codes: NDArray[np.int32] | None = None
    """``[levels, tokens]``, nearest codes; ``None`` where there are none. The log has none."""
    camera: str = ""
    """Name of the camera, without credentials."""
    image: str | None = None
    """File name of the image, relative to its folder, or of a video with the number of its frame
    (``video.mp4#120``); ``None`` for a live camera."""
    part: str | None = None
    """Serial number of the part; ``None`` where it is not known."""
    regions: tuple[Region, ...] = ()
    """Where a rejected frame is above the limit; empty for other verdicts."""
    grade: str | None = None
    """How bad a reject is, where grades are set and one is reached."""
    part_verdict: PartVerdict | None = None
    """The verdict on the whole part: on its last frame, where several frames make a part."""
    more_frames: bool = False
    """Further frames of the same part are to come; the log has none of it."""
    cut_short: PartVerdict | None = None
    """The verdict on the part before, where it gave too few frames; the log has none of it."""
    p_value: float | None = None
    """Share of good parts that score at least as high (:mod:`hvq_edge.verdict.calibration_scores`);
    ``None`` without a score, or where the bundle does not know what good parts score."""

    drift: str | None = None
    """What has drifted at this camera by now, in words; ``None`` while nothing has. It decides
    nothing."""

    @property
    def acted_on(self) -> Verdict | None:
        """The verdict that an ejector acts on; ``None``: that on the part is still to come.

        A part of several frames is rejected as soon as enough are above the threshold, and neither
        passes nor goes without a decision before its last frame.
        """
        if self.part_verdict is not None:
            return self.part_verdict.verdict
        return None if self.more_frames and self.verdict != "reject" else self.verdict

    def fields(self) -> dict[str, Any]:
        """Return all but arrays as JSON values: what the log, a JSON line and a message say."""
        fields: dict[str, Any] = {
            "camera": self.camera,
            "frame": self.frame,
            "image": self.image,
            "part": self.part,
            "time": round(self.time, 6),
            "category": self.category,
            "score": self.score,
            "verdict": self.verdict,
            "reason": self.reason,
            "latency_ms": round(self.latency_ms, 3),
            "grade": self.grade,
            "part_verdict": None if self.part_verdict is None else asdict(self.part_verdict),
            "regions": [region.to_json() for region in self.regions],
            "p_value": self.p_value,
        }
        return fields if self.drift is None else {**fields, "drift": self.drift}

    def to_json(self) -> str:
        """Return :meth:`fields` as one line of JSON, without a line end."""
        return json.dumps(self.fields(), ensure_ascii=False, allow_nan=False)


def as_text(name: str) -> str:
    """Return a name with escapes for bytes that are no text, which the names of files may hold."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def decide(
    frame: Frame,
    fault: str | None,
    judgement: Judgement | None,
    thresholds: Mapping[str, float],
    *,
    precision: str,
    latency_ms: float,
    camera: str = "",
) -> Decision:
    """Decide on a frame alone. A frame without a usable image never passes and is never rejected.

    Args:
        frame: the frame.
        fault: why its image cannot be judged; ``None`` if it can.
        judgement: what the engine said; ``None`` if it was not asked.
        thresholds: of this precision, for each category; a score above is a reject.
        precision: for the message when the category has no threshold.
        latency_ms: milliseconds since the frame arrived.
        camera: which camera it is of.
    """
    refused = frame.fault if frame.image is None else refusal(judgement, fault)
    category = judgement.category if judgement else None
    score = judgement.score if judgement and refused is None else None
    ruling = rule(refused, category, math.nan if score is None else score, thresholds, precision)
    return Decision(
        frame=frame.index,
        time=frame.time,
        category=category,
        score=score,
        verdict=ruling.verdict,
        reason=as_text(ruling.reason),  # of an image that cannot be read it has the path
        latency_ms=latency_ms,
        map=judgement.map if judgement else None,
        codes=judgement.codes if judgement else None,
        camera=camera,
        image=as_text(frame.name) or None,
        part=frame.part or None,
    )
