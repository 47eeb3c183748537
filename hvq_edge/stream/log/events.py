"""The events that the decision log holds between decisions; :class:`EventWatch` lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hvq_edge.stream.controls import Controls
from hvq_edge.stream.drift.category import Alarm
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

_NAMES_AN_ALARM = ("camera", "category", "measure", "what")

Event = tuple[str, Mapping[str, Any]]
"""Kind and details, as JSON values."""


@dataclass
class _Gap:
    since: float
    frames: int
    fault: str


class EventWatch:
    """Sees what happened between two decisions; used by the inspector's thread.

    Args:
        controls: whose thresholds are watched; ``None``: they do not change.
        unlike: says of a camera in what its images are unlike the training images.
        drift: says of a camera what has drifted.
        transport: says of a camera what went wrong on the way so far.
    """

    def __init__(
        self,
        controls: Controls | None = None,
        unlike: Callable[[str], str] = lambda _: "",
        drift: Callable[[str], Sequence[Alarm]] = lambda _: (),
        transport: Callable[[str], Transport] = lambda _: Transport(),
    ) -> None:
        self._controls = controls
        self._thresholds = controls.thresholds if controls else {}
        self._paused = controls.paused if controls else False
        self._gaps: dict[str, _Gap] = {}
        self._unlike = unlike
        self._said: dict[str, str] = {}
        self._drift = drift
        self._alarms: dict[str, Sequence[Alarm]] = {}
        self._transport = transport
        self._on_the_way: dict[str, Transport] = {}

    def before(self, decision: Decision, frame: Frame) -> Iterator[Event]:
        """Give what must stand before a decision.

        ``threshold``: category, from, to, and by whom, if said. ``paused``: to. ``gap_start``:
        camera, fault. ``gap_end``: camera, since, frames lost, fault. ``unlike``: camera, from, to.
        ``drift``: camera, category, measure, what, value, usual, since, parts, remedy.
        ``drift_end``: camera, category, measure, what. ``transport``: camera, frames missed,
        doubled and incomplete since the last such event, and the newest of these in words.
        """
        if self._controls is not None:
            yield from self._changes(self._controls)
        camera = decision.camera
        former, said = self._said.get(camera, ""), self._unlike(camera)
        if said != former:
            self._said[camera] = said
            yield "unlike", {"camera": camera, "from": former, "to": said}
        yield from self._moved(camera)
        yield from self._went_wrong(camera)
        gap = self._gaps.get(camera)
        if frame.image is None and gap is None:
            self._gaps[camera] = _Gap(round(frame.time, 6), 1, frame.fault)
            yield "gap_start", {"camera": camera, "fault": frame.fault}
        elif frame.image is None and gap is not None:
            gap.frames += 1
        elif gap is not None:
            del self._gaps[camera]
            details = {"since": gap.since, "frames": gap.frames, "fault": gap.fault}
            yield "gap_end", {"camera": camera, **details}

    def _went_wrong(self, camera: str) -> Iterator[Event]:
        former, now = self._on_the_way.get(camera, Transport()), self._transport(camera)
        if now != former:
            self._on_the_way[camera] = now
            counts = {kind: number - former.counts[kind] for kind, number in now.counts.items()}
            yield "transport", {"camera": camera, **counts, "what": now.last}

    def _moved(self, camera: str) -> Iterator[Event]:
        known, alarms = self._alarms.get(camera, ()), self._drift(camera)
        if alarms is known:
            return
        self._alarms[camera] = alarms
        for alarm in known:
            if alarm not in alarms:
                told = alarm.fields(camera)
                yield "drift_end", {key: told[key] for key in _NAMES_AN_ALARM}
        for alarm in alarms:
            if alarm not in known:
                yield "drift", alarm.fields(camera)

    def _changes(self, controls: Controls) -> Iterator[Event]:
        thresholds, paused = controls.thresholds, controls.paused
        for category, value in thresholds.items():
            former = self._thresholds.get(category)
            if value != former:
                by = controls.changed_by(category)
                said = {"category": category, "from": former, "to": value}
                yield "threshold", {**said, "by": by} if by else said
        if paused != self._paused:
            yield "paused", {"to": paused}
        self._thresholds, self._paused = thresholds, paused
