"""Several cameras in one inspector, and what can be changed and read while it runs."""

from __future__ import annotations

import threading
import time

import pytest
from helpers.bright_parts import BrightnessEngine, bundle, sum_of  # noqa: F401  # fixtures
from helpers.graphs import SIDE
from helpers.images import flat
from helpers.looks import ANYTHING
from helpers.patience import PATIENCE_SECONDS
from helpers.sources import ListSource, forever

from hvq_edge.errors import SettingsError
from hvq_edge.stream.capture import camera_lane
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.sources.source import arrived
from hvq_edge.stream.statistics import SinkStatistics
from hvq_edge.verdict.decision_settings import DecisionSettings, KOfN
from hvq_edge.verdict.image_limits import CategoryLimits, ImageLimits


def test_several_cameras_are_judged_in_batches_and_kept_apart(bundle):
    class Recorder(BrightnessEngine):
        def __init__(self) -> None:
            super().__init__(0.003)
            self.batches = []

        def run(self, frames, category=None):
            self.batches.append(len(frames))
            return super().run(frames)

    engine = Recorder()
    levels = {"left": [200, 50, 200] * 8, "right": [50, None, 50] * 8, "left #2": [50] * 5}
    sources = []
    for name, images in levels.items():
        source = ListSource([None if p is None else flat(p, SIDE) for p in images], live=False)
        source.name = name.partition(" ")[0]
        sources.append(source)
    inspector = Inspector(engine, bundle, sources)
    decisions = list(inspector)
    words = {200: "reject", 50: "pass", None: "no_decision"}
    for name, images in levels.items():
        own = [decision for decision in decisions if decision.camera == name]
        assert [decision.frame for decision in own] == list(range(len(images)))
        assert [decision.verdict for decision in own] == [words[level] for level in images]
    assert engine.batches[0] == 3, "made before the first frame"
    assert max(engine.batches) <= 3
    assert any(size > 1 for size in engine.batches[1:])
    statistics = inspector.statistics()
    assert [camera.name for camera in statistics.cameras] == list(levels)
    for camera in statistics.cameras:
        assert sum_of(camera.counts) == camera.counts.frames == len(levels[camera.name])
    left, right, _ = statistics.cameras
    assert (left.gaps, left.connected) == (0, True)
    assert (right.gaps, right.connected) == (8, True)
    assert statistics.stages["total"].count == len(decisions)
    assert statistics.stages["engine"].count == len(decisions) - 8, (
        "lost frames are not asked of it"
    )
    assert list(statistics.stages) == ["waiting", "checks", "engine", "decision", "total"]


def test_an_error_of_one_camera_surfaces_and_the_sums_fit(bundle):
    good = ListSource(forever(), live=True, pause=0.001)
    bad = ListSource([flat(1, SIDE), RuntimeError("driver bug")], live=True, pause=0.01)
    inspector = Inspector(BrightnessEngine(0.002), bundle, [good, bad])
    with pytest.raises(RuntimeError, match="driver bug"):
        list(inspector)
    for camera in inspector.statistics().cameras:
        assert sum_of(camera.counts) == camera.counts.frames
    assert good.closed.is_set()


def test_leaving_in_the_middle_of_a_batch(bundle):
    sources = [ListSource([flat(1, SIDE)] * 9, live=False) for _ in range(4)]
    with Inspector(BrightnessEngine(0.01), bundle, sources) as inspector:
        for number, _ in enumerate(inspector):
            if number == 5:
                break
    counts = inspector.counts
    assert counts.decided == 6
    assert sum_of(counts) == counts.frames


def test_paused_frames_are_counted_and_never_reach_the_engine(bundle):
    engine, controls = BrightnessEngine(), Controls({"bolt": 0.5})
    images = [flat(200, SIDE), flat(200, SIDE), None, flat(200, SIDE)]
    inspector = Inspector(engine, bundle, ListSource(images, live=False), controls=controls)
    reasons = []
    for decision in inspector:
        reasons.append((decision.verdict, decision.reason))
        controls.paused = decision.frame < 2
    assert [verdict for verdict, _ in reasons] == ["reject"] + ["no_decision"] * 2 + ["reject"]
    assert [reason for _, reason in reasons[1:3]] == ["paused", "cable"]
    assert engine.calls == 2


