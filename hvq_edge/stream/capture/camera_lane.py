"""One source on its way to the engine: its capture thread, its queue, its checks, its counts."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import islice

from hvq_edge.data.images import fit_image
from hvq_edge.errors import ImageError
from hvq_edge.runtime.engine import Frames
from hvq_edge.stream.capture.frame_queue import FrameQueue, Policy
from hvq_edge.stream.capture.gaps import GapWatch
from hvq_edge.stream.sources.source import Frame, Source, comes_on_demand
from hvq_edge.stream.statistics import CameraStatistics, Counts
from hvq_edge.verdict.image_limits import FrameQuality
from hvq_edge.verdict.judgement import Verdict
from hvq_edge.verdict.usable import FrameChecks

SILENT_SECONDS = 5.0
"""A live camera that gives nothing for longer, not even a lost frame, is not connected."""


@dataclass(frozen=True, eq=False)
class CheckedFrame:
    """A frame made ready for the engine, or known to be unfit for it."""

    frame: Frame
    fitted: Frames | None
    """uint8 ``[side, side, 3]``; ``None`` where there is no usable image."""
    fault: str | None
    """Why it cannot be judged."""
    checks_ms: float
    """What making it ready took."""
    quality: FrameQuality | None = None
    """``None`` where the bundle has no limits to hold it against."""

    @property
    def fit(self) -> bool:
        """Whether the engine can be asked."""
        return self.fitted is not None and self.fault is None


class CameraLane:
    """Captures one source on a thread of its own.

    With policy ``all`` frames are fitted and checked on that thread too, so that the engine never
    waits for it. With ``latest`` that would be wasted on frames that are dropped: it is done when
    a frame is taken.

    Args:
        source: closed by :meth:`close`.
        name: of the camera.
        policy: of its queue.
        checks: of its frames; used by one thread.
        side: of the model's input, in pixels.
        changed: notified when a frame is ready; lanes of one inspector share it.
        max_frames: end after this many frames, dropped ones included.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        policy: Policy,
        checks: FrameChecks,
        side: int,
        changed: threading.Condition,
        max_frames: int | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self._source = source
        self._checks = checks
        self._side = side
        self._max_frames = max_frames
        self._queue: FrameQueue[Frame | CheckedFrame] = FrameQueue(policy, changed)
        self._thread = threading.Thread(target=self._capture, name=f"capture {name}", daemon=True)
        self._on_demand = comes_on_demand(source)
        self._gaps = GapWatch()
        self._verdicts: dict[Verdict, int] = {"pass": 0, "reject": 0, "no_decision": 0}
        self._broken_off = 0
        self._stopping = False
        self._last = time.monotonic()

    def start(self) -> None:
        """Start to capture; once."""
        self._last = time.monotonic()
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether :meth:`take` would give a frame, or raise."""
        return self._queue.ready

    @property
    def exhausted(self) -> bool:
        """Whether nothing will come any more."""
        return self._queue.exhausted

    def take(self) -> CheckedFrame | None:
        """Take the next frame, checked; ``None`` if there is none now.

        Raises:
            BaseException: what ended the source, once the frames before it are taken.
        """
        taken = self._queue.get(0.0)
        return self._check(taken) if isinstance(taken, Frame) else taken

    def count(self, verdict: Verdict) -> None:
        """Count the decision on a frame that was taken."""
        self._verdicts[verdict] += 1

    def stop(self) -> None:
        """Ask the source to end; frames already captured still come."""
        self._stopping = True
        self._source.close()

    def abandon(self) -> None:
        """End at once: frames captured but not taken count as dropped."""
        self.stop()
        self._queue.abandon()

    def join(self, seconds: float) -> None:
        """Wait for the capture thread; frames taken but not decided count as dropped from now."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        # The frames in hand when an exception broke the run off, Ctrl-C at any moment included.
        self._broken_off = self._queue.taken - sum(self._verdicts.values())

    def statistics(self) -> CameraStatistics:
        """Return a snapshot: ``frames`` is never less than the sum of the other counts."""
        # Read against the direction of the frames: what is decided was received before.
        verdicts = dict(self._verdicts)
        dropped = self._queue.dropped + self._broken_off
        fault = self._gaps.fault
        silent = time.monotonic() - self._last
        if self._source.live and not fault and silent > SILENT_SECONDS and self._thread.is_alive():
            fault = f"{self.name} has given nothing for {silent:.0f} s"
        return CameraStatistics(
            name=self.name,
            counts=Counts(
                frames=self._queue.received,
                passed=verdicts["pass"],
                rejected=verdicts["reject"],
                no_decision=verdicts["no_decision"],
                dropped=dropped,
            ),
            connected=not fault,
            fault=fault,
            due=not self._on_demand and not self._queue.exhausted,
            gaps=self._gaps.count,
            latest_gaps=self._gaps.latest,
        )

    def _capture(self) -> None:
        """The capture thread: every frame of the source goes into the queue."""
        error: BaseException | None = None
        try:
            for frame in islice(self._source, self._max_frames):
                self._last = time.monotonic()
                self._gaps.add(frame)
                self._queue.put(self._check(frame) if self.policy == "all" else frame)
                self._last = time.monotonic()  # a full queue is not the camera's fault
                if self._stopping:
                    break
        except BaseException as raised:  # surfaces in the caller's thread
            error = raised
        self._queue.end(error)

    def _check(self, frame: Frame) -> CheckedFrame:
        began = time.perf_counter()
        fitted: Frames | None = None
        fault: str | None = None
        quality: FrameQuality | None = None
        if frame.image is not None:
            try:
                fitted = fit_image(frame.image, self._side)
                fault, quality = self._checks.check(fitted)
            except ImageError as error:
                fault = error.cause
        checks_ms = (time.perf_counter() - began) * 1e3
        return CheckedFrame(frame, fitted, fault, checks_ms, quality)
