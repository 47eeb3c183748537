"""What a running inspector says of itself: the live page, Prometheus and the summary read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hvq_edge.stream.latency import LatencyHistogram
from hvq_edge.stream.sources.cameras.frame_counter import Transport


@dataclass(frozen=True)
class Counts:
    """What became of frames. When nothing is in flight ``frames`` is the sum of the others."""

    frames: int = 0
    """The source gave, lost ones included."""
    passed: int = 0
    rejected: int = 0
    no_decision: int = 0
    dropped: int = 0
    """Replaced by a newer frame, or not decided yet when the run was broken off."""

    @property
    def decided(self) -> int:
        """Frames with a decision, ``no_decision`` included."""
        return self.passed + self.rejected + self.no_decision


@dataclass(frozen=True)
class CameraStatistics:
    """One source."""

    name: str
    """Without credentials."""
    counts: Counts
    connected: bool
    """Whether its last frame had an image."""
    fault: str = ""
    """Why not; empty while it is connected."""
    due: bool = True
    """Whether frames should keep coming: not from a trigger, a watched folder, or a file that has
    ended, which may all be silent for hours."""
    gaps: int = 0
    """How often it was lost since the start."""
    unlike: str = ""
    """In what its images are unlike the training images; empty where they are alike."""
    drift: str = ""
    """What has drifted, since when, and what to do; empty while nothing has."""
    moved: int = 0
    """How many measures have drifted."""
    unread_parts: int = 0
    """Images, dropped ones included, whose part should have a serial number that was not found."""
    transport: Transport = field(default_factory=Transport)
    """What went wrong on the way from the camera."""


@dataclass(frozen=True)
class SinkStatistics:
    """One sink."""

    name: str
    written: int
    """Decisions it has taken to their end."""
    dropped: int
    """Decisions it never got, because it was too slow or broken."""
    waiting: int
    """Decisions in its queue or spool."""
    fault: str = ""
    """What is wrong with it now; empty while it works."""


@dataclass(frozen=True)
class Statistics:
    """A snapshot of a whole inspector."""

    seconds: float
    """Since it started, on the monotonic clock."""
    cameras: tuple[CameraStatistics, ...]
    sinks: tuple[SinkStatistics, ...]
    stages: Mapping[str, LatencyHistogram] = field(default_factory=dict)
    """Milliseconds by stage, in the order of the path: ``waiting`` (capture to engine's thread),
    ``checks``, ``engine``, ``decision`` and ``total`` (arrival to decision)."""
    engine_fault: str = ""
    """Why frames are not judged now, where a server judges them; empty: they are."""

    @property
    def idle(self) -> bool:
        """Whether it is right that nothing happens: no frame is due, and none is in hand."""
        counts = self.counts
        in_hand = counts.frames - counts.decided - counts.dropped
        return not in_hand and not any(camera.due for camera in self.cameras)

    @property
    def counts(self) -> Counts:
        """Of all cameras together."""
        every = [camera.counts for camera in self.cameras]
        return Counts(
            frames=sum(counts.frames for counts in every),
            passed=sum(counts.passed for counts in every),
            rejected=sum(counts.rejected for counts in every),
            no_decision=sum(counts.no_decision for counts in every),
            dropped=sum(counts.dropped for counts in every),
        )
