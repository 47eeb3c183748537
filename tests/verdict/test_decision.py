"""From what the engine says to a verdict: never a pass or a reject without a usable image."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from helpers.images import make_texture
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.stream.latency import LatencyHistogram
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision, decide
from hvq_edge.verdict.image_checks import FROZEN_AFTER, FrameChecks, ImageChecks, SeenFrame
from hvq_edge.verdict.image_limits import ImageLimits
from hvq_edge.verdict.judgement import Judgement

IMAGE = np.zeros((4, 4, 3), np.uint8)
MAP = np.zeros((4, 4), np.float32)
HERE = Frame(7, 1700000000.123456789, IMAGE, "a.png")
LOST = Frame(8, 1700000000.0, None, "", "camera 0 gave no image")


def judged(score: float, category: str = "bolt") -> Judgement:
    return Judgement(category, score, MAP)


def decided(frame=HERE, fault=None, judgement=None, thresholds=None, precision="int8") -> Decision:
    return decide(
        frame,
        fault,
        judgement,
        {"bolt": 2.5} if thresholds is None else thresholds,
        precision=precision,
        latency_ms=1.5,
    )


@pytest.mark.parametrize(
    ("score", "threshold", "verdict"),
    [
        (2.4, 2.5, "pass"),
        (2.5, 2.5, "pass"),
        (2.5000001, 2.5, "reject"),
        (-3.0, -2.0, "pass"),
        (-1.0, -2.0, "reject"),
        (0.0, 0.0, "pass"),
        (math.nan, 2.5, "no_decision"),
        (math.inf, 2.5, "no_decision"),
        (-math.inf, 2.5, "no_decision"),
        (1.0, math.nan, "no_decision"),
    ],
)
def test_score_against_threshold(score, threshold, verdict):
    decision = decided(judgement=judged(score), thresholds={"bolt": threshold})
    assert decision.verdict == verdict
    assert decision.category == "bolt"
    assert decision.map is MAP


@pytest.mark.parametrize(
    ("case", "reason", "score"),
    [
        ({"frame": LOST}, "camera 0 gave no image", None),
        ({"frame": LOST, "judgement": judged(9.0)}, "camera 0 gave no image", None),
        ({"fault": "black: brightness 1.0, at least 40.0"}, "black: brightness", None),
        ({"fault": "blurred: x", "judgement": judged(9.0)}, "blurred", None),
        ({"judgement": judged(9.0, "nut")}, "no threshold for nut at int8", 9.0),
        ({"judgement": judged(9.0), "thresholds": {}}, "no threshold for bolt at int8", 9.0),
        ({"judgement": judged(math.nan)}, "not a finite number", None),
        ({}, "the engine was not asked", None),
    ],
)
def test_no_decision_has_a_reason(case, reason, score):
    decision = decided(**case)
    assert decision.verdict == "no_decision"
    assert reason in decision.reason
    assert decision.score == score


@given(
    lost=st.booleans(),
    fault=st.none() | st.just("too dark: x"),
    score=st.floats(width=32),
    threshold=st.none() | st.floats(),
)
def test_a_verdict_needs_an_image_a_score_and_a_threshold(lost, fault, score, threshold):
    decision = decided(
        frame=LOST if lost else HERE,
        fault=fault,
        judgement=judged(score),
        thresholds={} if threshold is None else {"bolt": threshold},
    )
    usable = not lost and fault is None and math.isfinite(score)
    judgeable = usable and threshold is not None and math.isfinite(threshold)
    assert (decision.verdict != "no_decision") == judgeable
    if judgeable:
        assert (decision.verdict == "reject") == (score > threshold)
    assert decision.reason
    assert json.loads(decision.to_json())["verdict"] == decision.verdict


def test_a_record_says_what_has_drifted_only_where_something_has():
    plain = decided(judgement=judged(3.25, "bolt"), thresholds={"bolt": 1.0})
    assert "drift" not in plain.fields()
    said = replace(plain, drift="darker (120 of 165)")
    assert said.fields() == {**plain.fields(), "drift": "darker (120 of 165)"}


def test_json_is_one_line_with_the_keys_of_the_design():
    decision = decided(judgement=judged(3.25, "Ölfilter\n1"), thresholds={"Ölfilter\n1": 1.0})
    line = decision.to_json()
    assert "\n" not in line
    assert "Ölfilter" in line
    assert json.loads(line) == {
        "frame": 7,
        "time": 1700000000.123457,
        "category": "Ölfilter\n1",
        "score": 3.25,
        "verdict": "reject",
        "reason": "score 3.25 above threshold 1",
        "latency_ms": 1.5,
        "camera": "",
        "image": "a.png",
        "part": None,
        "grade": None,
        "part_verdict": None,
        "regions": [],
        "p_value": None,
    }
    assert list(json.loads(line)) == [
        "camera",
        "frame",
        "image",
        "part",
        "time",
        "category",
        "score",
        "verdict",
        "reason",
        "latency_ms",
        "grade",
        "part_verdict",
        "regions",
        "p_value",
    ]
    assert json.loads(decided(frame=LOST).to_json())["score"] is None


LIMITS = ImageLimits(brightness_low=50, brightness_high=200, contrast_low=5, sharpness_low=20)


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (make_texture(1, grain=0.7), None),
        (np.zeros((64, 64, 3), np.uint8), "black"),
        (np.full((64, 64, 3), 255, np.uint8), "saturated"),
        (make_texture(1, grain=9.0), "blurred"),
    ],
)
def test_images_outside_the_limits(image, word):
    fault = FrameChecks(ImageChecks(LIMITS, {}), live=False).check(SeenFrame(image))
    assert (fault or "none").split(":")[0] == (word or "none")


def test_without_limits_a_black_image_is_judged():
    assert (
        FrameChecks(ImageChecks(None, {}), live=False).check(
            SeenFrame(np.zeros((64, 64, 3), np.uint8))
        )
        is None
    )


def test_a_camera_that_repeats_itself_is_frozen():
    checks = FrameChecks(ImageChecks(LIMITS, {}), live=True)
    image = make_texture(1, grain=0.7)
    faults = [checks.check(SeenFrame(image.copy())) for _ in range(FROZEN_AFTER + 2)]
    assert faults[: FROZEN_AFTER - 1] == [None] * (FROZEN_AFTER - 1)
    assert all(fault.startswith("frozen") for fault in faults[FROZEN_AFTER - 1 :])
    other = image.copy()
    other[5, 5, 0] ^= 1  # one grey level of one pixel is enough to be alive
    assert checks.check(SeenFrame(other)) is None


def test_a_file_may_repeat_itself():
    checks = FrameChecks(ImageChecks(LIMITS, {}), live=False)
    image = make_texture(1, grain=0.7)
    faults = [checks.check(SeenFrame(image)) for _ in range(3 * FROZEN_AFTER)]
    assert faults == [None] * 3 * FROZEN_AFTER


@given(
    st.lists(st.floats(0.001, 1e6), min_size=1, max_size=200),
    st.sampled_from([1.0, 50.0, 95.0, 99.0, 100.0]),
)
def test_percentiles_are_right_to_one_percent(values, percent):
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    exact = np.percentile(values, percent, method="inverted_cdf")
    assert histogram.percentile(percent) == pytest.approx(exact, rel=0.0101)
    assert histogram.count == len(values)


def test_percentiles_of_nothing_and_of_extremes():
    histogram = LatencyHistogram()
    assert histogram.percentile(50) is None
    histogram.add(0.0)
    histogram.add(1e12)
    assert histogram.count == 2
