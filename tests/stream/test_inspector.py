"""The inspector: every frame is decided or counted, whatever the pace, the policy and the end."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine, bundle, sum_of  # noqa: F401  # fixtures
from helpers.graphs import SIDE
from helpers.images import flat, make_texture
from helpers.patience import PATIENCE_SECONDS, Stopwatch
from helpers.sources import AlwaysTrigger, ListSource, forever

from hvq_edge.errors import ServerFailed, SettingsError
from hvq_edge.stream.capture.prepared import Preparation, PreparedSource
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.inspector import NOT_JUDGED, Inspector
from hvq_edge.stream.live_page.health import HealthCheck
from hvq_edge.stream.sources import trigger as trigger_module
from hvq_edge.stream.sources.source import arrived
from hvq_edge.stream.sources.trigger import TriggeredSource
from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.image_checks import FROZEN_AFTER
from hvq_edge.verdict.image_limits import ImageLimits


def test_all_decides_every_frame_in_order_with_a_slow_engine(bundle):
    images = [flat(200 if i % 3 == 0 else 50, SIDE) for i in range(30)]
    inspector = Inspector(BrightnessEngine(0.003), bundle, ListSource(images, live=False))
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
    known = bundle.manifest.thresholds["fp32"]["bolt"].model_copy(
        update={"calibration_scores": good}
    )
    manifest = bundle.manifest.model_copy(update={"thresholds": {"fp32": {"bolt": known}}})
    images = [flat(200, SIDE), None, flat(int(0.15 * 255), SIDE), flat(0, SIDE)]
    for threshold in (0.5, 0.9):
        source = ListSource(images, live=False)
        controls = Controls({"bolt": threshold})
        opened = type(bundle)(bundle.path, manifest)
        decisions = list(Inspector(BrightnessEngine(), opened, source, controls=controls))
        assert [decision.p_value for decision in decisions] == [0.25, None, 0.75, 1.0]


def test_latest_drops_old_frames_and_counts_them(bundle):
    engine = BrightnessEngine(0.03)
    source = ListSource([flat(i, SIDE) for i in range(100)], live=True, pause=0.002)
    inspector = Inspector(engine, bundle, source)
    with Stopwatch() as stopwatch:
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
    assert inspector.latency.percentile(100) / stopwatch.slowness < 1000


def test_policy_can_be_chosen(bundle):
    source = ListSource([flat(i, SIDE) for i in range(20)], live=True)
    inspector = Inspector(BrightnessEngine(0.002), bundle, source, policy="all")
    assert len(list(inspector)) == 20
    with pytest.raises(SettingsError, match="newest"):
        Inspector(BrightnessEngine(), bundle, source, policy="newest")


def test_lost_frames_lead_to_no_decision_and_never_reach_the_engine(bundle):
    engine = BrightnessEngine()
    images = [None, flat(200, SIDE), None, None, flat(50, SIDE), flat(9, 1)]
    inspector = Inspector(engine, bundle, ListSource(images, live=False))
    verdicts = [decision.verdict for decision in inspector]
    assert verdicts == ["no_decision", "reject", "no_decision", "no_decision", "pass", "pass"]
    assert engine.calls == 3
    assert inspector.counts.no_decision == 3


def test_image_of_no_usable_kind_leads_to_no_decision(bundle):
    grey = np.zeros((SIDE, SIDE), np.uint8)
    (decision,) = Inspector(BrightnessEngine(), bundle, ListSource([grey], live=False))
    assert decision.verdict == "no_decision"
    assert "uint8 [height, width, 3]" in decision.reason


def test_frozen_camera_leads_to_no_decision(bundle):
    images = [flat(200, SIDE)] * (FROZEN_AFTER + 5) + [make_texture(1, height=SIDE, width=SIDE)]
    source = ListSource(images, live=True)
    verdicts = [d.verdict for d in Inspector(BrightnessEngine(), bundle, source, policy="all")]
    assert verdicts[: FROZEN_AFTER - 1] == ["reject"] * (FROZEN_AFTER - 1)
    assert verdicts[FROZEN_AFTER - 1 : -1] == ["no_decision"] * 6
    assert verdicts[-1] != "no_decision"


@pytest.mark.parametrize("live", [True, False])
def test_behind_a_trigger_a_camera_may_freeze_and_a_file_may_repeat(bundle, monkeypatch, live):
    monkeypatch.setattr(trigger_module, "FRESH_SECONDS", PATIENCE_SECONDS)
    camera = ListSource(forever(), live=live, pause=0.001)
    source = PreparedSource(TriggeredSource(camera, AlwaysTrigger()), Preparation())
    found = list(Inspector(BrightnessEngine(), bundle, source, max_frames=FROZEN_AFTER + 2))
    after = ["no_decision"] * 3 if live else ["pass"] * 3
    assert [one.verdict for one in found] == ["pass"] * (FROZEN_AFTER - 1) + after
    assert found[-1].reason.startswith("frozen" if live else "")


def test_image_limits_of_the_bundle_are_used(bundle):
    limits = ImageLimits(brightness_low=40, brightness_high=220, contrast_low=0, sharpness_low=0)
    manifest = bundle.manifest.model_copy(update={"image_limits": limits})
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


def test_a_server_that_fails_costs_decisions_not_the_line(bundle, caplog):
    engine = BrightnessEngine()
    run, calls = engine.run, []

    def astray(frames, category=None):
        calls.append(len(frames))
        if 3 <= len(calls) <= 5:
            raise ServerFailed("the server is away.", next_step="wait")
        return run(frames)

    engine.run = astray
    images = [flat(100 + i, SIDE) for i in range(8)]
    inspector = Inspector(engine, bundle, ListSource(images, live=False))
    decisions, failing = [], []
    for decision in inspector:
        decisions.append(decision)
        failing.append(HealthCheck()(inspector.statistics()).failing)
    assert [one.frame for one in decisions] == list(range(8))
    without = [one.frame for one in decisions if one.reason == NOT_JUDGED]
    assert without == [2, 3, 4]
    assert all(one.verdict == "no_decision" for one in decisions if one.frame in without)
    assert failing == [(NOT_JUDGED,) if i in without else () for i in range(8)]
    assert inspector.counts.no_decision == 3
    assert inspector.counts.decided == inspector.counts.frames == 8
    begun, ended = caplog.messages
    assert "no_decision until it answers: the server is away." in begun
    assert ended == "it answers again, after 3 frames without"


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
            threading.Event().wait(PATIENCE_SECONDS)

    inspector = Inspector(BrightnessEngine(), bundle, Hanging([], live=True))
    with Stopwatch() as stopwatch:
        for _ in inspector:
            inspector.stop()
    assert stopwatch.seconds < 3, stopwatch
    assert inspector.counts.decided == 1


def test_max_frames(bundle):
    inspector = Inspector(
        BrightnessEngine(), bundle, ListSource(forever(), live=False), max_frames=7
    )
    assert len(list(inspector)) == 7
    assert inspector.counts.frames == 7