def test_a_threshold_set_while_it_runs_holds_from_the_next_decision_on(bundle):
    source = ListSource([flat(100, SIDE)] * 3, live=False)
    inspector = Inspector(BrightnessEngine(), bundle, source)
    verdicts = []
    for decision in inspector:
        verdicts.append(decision.verdict)
        inspector.controls.set_threshold("bolt", 0.3)
    assert verdicts == ["pass", "reject", "reject"]


def test_statistics_while_it_runs_never_show_more_out_than_in(bundle):
    sources = [ListSource(forever(), live=True, pause=0.0005) for _ in range(2)]
    inspector = Inspector(BrightnessEngine(0.001), bundle, sources, max_frames=150)
    seen = []

    def look() -> None:
        while not seen or seen[-1].counts.frames < 300:
            seen.append(inspector.statistics())

    looker = threading.Thread(target=look)
    looker.start()
    list(inspector)
    looker.join(PATIENCE_SECONDS)
    assert len(seen) > 3
    for statistics in seen:
        for camera in statistics.cameras:
            assert 0 <= camera.counts.frames - sum_of(camera.counts) <= 3
    assert inspector.statistics().seconds >= seen[-1].seconds > 0


def test_sinks_that_tell_of_themselves_are_in_the_statistics(bundle):
    class Told:
        def write(self, decision, frame):
            pass

        def close(self):
            pass

        def statistics(self):
            return SinkStatistics("log", written=3, dropped=0, waiting=1)

    class Silent:
        write, close = Told.write, Told.close

    source = ListSource([flat(1, SIDE)], live=False)
    inspector = Inspector(BrightnessEngine(), bundle, source, sinks=[Told(), Silent()])
    list(inspector)
    assert [sink.name for sink in inspector.statistics().sinks] == ["log"]


def test_k_of_n_needs_every_frame_and_a_camera_is_needed(bundle):
    rule = DecisionSettings(k_of_n=KOfN(k=1, n=2))
    live = ListSource([], live=True)
    with pytest.raises(SettingsError, match="dropped"):
        Inspector(BrightnessEngine(), bundle, live, rule=rule)
    with pytest.raises(SettingsError, match="no camera"):
        Inspector(BrightnessEngine(), bundle, [])
    images = [flat(200, SIDE), None, flat(50, SIDE), flat(50, SIDE)]
    source = ListSource(images, live=False)
    decisions = list(Inspector(BrightnessEngine(), bundle, source, rule=rule))
    assert [d.part_verdict.verdict for d in decisions if d.part_verdict] == ["reject", "pass"]


def test_limits_of_the_category_hold_after_the_engine(bundle):
    wide = ImageLimits(brightness_low=0, brightness_high=255, contrast_low=0, sharpness_low=0)
    narrow = wide.model_copy(update={"brightness_high": 150.0})
    manifest = bundle.manifest.model_copy(
        update={
            "image_limits": wide,
            "category_limits": {"bolt": CategoryLimits(image=narrow, usual=ANYTHING)},
        }
    )
    source = ListSource([flat(100, SIDE), flat(200, SIDE)], live=False)
    limited = type(bundle)(bundle.path, manifest)
    first, second = Inspector(BrightnessEngine(), limited, source)
    assert first.verdict == "pass"
    assert (second.verdict, second.category, second.score) == ("no_decision", "bolt", None)
    assert second.reason == "too bright: brightness 200.0, at most 150.0"


def test_a_live_camera_that_gives_nothing_is_not_connected(bundle, monkeypatch):
    class Hanging(ListSource):
        def __iter__(self):
            yield arrived(0, flat(1, SIDE))
            self.closed.wait(20)

    with Inspector(BrightnessEngine(), bundle, Hanging([], live=True)) as inspector:
        decisions = iter(inspector)
        next(decisions)
        assert inspector.statistics().cameras[0].connected
        monkeypatch.setattr(camera_lane, "SILENT_SECONDS", 0.05)
        time.sleep(0.1)
        camera = inspector.statistics().cameras[0]
    assert not camera.connected
    assert "has given nothing for" in camera.fault
