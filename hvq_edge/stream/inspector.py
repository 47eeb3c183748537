"""The inspector: frames in, decisions out.

::

    a thread a camera:  source ──▶ queue (latest | all)
    caller's thread:               queues ──▶ engine, one batch ──▶ decide ──▶ sinks ──▶ you
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.thresholds import calibration_scores_of, thresholds_of
from hvq_edge.common.closeable import Closeable
from hvq_edge.errors import ServerFailed, SettingsError
from hvq_edge.runtime.engine import Engine
from hvq_edge.stream.camera_watch import CameraWatch
from hvq_edge.stream.capture.camera_lane import CameraLane, CheckedFrame, known_policy
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.drift.settings import DriftSettings
from hvq_edge.stream.latency import LatencyHistogram, StageLatencies
from hvq_edge.stream.settings import Policy
from hvq_edge.stream.sinks.sink import Sink
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.source import Source, is_camera, unique_names
from hvq_edge.stream.statistics import Counts, SinkStatistics, Statistics
from hvq_edge.verdict.calibration_scores import p_value
from hvq_edge.verdict.decision import Decision, decide
from hvq_edge.verdict.decision_rule import DecisionRule
from hvq_edge.verdict.decision_settings import DecisionSettings
from hvq_edge.verdict.image_checks import FrameChecks
from hvq_edge.verdict.judgement import Judgement, judgements

logger = logging.getLogger(__name__)

STOP_SECONDS = 1.5
"""How long a stop waits for cameras that hang in a read; the whole stop is to take 2 s at most."""

PAUSED = "paused"
NOT_JUDGED = "the server that judges did not answer"

_POLL_SECONDS = 0.1
"""How often a stop is looked for while no camera gives anything: a signal handler may not notify,
because it may interrupt a thread that holds the lock. Frames never wait for it."""


class Inspector(Closeable):
    """Inspects one or several cameras with one engine. Iterate it once; it owns no engine or sink.

    Each turn takes at most one frame of every camera that has one and judges them as one batch.

    Args:
        engine: judges the frames; called on the thread that iterates.
        bundle: thresholds of each precision and category, and image limits.
        sources: one source, or several; closed when the iteration ends.
        policy: ``latest`` or ``all``; by default ``latest`` for a camera and ``all`` for files.
        sinks: each takes every decision before it is given to the caller.
        controls: pause and thresholds, changed from outside while it runs; by default those of the
            bundle for the engine's precision.
        rule: from scores to decisions, applied to each camera apart.
        drift: whether and how drift is looked for.
        max_frames: end each source after this many of its frames, dropped ones included.

    Raises:
        SettingsError: an unknown policy, no source, or a rule that the policy makes impossible.
    """

    def __init__(
        self,
        engine: Engine,
        bundle: Bundle,
        sources: Source | Sequence[Source],
        *,
        policy: str | None = None,
        sinks: Sequence[Sink] = (),
        controls: Controls | None = None,
        rule: DecisionSettings | None = None,
        drift: DriftSettings | None = None,
        max_frames: int | None = None,
    ) -> None:
        self._engine = engine
        self._sinks = sinks
        self._precision = engine.info.precision
        self.controls = controls or Controls(thresholds_of(bundle, self._precision))
        """What may be changed while it runs."""
        self._good_scores = calibration_scores_of(bundle, self._precision)
        self._changed = threading.Condition()
        rule = rule or DecisionSettings()
        self._checks = bundle.checks
        self._lanes: list[CameraLane] = []
        several = list(sources) if isinstance(sources, Sequence) else [sources]
        for source, name in zip(several, unique_names([s.name for s in several]), strict=True):
            checks = FrameChecks(self._checks, live=is_camera(source))
            lane_policy = known_policy(policy or ("latest" if source.live else "all"))
            _check_rule(rule, lane_policy)
            shape = engine.info.frame_shape
            self._lanes.append(
                CameraLane(source, name, lane_policy, checks, shape, self._changed, max_frames)
            )
        if not self._lanes:
            raise SettingsError("there is no camera.", next_step="name one with --camera")
        self._rules = {lane.name: DecisionRule(rule) for lane in self._lanes}
        usual = {name: one.usual for name, one in bundle.manifest.category_limits.items()}
        self.watches = {
            lane.name: CameraWatch(
                lane.name,
                usual,
                self._good_scores,
                drift or DriftSettings(),
                of_parts=rule.k_of_n is not None,
            )
            for lane in self._lanes
        }
        """What each camera's frames are compared with."""
        self._stages = StageLatencies()
        self._unanswered = 0
        self._stopping = False
        self._deadline: float | None = None
        self._began: float | None = None
        self._ended: float | None = None

    def __iter__(self) -> Iterator[Decision]:
        """Give decisions until every source has ended, :meth:`stop`, or an error.

        Raises:
            Exception: whatever a source, the engine or a sink raised, but for a server that judges
                and is away: its frames are ``no_decision``.
        """
        self._warm_up()
        self._began = time.monotonic()
        for lane in self._lanes:
            lane.start()
        try:
            for turn in self._turns():
                yield from self._inspect(turn)
        finally:
            self.close()

    def stop(self) -> None:
        """End after the frames already captured; may be called from a signal handler."""
        self._stopping = True  # no lock: a signal handler may interrupt a thread that holds it

    def close(self) -> None:
        """End at once: frames captured but not decided count as dropped."""
        for lane in self._lanes:
            lane.abandon()
        for lane in self._lanes:
            lane.join(self._seconds_to_stop())
        if self._ended is None:
            self._ended = time.monotonic()

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Each camera's policy, in their order."""
        return tuple(lane.policy for lane in self._lanes)

    @property
    def counts(self) -> Counts:
        """What became of the frames of all cameras so far."""
        return self.statistics().counts

    @property
    def latency(self) -> LatencyHistogram:
        """Of all decisions, from the frame's arrival on."""
        return self._stages.snapshot()["total"]

    def statistics(self) -> Statistics:
        """Return a snapshot; may be called by any thread at any time."""
        now = self._ended or time.monotonic()
        told = [getattr(sink, "statistics", None) for sink in self._sinks]
        found = [ask() for ask in told if callable(ask)]
        return Statistics(
            seconds=now - (self._began if self._began is not None else now),
            cameras=tuple(
                replace(
                    lane.statistics(),
                    unlike=self.watches[lane.name].likeness.said,
                    drift=self.watches[lane.name].drift_said,
                    moved=len(self.watches[lane.name].alarms),
                )
                for lane in self._lanes
            ),
            sinks=tuple(
                one
                for several in found
                for one in (several if isinstance(several, tuple) else (several,))
                if isinstance(one, SinkStatistics)
            ),
            stages=self._stages.snapshot(),
            engine_fault=NOT_JUDGED if self._unanswered else "",
        )

    def transport(self, camera: str) -> Transport:
        """Return what went wrong on the way from a camera so far."""
        return next(lane.transport for lane in self._lanes if lane.name == camera)

    def _turns(self) -> Iterator[list[tuple[CameraLane, CheckedFrame]]]:
        """Give at most one frame of each camera at a time; after :meth:`stop`, those captured."""
        while not all(lane.exhausted for lane in self._lanes):
            if self._stopping:
                for lane in self._lanes:
                    lane.stop()
            with self._changed:
                self._changed.wait_for(self._anything_ready, _POLL_SECONDS)
            taken = [(lane, lane.take()) for lane in self._lanes]
            turn = [(lane, checked) for lane, checked in taken if checked is not None]
            if turn:
                yield turn
            elif self._stopping and not self._seconds_to_stop():
                return  # a camera hangs: leave its thread behind

    def _anything_ready(self) -> bool:
        ready = any(lane.ready for lane in self._lanes)
        return ready or all(lane.exhausted for lane in self._lanes)

    def _seconds_to_stop(self) -> float:
        """Return the seconds left to wait for cameras, counted from the first call."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + STOP_SECONDS
        return max(self._deadline - now, 0.0)

    def _inspect(self, turn: Sequence[tuple[CameraLane, CheckedFrame]]) -> Iterator[Decision]:
        taken = time.monotonic()
        paused = self.controls.paused
        fit = [checked for _, checked in turn if checked.fit and not paused]
        found = self._judge(fit)
        judged_as = dict(zip(map(id, fit), found or (), strict=found is not None))
        judged = time.monotonic()
        thresholds = self.controls.thresholds
        for lane, checked in turn:
            judgement = judged_as.get(id(checked))
            fault = PAUSED if paused and checked.seen is not None else checked.fault
            if found is None and fault is None:
                fault = NOT_JUDGED
            if judgement is not None and checked.seen is not None:
                fault = self._checks.after(checked.seen, judgement.category)
            decision = decide(
                checked.frame,
                fault,
                judgement,
                thresholds,
                precision=self._precision,
                latency_ms=0.0,
                camera=lane.name,
            )
            decision = self._rules[lane.name].apply(decision, checked.frame, thresholds)
            rarity = p_value(self._good_scores, decision.category, decision.score)
            decision = replace(decision, p_value=rarity)
            watch = self.watches[lane.name]
            watch.take(decision, checked, judgement, thresholds)
            moved = watch.alarms
            if moved:
                said = ", ".join(alarm.words for alarm in moved)
                decision = replace(decision, drift=said)
            now = time.monotonic()
            decision = replace(decision, latency_ms=(now - checked.frame.arrived) * 1e3)
            waiting = (taken - checked.frame.arrived) * 1e3 - checked.checks_ms
            self._stages.add("waiting", waiting)
            self._stages.add("checks", checked.checks_ms)
            if judgement is not None:
                self._stages.add("engine", (judged - taken) * 1e3)
            self._stages.add("decision", (now - judged) * 1e3)
            self._stages.add("total", decision.latency_ms)
            lane.count(decision.verdict)
            for sink in self._sinks:
                sink.write(decision, checked.frame)
            judged = time.monotonic()  # the next one's decision does not include these sinks
            yield decision

    def _judge(self, fit: Sequence[CheckedFrame]) -> list[Judgement] | None:
        """Ask the engine for all frames at once; it divides a batch that is too large for it.

        Returns:
            ``None``: a server that judges for this machine does not; it may come back.
        """
        frames = [checked.seen.fitted for checked in fit if checked.seen is not None]
        if not frames:
            return []
        batch = frames[0][np.newaxis] if len(frames) == 1 else np.stack(frames)
        try:
            output = self._engine.run(batch)
        except ServerFailed as error:
            if not self._unanswered:
                logger.warning("frames are no_decision until it answers: %s", error)
            self._unanswered += len(batch)
            return None
        if self._unanswered:
            logger.warning("it answers again, after %d frames without", self._unanswered)
            self._unanswered = 0
        return judgements(output, self._engine.info.categories)

    def _warm_up(self) -> None:
        """Run a batch of several once: some engines compile a graph for it, which takes seconds."""
        if len(self._lanes) > 1:
            shape = self._engine.info.frame_shape
            self._engine.run(np.zeros((len(self._lanes), *shape, 3), np.uint8))


def _check_rule(rule: DecisionSettings, policy: Policy) -> None:
    if rule.k_of_n is not None and policy != "all":
        raise SettingsError(
            "k of n frames cannot be told apart into parts when frames are dropped.",
            next_step="use --policy all, or --hysteresis, or a trigger",
        )
