"""What the live page remembers: the newest frames, recent decisions and the last rejects."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from hvq_edge.common.heat_map import HeatScale
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.drawing.overlay import draw_findings
from hvq_edge.stream.live_page.images import (
    REJECT_SIDE,
    THUMBNAIL_SIDE,
    jpeg,
    shrink,
)
from hvq_edge.stream.sources.source import Frame, Image
from hvq_edge.verdict.decision import Decision
from hvq_edge.verdict.judgement import Verdict

DECISIONS = 2000
"""Decisions remembered."""
REJECTS = 24
"""Rejects remembered, each at most 1.2 MB."""
SHOWN = 12
"""Frames that browsers saw last, besides, for whoever asks why: over a second of them."""
THIN_LINE_SIDE = 480
"""Pixels of an image for each pixel of its outlines' width."""
RATE_SECONDS = 5.0
"""Frames per second are counted over this long."""

Size = Literal["view", "thumbnail"]


@dataclass(frozen=True)
class Record:
    """A decision without its arrays."""

    sequence: int
    """Counts decisions from 1, over all cameras."""
    camera: str
    frame: int
    time: float
    """Seconds since 1970, UTC."""
    category: str | None
    score: float | None
    threshold: float | None
    """In force when it was made."""
    verdict: Verdict
    reason: str
    latency_ms: float
    grade: str | None
    """How bad a reject is, where grades are set."""
    image: str | None
    """File name of the image, or of a video with the number of its frame."""
    part: str | None
    """Serial number of the part."""


@dataclass(eq=False)
class Shot:
    """A decision's image; its JPEG files are made when somebody asks, once each."""

    record: Record
    decision: Decision
    image: Image | None
    """At any size."""
    size: tuple[int, int]
    """Height and width of the image that was decided on."""
    typical: float | None
    """What good parts score: where the heat begins."""
    _files: dict[tuple[int, bool], bytes] = field(init=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def jpeg(self, longest: int, *, heat: bool) -> bytes | None:
        """Return the JPEG file, with heat also the outlines; ``None`` where the frame was lost.

        Raises:
            OutputError: it cannot be encoded.
        """
        if self.image is None:
            return None
        with self._lock:  # ten browsers that ask at once cost one encoding
            key = (longest, heat)
            if key not in self._files:
                shown = shrink(self.image, longest)
                if heat:
                    scale = HeatScale(self.record.threshold, self.typical)
                    thickness = max(round(max(shown.shape) / THIN_LINE_SIDE), 1)
                    shown = draw_findings(shown, self.decision, scale, self.size, thickness)
                self._files[key] = jpeg(shown)
            return self._files[key]


class History:
    """A sink. Takes microseconds for a frame that is no reject, whoever watches.

    Args:
        controls: for the threshold in force.
        typical: what good parts score, by category: where the heat begins.
        decisions: to remember.
        rejects: to remember.
    """

    def __init__(
        self,
        controls: Controls,
        typical: Mapping[str, float] | None = None,
        *,
        decisions: int = DECISIONS,
        rejects: int = REJECTS,
    ) -> None:
        self.run = secrets.token_hex(8)
        """Tells this numbering of decisions from that of the run before."""
        self._controls = controls
        self.typical = typical or {}
        """What good parts score, by category."""
        self._lock = threading.Lock()
        self._records: deque[Record] = deque(maxlen=decisions)
        self._rejects: deque[Shot] = deque(maxlen=rejects)
        self._newest: dict[str, Shot] = {}
        self._shown: deque[Shot] = deque(maxlen=SHOWN)
        self._moments: dict[str, deque[float]] = {}
        self._sequence = 0

    def write(self, decision: Decision, frame: Frame) -> None:
        """Remember a decision; its image is not copied, so nobody may change it later."""
        category = decision.category
        threshold = self._controls.thresholds.get(category) if category is not None else None
        record = Record(
            sequence=self._sequence + 1,
            camera=decision.camera,
            frame=decision.frame,
            time=decision.time,
            category=category,
            score=decision.score,
            threshold=threshold,
            verdict=decision.verdict,
            reason=decision.reason,
            latency_ms=decision.latency_ms,
            grade=decision.grade,
            image=decision.image,
            part=decision.part,
        )
        size = frame.image.shape[:2] if frame.image is not None else (0, 0)
        newest = Shot(record, decision, frame.image, size, self.typical.get(category or ""))
        reject = None
        if record.verdict == "reject" and frame.image is not None:
            reject = replace(newest, image=shrink(frame.image, REJECT_SIDE))
        with self._lock:
            self._sequence = record.sequence
            self._records.append(record)
            self._newest[record.camera] = newest
            moments = self._moments.setdefault(record.camera, deque(maxlen=1000))
            moments.append(time.monotonic())
            if reject is not None:
                self._rejects.append(reject)

    def close(self) -> None:
        """Nothing to finish: what was remembered can still be looked at."""

    @property
    def sequence(self) -> int:
        """Of the newest decision; 0 before the first."""
        return self._sequence

    def newest(self, camera: str) -> Shot | None:
        """Return a camera's newest frame; ``None`` before its first."""
        with self._lock:
            return self._newest.get(camera)

    def remember(self, shot: Shot) -> None:
        """Remember for a while a frame that a browser saw."""
        if shot.image is None:
            return
        with self._lock:
            known = any(one.record.sequence == shot.record.sequence for one in self._shown)
        if not known:
            smaller = replace(shot, image=shrink(shot.image, REJECT_SIDE))
            with self._lock:
                self._shown.append(smaller)

    def shot(self, sequence: int) -> Shot | None:
        """Return a reject, or a frame that a browser saw; ``None`` when it is forgotten."""
        with self._lock:
            every = [*self._rejects, *self._shown]
        return next((one for one in every if one.record.sequence == sequence), None)

    def records(self, after: int = 0) -> list[Record]:
        """Return the decisions remembered whose sequence is above ``after``, oldest first."""
        with self._lock:
            missing = self._sequence - after
            if missing <= 0:
                return []
            found = list(self._records)
        return found[-missing:]

    def rejects(self) -> list[Record]:
        """Return the rejects remembered, newest first."""
        with self._lock:
            return [shot.record for shot in reversed(self._rejects)]

    def reject_image(self, sequence: int, size: Size, *, heat: bool) -> bytes | None:
        """Return a reject's image as JPEG; ``None`` when it is forgotten."""
        with self._lock:
            found = [shot for shot in self._rejects if shot.record.sequence == sequence]
        longest = THUMBNAIL_SIDE if size == "thumbnail" else REJECT_SIDE
        return found[0].jpeg(longest, heat=heat) if found else None

    def rates(self) -> Mapping[str, float]:
        """Return decisions a second by camera, over the last seconds."""
        now = time.monotonic()
        with self._lock:
            every = {camera: list(moments) for camera, moments in self._moments.items()}
        return {camera: _rate(moments, now) for camera, moments in every.items()}


def _rate(moments: list[float], now: float) -> float:
    """Return events a second among those of the last seconds; 0 where there are fewer than two."""
    late = [moment for moment in moments if now - moment <= RATE_SECONDS]
    if len(late) < 2:
        return 0.0
    # To now, not to the last one: a camera that hangs must be seen to slow down.
    return (len(late) - 1) / max(now - late[0], 1e-3)
