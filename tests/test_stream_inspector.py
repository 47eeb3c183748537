"""The inspector: every frame is decided or counted, whatever the pace, the policy and the end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from conftest import make_texture, write_png
from graphs import SIDE, save_bundle
from test_stream_sources import flat

import hvq_edge.stream
from hvq_edge.bundle import CategoryLimits, PictureLimits, Threshold, open_bundle, write_manifest
from hvq_edge.errors import BundleError, InputError, MissingCapability, SettingsError
from hvq_edge.good_scores import table_of
from hvq_edge.runtime.engine import EngineInfo
from hvq_edge.stream import camera_lane
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.decision_settings import DecisionSettings, KOfN
from hvq_edge.stream.frame_checks import FROZEN_AFTER
from hvq_edge.stream.frame_queue import FrameQueue
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.sources.source import Frame, arrived, lost
from hvq_edge.stream.statistics import SinkStatistics


class BrightnessEngine:
    """Score: mean brightness of the brightest 16x16 block, 0 to 1. Takes a while if asked to."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls = 0
        self.info = EngineInfo("fake", "fp32", "test", SIDE, ("bolt",), "one")

    def run(self, frames, category=None):
        self.calls += 1
        time.sleep(self.seconds)
        blocks = frames.reshape(len(frames), SIDE // 16, 16, SIDE // 16, 16, 3)
        heat = (blocks.mean((2, 4, 5)) / 255).astype(np.float32)
        zeros = np.zeros(len(frames), np.int32)
        margin = np.full(len(frames), np.inf, np.float32)
        return {
            "score": heat.max((1, 2)),
            "map": heat,
            "codes": zeros,
            "category": zeros,
            "margin": margin,
        }

    def close(self):
        pass


class ListSource:
    """Pictures from memory at a pace; ``None`` is a lost frame, an exception is raised."""

    frames_per_second = None
    name = "a list"

    def __init__(self, pictures, *, live: bool, pause: float = 0.0) -> None:
        self.pictures = pictures
        self.live = live
        self.pause = pause
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for index, picture in enumerate(self.pictures):
            if self.closed.is_set():
                return
            time.sleep(self.pause)
            if isinstance(picture, BaseException):
                raise picture
            yield lost(index, "cable") if picture is None else arrived(index, picture)

    def close(self) -> None:
        self.closed.set()


def forever():
    while True:
        yield flat(10, SIDE)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    saved = save_bundle(tmp_path_factory.mktemp("inspector") / "bundle")
    half = Threshold(value=0.5, pictures=3, rule="largest of held-out good pictures")
    manifest = saved.manifest.model_copy(update={"thresholds": {"fp32": {"bolt": half}}})
    write_manifest(saved.path, manifest)
    return open_bundle(saved.path)


def sum_of(counts) -> int:
    return counts.passed + counts.rejected + counts.no_decision + counts.dropped


def test_all_decides_every_frame_in_order_with_a_slow_engine(bundle):
    pictures = [flat(200 if i % 3 == 0 else 50, SIDE) for i in range(30)]
    inspector = Inspector(BrightnessEngine(0.003), bundle, ListSource(pictures, live=False))
    decisions = list(inspector)
    assert [decision.frame for decision in decisions] == list(range(30))
    expected = ["reject" if i % 3 == 0 else "pass" for i in range(30)]
    assert [decision.verdict for decision in decisions] == expected
    assert decisions[0].score == pytest.approx(200 / 255)
    assert decisions[0].map.shape == (SIDE // 16, SIDE // 16)
    counts = inspector.counts
    assert (counts.frames, counts.dropped) == (30, 0)
    assert (counts.passed, counts.rejected) == (20, 10)
    assert sum_of(counts) == counts.frames


def test_scores_have_p_values_whatever_threshold_is_in_force(bundle):
    """Good parts scored 0.1, 0.2, 0.3: the first frame is above all of them, the last below."""
    good = table_of([0.1, 0.2, 0.3])
    known = bundle.manifest.thresholds["fp32"]["bolt"].model_copy(update={"good_scores": good})
    manifest = bundle.manifest.model_copy(update={"thresholds": {"fp32": {"bolt": known}}})
    pictures = [flat(200, SIDE), None, flat(int(0.15 * 255), SIDE), flat(0, SIDE)]
    for threshold in (0.5, 0.9):
        source = ListSource(pictures, live=False)
        controls = Controls({"bolt": threshold})
        opened = type(bundle)(bundle.path, manifest)
        decisions = list(Inspector(BrightnessEngine(), opened, source, controls=controls))
        assert [decision.p_value for decision in decisions] == [0.25, None, 0.75, 1.0]
    (first, *_) = Inspector(BrightnessEngine(), bundle, ListSource(pictures, live=False))
    assert first.p_value is None, "a bundle that does not know what good parts score"


def test_latest_drops_old_frames_and_counts_them(bundle):
    engine = BrightnessEngine(0.03)
    source = ListSource([flat(i, SIDE) for i in range(100)], live=True, pause=0.002)
    inspector = Inspector(engine, bundle, source)
    decisions = list(inspector)
    indices = [decision.frame for decision in decisions]
    assert indices == sorted(set(indices))
    assert indices[-1] == 99, "the newest frame wins"
    counts = inspector.counts
    assert counts.frames == 100
    assert counts.dropped > 30
    assert counts.decided == len(decisions) == engine.calls
    assert sum_of(counts) == counts.frames
    # A frame waits for the one before it at most: lag cannot grow.
    assert inspector.latency.percentile(100) < 1000


def test_policy_can_be_chosen(bundle):
    source = ListSource([flat(i, SIDE) for i in range(20)], live=True)
    inspector = Inspector(BrightnessEngine(0.002), bundle, source, policy="all")
    assert len(list(inspector)) == 20
    with pytest.raises(SettingsError, match="newest"):
        Inspector(BrightnessEngine(), bundle, source, policy="newest")


def test_lost_frames_lead_to_no_decision_and_never_reach_the_engine(bundle):
    engine = BrightnessEngine()
    pictures = [None, flat(200, SIDE), None, None, flat(50, SIDE), flat(9, 1)]
    inspector = Inspector(engine, bundle, ListSource(pictures, live=False))
    verdicts = [decision.verdict for decision in inspector]
    assert verdicts == ["no_decision", "reject", "no_decision", "no_decision", "pass", "pass"]
    assert engine.calls == 3
    assert inspector.counts.no_decision == 3


def test_picture_of_no_usable_kind_leads_to_no_decision(bundle):
    grey = np.zeros((SIDE, SIDE), np.uint8)
    (decision,) = Inspector(BrightnessEngine(), bundle, ListSource([grey], live=False))
    assert decision.verdict == "no_decision"
    assert "uint8 [height, width, 3]" in decision.reason


def test_frozen_camera_leads_to_no_decision(bundle):
    pictures = [flat(200, SIDE)] * (FROZEN_AFTER + 5) + [make_texture(1, height=SIDE, width=SIDE)]
    source = ListSource(pictures, live=True)
    verdicts = [d.verdict for d in Inspector(BrightnessEngine(), bundle, source, policy="all")]
    assert verdicts[: FROZEN_AFTER - 1] == ["reject"] * (FROZEN_AFTER - 1)
    assert verdicts[FROZEN_AFTER - 1 : -1] == ["no_decision"] * 6
    assert verdicts[-1] != "no_decision"


def test_picture_limits_of_the_bundle_are_used(bundle):
    limits = PictureLimits(brightness_low=40, brightness_high=220, contrast_low=0, sharpness_low=0)
    manifest = bundle.manifest.model_copy(update={"picture_limits": limits})
    limited = type(bundle)(bundle.path, manifest)
    source = ListSource([flat(0, SIDE), flat(100, SIDE), flat(255, SIDE)], live=False)
    reasons = [decision.reason for decision in Inspector(BrightnessEngine(), limited, source)]
    assert reasons[0].startswith("black")
    assert reasons[1].startswith("score")
    assert reasons[2].startswith("saturated")


def test_unknown_category_index_leads_to_no_decision(bundle):
    """Also below 0, where Python would quietly take the last name."""
    engine = BrightnessEngine()
    run = engine.run

    def astray(frames, category=None):
        return {**run(frames), "category": np.array([-1], np.int32)}

    engine.run = astray
    (decision,) = Inspector(engine, bundle, ListSource([flat(200, SIDE)], live=False))
    assert decision.verdict == "no_decision"
    assert "unknown category -1" in decision.reason


def test_a_part_that_is_none_of_the_categories_leads_to_no_decision(bundle):
    engine = BrightnessEngine()
    run = engine.run
    engine.run = lambda frames: {**run(frames), "margin": np.array([-0.25], np.float32)}
    (decision,) = Inspector(engine, bundle, ListSource([flat(0, SIDE)], live=False))
    assert decision.verdict == "no_decision"
    assert decision.reason.startswith("unknown part")
    assert decision.score is None


def test_an_error_in_the_capture_thread_surfaces_after_the_frames_before_it(bundle):
    source = ListSource([flat(1, SIDE), flat(2, SIDE), RuntimeError("driver bug")], live=False)
    inspector = Inspector(BrightnessEngine(0.01), bundle, source)
    seen = []
    with pytest.raises(RuntimeError, match="driver bug"):
        seen.extend(decision.frame for decision in inspector)
    assert inspector.counts.decided == 2
    assert sum_of(inspector.counts) == inspector.counts.frames


def test_an_error_in_the_engine_surfaces_and_the_frame_is_counted(bundle):
    engine = BrightnessEngine()

    def broken(frames, category=None):
        raise MemoryError

    engine.run = broken
    inspector = Inspector(engine, bundle, ListSource(forever(), live=False))
    with pytest.raises(MemoryError):
        list(inspector)
    assert inspector.counts.decided == 0
    assert inspector.counts.dropped >= 1
    assert sum_of(inspector.counts) == inspector.counts.frames
    assert not any(t.name.startswith("capture") for t in threading.enumerate())


@pytest.mark.parametrize("policy", ["latest", "all"])
def test_stop_drains_what_was_captured(bundle, policy):
    source = ListSource(forever(), live=True, pause=0.001)
    inspector = Inspector(BrightnessEngine(0.01), bundle, source, policy=policy)
    decisions = []
    for decision in inspector:
        decisions.append(decision)
        if len(decisions) == 5:
            inspector.stop()
    counts = inspector.counts
    assert 5 <= len(decisions) == counts.decided <= 9
    assert sum_of(counts) == counts.frames
    if policy == "all":
        assert counts.dropped == 0, "what was captured is decided"
    assert source.closed.is_set()


def test_leaving_the_loop_ends_the_capture_thread(bundle):
    source = ListSource(forever(), live=False)
    with Inspector(BrightnessEngine(), bundle, source) as inspector:
        for decision in inspector:
            if decision.frame == 3:
                break
    assert source.closed.is_set()
    assert not any(t.name.startswith("capture") for t in threading.enumerate())
    assert sum_of(inspector.counts) == inspector.counts.frames
    assert inspector.counts.decided == 4


def test_ctrl_c_ends_at_once_and_the_sum_fits(bundle):
    source = ListSource(forever(), live=True, pause=0.001)
    inspector = Inspector(BrightnessEngine(0.02), bundle, source)

    def interrupt_it() -> None:
        for decision in inspector:
            if decision.frame > 5:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_it()
    assert sum_of(inspector.counts) == inspector.counts.frames
    assert not any(t.name.startswith("capture") for t in threading.enumerate())


def test_a_camera_that_hangs_does_not_hold_up_a_stop(bundle):
    class Hanging(ListSource):
        def __iter__(self):
            yield arrived(0, flat(1, SIDE))
            threading.Event().wait(20)

    inspector = Inspector(BrightnessEngine(), bundle, Hanging([], live=True))
    start = time.monotonic()
    for _ in inspector:
        inspector.stop()
    assert time.monotonic() - start < 3
    assert inspector.counts.decided == 1


def test_max_frames(bundle):
    inspector = Inspector(
        BrightnessEngine(), bundle, ListSource(forever(), live=False), max_frames=7
    )
    assert len(list(inspector)) == 7
    assert inspector.counts.frames == 7


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
    for name, pictures in levels.items():
        source = ListSource([None if p is None else flat(p, SIDE) for p in pictures], live=False)
        source.name = name.partition(" ")[0]
        sources.append(source)
    inspector = Inspector(engine, bundle, sources)
    decisions = list(inspector)
    words = {200: "reject", 50: "pass", None: "no_decision"}
    for name, pictures in levels.items():
        own = [decision for decision in decisions if decision.camera == name]
        assert [decision.frame for decision in own] == list(range(len(pictures)))
        assert [decision.verdict for decision in own] == [words[level] for level in pictures]
    assert engine.batches[0] == 3, "made before the first frame"
    assert max(engine.batches) <= 3
    assert any(size > 1 for size in engine.batches[1:])
    statistics = inspector.statistics()
    assert [camera.name for camera in statistics.cameras] == list(levels)
    for camera in statistics.cameras:
        assert sum_of(camera.counts) == camera.counts.frames == len(levels[camera.name])
    left, right, _ = statistics.cameras
    assert (left.gaps, left.connected) == (0, True)
    assert (right.gaps, right.connected, right.latest_gaps[0].frames) == (8, True, 1)
    assert right.latest_gaps[0].end is not None
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
    pictures = [flat(200, SIDE), flat(200, SIDE), None, flat(200, SIDE)]
    inspector = Inspector(engine, bundle, ListSource(pictures, live=False), controls=controls)
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
    looker.join(10)
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
    pictures = [flat(200, SIDE), None, flat(50, SIDE), flat(50, SIDE)]
    source = ListSource(pictures, live=False)
    decisions = list(Inspector(BrightnessEngine(), bundle, source, rule=rule))
    assert [d.part.verdict for d in decisions if d.part] == ["reject", "pass"]


def test_limits_of_the_category_hold_after_the_engine(bundle):
    wide = PictureLimits(brightness_low=0, brightness_high=255, contrast_low=0, sharpness_low=0)
    narrow = wide.model_copy(update={"brightness_high": 150.0})
    manifest = bundle.manifest.model_copy(
        update={"picture_limits": wide, "category_limits": {"bolt": CategoryLimits(picture=narrow)}}
    )
    source = ListSource([flat(100, SIDE), flat(200, SIDE)], live=False)
    limited = type(bundle)(bundle.path, manifest)
    first, second = Inspector(BrightnessEngine(), limited, source)
    assert first.verdict == "pass"
    assert (second.verdict, second.category, second.score) == ("no_decision", "bolt", None)
    assert second.reason == "too bright: brightness 200.0, at most 150.0"


def test_a_live_camera_that_gives_nothing_is_not_connected(bundle, monkeypatch):
    monkeypatch.setattr(camera_lane, "SILENT_SECONDS", 0.05)

    class Hanging(ListSource):
        def __iter__(self):
            yield arrived(0, flat(1, SIDE))
            self.closed.wait(20)

    with Inspector(BrightnessEngine(), bundle, Hanging([], live=True)) as inspector:
        decisions = iter(inspector)
        next(decisions)
        assert inspector.statistics().cameras[0].connected
        time.sleep(0.1)
        camera = inspector.statistics().cameras[0]
    assert not camera.connected
    assert "has given nothing for" in camera.fault


def test_queue_all_waits_for_room():
    queue = FrameQueue("all")
    queue.put(arrived(0, flat(1)))
    second = threading.Thread(target=queue.put, args=(arrived(1, flat(1)),))
    second.start()
    time.sleep(0.05)
    assert second.is_alive(), "back-pressure"
    assert queue.get(1).index == 0
    second.join(2)
    assert queue.get(1).index == 1
    assert queue.get(0.01) is None
    assert not queue.exhausted
    queue.end()
    assert queue.exhausted
    assert (queue.received, queue.taken, queue.dropped) == (2, 2, 0)


def test_abandoned_queue_counts_what_waits_and_lets_go_of_who_waits():
    queue = FrameQueue("all")
    queue.put(arrived(0, flat(1)))
    second = threading.Thread(target=queue.put, args=(arrived(1, flat(1)),))
    second.start()
    time.sleep(0.05)
    queue.abandon()
    second.join(2)
    assert not second.is_alive()
    assert (queue.received, queue.taken, queue.dropped) == (2, 0, 2)


@pytest.fixture
def pictures(tmp_path):
    for number, level in enumerate([40, 230, 60]):
        write_png(tmp_path / "in" / f"{number}.png", flat(level))
    return tmp_path / "in"


def test_inspect_is_the_whole_path(bundle, pictures):
    decisions = list(hvq_edge.stream.inspect(bundle.path, pictures, backend="onnxruntime"))
    assert [decision.verdict for decision in decisions] == ["pass", "reject", "pass"]
    assert [decision.category for decision in decisions] == ["bolt"] * 3
    assert decisions[1].score == pytest.approx(230 / 255, abs=1e-3)
    assert all(decision.latency_ms > 0 for decision in decisions)


def test_inspect_takes_several_cameras(bundle, pictures, tmp_path):
    write_png(tmp_path / "b" / "1.png", flat(250))
    decisions = list(hvq_edge.stream.inspect(bundle, [pictures, tmp_path / "b"]))
    found = {(decision.camera, decision.frame): decision.verdict for decision in decisions}
    assert len(found) == 4
    assert found[str(pictures), 1] == found[str(tmp_path / "b"), 0] == "reject"


def test_inspect_fails_at_once_and_not_at_the_first_frame(bundle, pictures, tmp_path):
    with pytest.raises(BundleError):
        hvq_edge.stream.inspect(tmp_path / "none", pictures)
    with pytest.raises(InputError):
        hvq_edge.stream.inspect(bundle, tmp_path / "none.mp4")
    with pytest.raises(MissingCapability):
        hvq_edge.stream.inspect(bundle, 63)


def test_a_graph_that_must_be_told_the_category(tmp_path, pictures):
    bundle = save_bundle(tmp_path / "input", "input")
    with pytest.raises(InputError, match="must be told") as raised:
        hvq_edge.stream.inspect(bundle, pictures)
    assert "washer plate" in raised.value.next_step
    decisions = list(
        hvq_edge.stream.inspect(bundle, pictures, category="nut", backend="onnxruntime")
    )
    assert {decision.category for decision in decisions} == {"nut"}
    assert {decision.verdict for decision in decisions} == {"no_decision"}  # it has no threshold
