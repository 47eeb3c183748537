"""What an inspector says of itself, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from hvq_edge.stream.live_page.connections import FAULTS, LIMITS, Connections
from hvq_edge.stream.live_page.judge import ImageJudge
from hvq_edge.stream.statistics import CameraStatistics, SinkStatistics, Statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of :func:`render`."""

QUANTILES = (0.5, 0.95, 0.99)


def render(statistics: Statistics, running: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """Return a snapshot in Prometheus's text format, :data:`CONTENT_TYPE`.

    Args:
        statistics: of the inspector.
        running: which program and bundle it is, for a fleet that should be alike.
    """
    registry = CollectorRegistry()
    registry.register(_Snapshot(statistics, running))
    return generate_latest(registry)


def render_page(connections: Connections) -> bytes:
    """Return what the live page's own server has to say, in the same format."""
    registry = CollectorRegistry()
    registry.register(_Page(connections))
    return generate_latest(registry)


def render_judge(judge: ImageJudge) -> bytes:
    """Return what became of the images that requests brought, in the same format."""
    registry = CollectorRegistry()
    registry.register(_Judge(judge))
    return generate_latest(registry)


class _Judge(Collector):
    def __init__(self, judge: ImageJudge) -> None:
        self._judge = judge

    def collect(self) -> Iterator[Metric]:
        counts, work = self._judge.snapshot()
        requests = CounterMetricFamily(
            "hvq_predict_requests",
            "Images that requests brought, by verdict or by why there is none.",
            labels=["outcome"],
        )
        for outcome, number in counts.items():
            requests.add_metric([outcome], number)
        yield requests
        yield SummaryMetricFamily(
            "hvq_predict_seconds",
            "Seconds of work on such images, turns of a line included.",
            count_value=work.images,
            sum_value=work.seconds,
        )


class _Page(Collector):
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        closed = CounterMetricFamily(
            "hvq_page_connections_closed",
            "Connections to the live page that a limit ended: place, time or size.",
            labels=["limit"],
        )
        for limit in LIMITS:
            closed.add_metric([limit], self._connections.closed[limit])
        faults = CounterMetricFamily(
            "hvq_page_faults",
            "Requests that are no HTTP, and faults of the live page's server.",
            labels=["kind"],
        )
        for kind in FAULTS:
            faults.add_metric([kind], self._connections.faults[kind])
        yield from (closed, faults)


class _Snapshot(Collector):
    """All metrics of one snapshot, so that their sums fit."""

    def __init__(self, statistics: Statistics, running: Mapping[str, str]) -> None:
        self._statistics = statistics
        self._running = running

    def collect(self) -> Iterator[Metric]:
        if self._running:
            yield InfoMetricFamily("hvq_inspector", "What inspects.", value=dict(self._running))
        uptime = GaugeMetricFamily("hvq_uptime_seconds", "Seconds since the inspector started.")
        uptime.add_metric([], self._statistics.seconds)
        yield uptime
        yield from _cameras(self._statistics.cameras)
        yield from _sinks(self._statistics.sinks)
        yield from _stages(self._statistics)


def _cameras(cameras: tuple[CameraStatistics, ...]) -> Iterator[Metric]:
    frames = CounterMetricFamily(
        "hvq_frames", "Frames the camera gave, lost ones included.", labels=["camera"]
    )
    decisions = CounterMetricFamily(
        "hvq_decisions", "Decisions by verdict.", labels=["camera", "verdict"]
    )
    dropped = CounterMetricFamily(
        "hvq_frames_dropped", "Frames that were not decided.", labels=["camera"]
    )
    up = GaugeMetricFamily("hvq_camera_up", "1 while the camera gives images.", labels=["camera"])
    gaps = CounterMetricFamily(
        "hvq_camera_gaps", "How often the camera was lost.", labels=["camera"]
    )
    unlike = GaugeMetricFamily(
        "hvq_camera_unlike",
        "1 while the camera's images are unlike the training images.",
        labels=["camera"],
    )
    drift = GaugeMetricFamily(
        "hvq_camera_drift",
        "Measures of good parts that have drifted and are not acknowledged.",
        labels=["camera"],
    )
    unread = CounterMetricFamily(
        "hvq_parts_unread",
        "Images whose part should have a serial number, and none was found.",
        labels=["camera"],
    )
    transport = CounterMetricFamily(
        "hvq_camera_transport_faults",
        "Frames that never came from the camera (missed), came with an old number (doubled) or "
        "in parts (incomplete).",
        labels=["camera", "kind"],
    )
    for camera in cameras:
        counts, name = camera.counts, [camera.name]
        frames.add_metric(name, counts.frames)
        for verdict, number in (
            ("pass", counts.passed),
            ("reject", counts.rejected),
            ("no_decision", counts.no_decision),
        ):
            decisions.add_metric([camera.name, verdict], number)
        dropped.add_metric(name, counts.dropped)
        up.add_metric(name, float(camera.connected))
        gaps.add_metric(name, camera.gaps)
        unlike.add_metric(name, float(bool(camera.unlike)))
        drift.add_metric(name, camera.moved)
        unread.add_metric(name, camera.unread_parts)
        for kind, number in camera.transport.counts.items():
            transport.add_metric([camera.name, kind], number)
    yield from (frames, decisions, dropped, up, gaps, unlike, drift, unread, transport)


def _sinks(sinks: tuple[SinkStatistics, ...]) -> Iterator[Metric]:
    written = CounterMetricFamily(
        "hvq_sink_written", "Decisions taken to their end.", labels=["sink"]
    )
    dropped = CounterMetricFamily(
        "hvq_sink_dropped", "Decisions the sink never got.", labels=["sink"]
    )
    waiting = GaugeMetricFamily(
        "hvq_sink_waiting", "Decisions in queue or log for it.", labels=["sink"]
    )
    up = GaugeMetricFamily("hvq_sink_up", "1 while the sink works.", labels=["sink"])
    for sink in sinks:
        written.add_metric([sink.name], sink.written)
        dropped.add_metric([sink.name], sink.dropped)
        waiting.add_metric([sink.name], sink.waiting)
        up.add_metric([sink.name], float(not sink.fault))
    yield from (written, dropped, waiting, up)


def _stages(statistics: Statistics) -> Iterator[Metric]:
    latency = GaugeMetricFamily(
        "hvq_stage_latency_seconds",
        "Latency of a stage since the start, exact to 1 %.",
        labels=["stage", "quantile"],
    )
    count = CounterMetricFamily("hvq_stage_frames", "Frames through a stage.", labels=["stage"])
    for stage, histogram in statistics.stages.items():
        count.add_metric([stage], histogram.count)
        for quantile in QUANTILES:
            milliseconds = histogram.percentile(quantile * 100.0)
            if milliseconds is not None:
                latency.add_metric([stage, str(quantile)], milliseconds / 1000.0)
    yield from (latency, count)
