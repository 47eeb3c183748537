"""Snapshots of the inspector as messages."""

from __future__ import annotations

from dataclasses import asdict

from hvq_edge.stream.latency import LatencyHistogram
from hvq_edge.stream.live_page.health import Health
from hvq_edge.stream.live_page.messages import (
    CameraMessage,
    CategoryMessage,
    CountsMessage,
    DecisionMessage,
    HealthMessage,
    SinkMessage,
    StageMessage,
    StateMessage,
    ThresholdMessage,
)
from hvq_edge.stream.live_page.recent import Record
from hvq_edge.stream.live_page.watched import Watched
from hvq_edge.stream.statistics import Counts, Statistics


def state_of(
    watched: Watched,
    statistics: Statistics,
    health: Health,
    *,
    run: str,
    may_change: bool,
    images_per_second: float,
) -> StateMessage:
    """Return all that the page shows but images and decisions."""
    rates = watched.page.rates()
    cameras = []
    for camera in statistics.cameras:
        shot = watched.page.newest(camera.name)
        cameras.append(
            CameraMessage(
                name=camera.name,
                connected=camera.connected,
                fault=camera.fault,
                gaps=camera.gaps,
                counts=_counts(camera.counts),
                frames_per_second=rates.get(camera.name, 0.0),
                newest=decision_of(shot.record) if shot else None,
            )
        )
    choice = watched.category
    return StateMessage(
        run=run,
        title=watched.title,
        seconds=statistics.seconds,
        sequence=watched.page.sequence,
        paused=watched.controls.paused,
        image_interval_ms=1000.0 / images_per_second,
        may_change=may_change,
        can_save=watched.save_threshold is not None,
        counts=_counts(statistics.counts),
        cameras=tuple(cameras),
        sinks=tuple(SinkMessage(**asdict(sink)) for sink in statistics.sinks),
        stages=tuple(_stage(name, times) for name, times in statistics.stages.items()),
        thresholds=tuple(
            ThresholdMessage(category=category, value=value)
            for category, value in watched.controls.thresholds.items()
        ),
        category=CategoryMessage(names=choice.names, current=choice.current()) if choice else None,
        health=health_of(health),
    )


def decision_of(record: Record) -> DecisionMessage:
    """Return a decision's message."""
    return DecisionMessage(**asdict(record))


def health_of(health: Health, *, reasons: bool = True) -> HealthMessage:
    """Return a health message; without reasons for those who may not read the page."""
    return HealthMessage(
        working=health.working,
        failing=health.failing if reasons else (),
        degraded=health.degraded if reasons else (),
    )


def _counts(counts: Counts) -> CountsMessage:
    return CountsMessage(**asdict(counts))


def _stage(name: str, times: LatencyHistogram) -> StageMessage:
    return StageMessage(
        name=name,
        frames=times.count,
        p50=times.percentile(50),
        p95=times.percentile(95),
        p99=times.percentile(99),
    )
