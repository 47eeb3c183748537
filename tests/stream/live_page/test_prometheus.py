"""What Prometheus reads."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hvq_edge.stream.latency import LatencyHistogram
from hvq_edge.stream.live_page.prometheus_metrics import render
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.statistics import CameraStatistics, Counts, SinkStatistics, Statistics


def test_metrics_are_in_the_format_and_their_sums_fit():
    latency = LatencyHistogram()
    for milliseconds in range(1, 101):
        latency.add(float(milliseconds))
    camera = CameraStatistics(
        'l"eft',
        Counts(10, 5, 2, 1, 2),
        connected=False,
        gaps=3,
        unlike="softer",
        moved=2,
        unread_parts=4,
        transport=Transport(missed=7, incomplete=1),
    )
    sink = SinkStatistics("mqtt", 4, 3, 2, "the broker is gone")
    text = render(Statistics(12.5, (camera,), (sink,), {"engine": latency})).decode()
    samples = {
        (sample.name, *dict(sorted(sample.labels.items())).values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples[("hvq_uptime_seconds",)] == 12.5
    verdicts = ("pass", "reject", "no_decision")
    decided = [samples[("hvq_decisions_total", 'l"eft', verdict)] for verdict in verdicts]
    assert decided == [5, 2, 1]
    dropped = samples[("hvq_frames_dropped_total", 'l"eft')]
    assert samples[("hvq_frames_total", 'l"eft')] == sum(decided) + dropped
    assert samples[("hvq_camera_up", 'l"eft')] == 0
    assert samples[("hvq_camera_gaps_total", 'l"eft')] == 3
    assert samples[("hvq_camera_unlike", 'l"eft')] == 1
    assert samples[("hvq_camera_drift", 'l"eft')] == 2
    assert samples[("hvq_parts_unread_total", 'l"eft')] == 4
    faults = {
        kind: samples[("hvq_camera_transport_faults_total", 'l"eft', kind)]
        for kind in ("missed", "doubled", "incomplete")
    }
    assert faults == {"missed": 7, "doubled": 0, "incomplete": 1}
    assert samples[("hvq_sink_written_total", "mqtt")] == 4
    assert samples[("hvq_sink_dropped_total", "mqtt")] == 3
    assert samples[("hvq_sink_waiting", "mqtt")] == 2
    assert samples[("hvq_sink_up", "mqtt")] == 0
    assert samples[("hvq_stage_latency_seconds", "0.95", "engine")] == pytest.approx(
        0.095, rel=0.02
    )
    assert samples[("hvq_stage_frames_total", "engine")] == 100
    assert "# TYPE hvq_frames_total counter" in text or "# TYPE hvq_frames counter" in text


def test_metrics_without_a_frame_are_there_too():
    empty = CameraStatistics("a", Counts(), connected=True)
    text = render(Statistics(0.0, (empty,), (), {"engine": LatencyHistogram()})).decode()
    assert 'hvq_frames_total{camera="a"} 0.0' in text
    assert 'hvq_camera_unlike{camera="a"} 0.0' in text
    assert "quantile" not in text


def test_metrics_say_what_inspects():
    running = {"version": "1.2", "bundle_sha256": "ab" * 32, "precision": "int8", "backend": "x"}
    text = render(Statistics(0.0, (), ()), running).decode()
    (info,) = [line for line in text.splitlines() if line.startswith("hvq_inspector_info{")]
    assert all(f'{name}="{value}"' in info for name, value in running.items())
    assert info.endswith(" 1.0")
