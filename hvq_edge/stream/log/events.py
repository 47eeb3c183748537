"""The events that the decision log holds between decisions; :class:`EventWatch` lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hvq_edge.stream.controls import Controls
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

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
    """

    def __init__(
        self, controls: Controls | None = None, unlike: Callable[[str], str] = lambda _: ""
    ) -> None:
        self._controls = controls
        self._thresholds = controls.thresholds if controls else {}
        self._paused = controls.paused if controls else False
        self._gaps: dict[str, _Gap] = {}
        self._unlike = unlike
        self._said: dict[str, str] = {}

    def before(self, decision: Decision, frame: Frame) -> Iterator[Event]:
        """Give what must stand before a decision.

        ``threshold``: category, from, to, and by whom, if said. ``paused``: to. ``gap_start``:
        camera, fault. ``gap_end``: camera, since, frames lost, fault. ``unlike``: camera, from, to.
        """
        if self._controls is not None:
            yield from self._changes(self._controls)
        camera = decision.camera
        former, said = self._said.get(camera, ""), self._unlike(camera)
        if said != former:
            self._said[camera] = said
            yield "unlike", {"camera": camera, "from": former, "to": said}
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
