"""The inspector: frames in, decisions out.

::

    capture thread:  source ──▶ queue (latest | all)
    caller's thread:            queue ──▶ checks ──▶ engine ──▶ decide ──▶ sinks ──▶ you
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from hvq_edge.bundle import Bundle
from hvq_edge.closing import Closing
from hvq_edge.data.pictures import fit_picture
from hvq_edge.errors import PictureError
from hvq_edge.runtime.engine import Engine
from hvq_edge.stream.decisions import Decision, Judgement, Verdict, decide
from hvq_edge.stream.frame_checks import FrameChecks
from hvq_edge.stream.frame_queue import FrameQueue, Policy, known_policy
from hvq_edge.stream.latency import LatencyHistogram
from hvq_edge.stream.sinks.sink import Sink
from hvq_edge.stream.sources.source import Frame, Picture, Source

STOP_SECONDS = 2.0
"""How long a stop waits for a camera that hangs in a read."""

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Counts:
    """What became of the frames of a run. At its end ``frames`` is the sum of the others."""

    frames: int
    passed: int
    rejected: int
    no_decision: int
    dropped: int
    """Replaced by a newer frame, or not decided yet when the run was broken off."""

    @property
    def decided(self) -> int:
        """Frames with a decision, ``no_decision`` included."""
        return self.passed + self.rejected + self.no_decision


class Inspector(Closing):
    """Inspects a source with an engine. Iterate it once; it owns neither engine nor sinks.

    Args:
        engine: judges the frames; called on the thread that iterates.
        bundle: thresholds of each precision and category, and picture limits.
        source: closed when the iteration ends.
        policy: ``latest`` or ``all``; by default ``latest`` for a camera and ``all`` for files.
        sinks: each takes every decision before it is given to the caller.
        max_frames: end after this many frames of the source, dropped ones included.

    Raises:
        SettingsError: an unknown policy.
    """

    def __init__(
        self,
        engine: Engine,
        bundle: Bundle,
        source: Source,
        *,
        policy: str | None = None,
        sinks: Sequence[Sink] = (),
        max_frames: int | None = None,
    ) -> None:
        self._engine = engine
        self._source = source
        self._sinks = sinks
        self._max_frames = max_frames
        self._precision = engine.info.precision
        self._thresholds = thresholds_of(bundle, self._precision)
        self._checks = FrameChecks(bundle.manifest.picture_limits, live=source.live)
        self.policy: Policy = known_policy(policy or ("latest" if source.live else "all"))
        self._queue = FrameQueue(self.policy)
        self._thread = threading.Thread(target=self._capture, name="capture", daemon=True)
        self._verdicts: dict[Verdict, int] = {"pass": 0, "reject": 0, "no_decision": 0}
        self._broken_off = 0
        self._stopping = False
        self._deadline: float | None = None
        self.latency = LatencyHistogram()
        """Of all decisions, from the frame's arrival on."""

    def __iter__(self) -> Iterator[Decision]:
        """Give decisions until the source ends, :meth:`stop`, or an error.

        Raises:
            Exception: whatever the source, the engine or a sink raised.
        """
        self._thread.start()
        try:
            for frame in self._frames():
                yield self._inspect(frame)
        finally:
            self.close()

    def stop(self) -> None:
        """End after the frames already captured; may be called from a signal handler."""
        self._stopping = True  # no lock: a signal handler may interrupt a thread that holds it

    def close(self) -> None:
        """End at once: frames captured but not decided count as dropped."""
        self._source.close()
        self._queue.abandon()
        if self._thread.is_alive():
            self._thread.join(self._seconds_to_stop())
        # The frame in hand when an exception broke the run off, Ctrl-C at any moment included.
        self._broken_off = self._queue.taken - sum(self._verdicts.values())

    @property
    def counts(self) -> Counts:
        """What became of the frames so far."""
        return Counts(
            frames=self._queue.received,
            passed=self._verdicts["pass"],
            rejected=self._verdicts["reject"],
            no_decision=self._verdicts["no_decision"],
            dropped=self._queue.dropped + self._broken_off,
        )

    def _capture(self) -> None:
        """The capture thread: every frame of the source goes into the queue."""
        error: BaseException | None = None
        try:
            for frame in islice(self._source, self._max_frames):
                self._queue.put(frame)
                if self._stopping:
                    break
        except BaseException as raised:  # surfaces in the caller's thread
            error = raised
        self._queue.end(error)

    def _frames(self) -> Iterator[Frame]:
        """Give captured frames; after :meth:`stop`, those that are there already."""
        while not self._queue.exhausted:
            if self._stopping:
                self._source.close()
            frame = self._queue.get(_POLL_SECONDS)
            if frame is not None:
                yield frame
            elif self._stopping and not self._seconds_to_stop():
                return  # the camera hangs: leave its thread behind

    def _seconds_to_stop(self) -> float:
        """Return the seconds left to wait for the camera, counted from the first call."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + STOP_SECONDS
        return max(self._deadline - now, 0.0)

    def _inspect(self, frame: Frame) -> Decision:
        decision = self._decide(frame)
        self._verdicts[decision.verdict] += 1
        self.latency.add(decision.latency_ms)
        for sink in self._sinks:
            sink.write(decision, frame)
        return decision

    def _decide(self, frame: Frame) -> Decision:
        fault: str | None = None
        judgement: Judgement | None = None
        if frame.picture is not None:
            try:
                fitted = fit_picture(frame.picture, self._engine.info.input_side)
                fault = self._checks.fault(fitted)
            except PictureError as error:
                fault = error.cause
            if fault is None:
                judgement = self._judge(fitted)
        return decide(
            frame,
            fault,
            judgement,
            self._thresholds,
            precision=self._precision,
            latency_ms=(time.monotonic() - frame.arrived) * 1000.0,
        )

    def _judge(self, fitted: Picture) -> Judgement:
        output = self._engine.run(fitted[np.newaxis])
        index, names = int(output["category"][0]), self._engine.info.categories
        return Judgement(  # an unknown category has no threshold, so it leads to no decision
            category=names[index] if 0 <= index < len(names) else f"unknown category {index}",
            score=float(output["score"][0]),
            margin=float(output["margin"][0]),
            map=output["map"][0].copy(),  # an engine may use its output buffers again
        )


def thresholds_of(bundle: Bundle, precision: str) -> dict[str, float]:
    """Return the bundle's thresholds of a precision by category; empty where it has none."""
    for named, thresholds in bundle.manifest.thresholds.items():
        if named == precision:
            return {category: threshold.value for category, threshold in thresholds.items()}
    return {}
