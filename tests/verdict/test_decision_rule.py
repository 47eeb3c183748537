"""Hysteresis, k of n and grades: what must hold for any sequence of scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.stream.sources.source import arrived, lost
from hvq_edge.verdict.decision import Decision, decide
from hvq_edge.verdict.decision_rule import DecisionRule, part_verdict
from hvq_edge.verdict.decision_settings import DecisionSettings, Grade, KOfN
from hvq_edge.verdict.judgement import Judgement

IMAGE = np.zeros((56, 112, 3), np.uint8)
THRESHOLD = 2.0


def run(rule: DecisionSettings, scores, threshold=THRESHOLD) -> list[Decision]:
    """Decide on frames of these scores; ``None`` is a lost frame."""
    applied = DecisionRule(rule)
    decisions = []
    for index, score in enumerate(scores):
        frame = lost(index, "cable") if score is None else arrived(index, IMAGE)
        judgement = None
        if score is not None:
            peak = np.zeros((14, 14), np.float32)
            peak[5:8, 5:8] = score  # wider than the window that the score averages over
            judgement = Judgement("bolt", score, peak)
        thresholds = {"bolt": threshold}
        plain = decide(frame, None, judgement, thresholds, precision="fp32", latency_ms=0.0)
        decisions.append(applied.apply(plain, frame, thresholds))
    return decisions


SCORES = st.lists(st.none() | st.floats(0.125, 4.0, width=32), max_size=40)


@settings(max_examples=40, deadline=None)
@given(SCORES)
def test_without_a_rule_a_frame_stands_for_itself(scores):
    for score, decision in zip(scores, run(DecisionSettings(), scores), strict=True):
        expected = "no_decision" if score is None else "reject" if score > THRESHOLD else "pass"
        assert decision.verdict == expected
        assert decision.part_verdict is None
        assert bool(decision.regions) == (decision.verdict == "reject")


@settings(max_examples=40, deadline=None)
@given(SCORES, st.sampled_from([THRESHOLD, -THRESHOLD]))
def test_hysteresis_lets_go_below_the_second_threshold_only(scores, threshold):
    decisions = run(DecisionSettings(hysteresis=0.25), scores, threshold)
    release = threshold - 0.5
    rejecting = False
    for score, decision in zip(scores, decisions, strict=True):
        if score is None:
            assert decision.verdict == "no_decision"
            continue
        rejecting = score > threshold or (rejecting and score > release)
        assert decision.verdict == ("reject" if rejecting else "pass")


def test_the_reason_says_why_a_score_within_the_threshold_rejects():
    _, held, let_go = run(DecisionSettings(hysteresis=0.25), [3.0, 1.75, 1.5])
    assert held.reason == "score 1.75 after a reject, not yet within 1.5"
    assert let_go.reason == "score 1.5 within threshold 2"


def test_the_reason_says_how_many_frames_are_above():
    first, second, _ = run(DecisionSettings(k_of_n=KOfN(k=2, n=3)), [3.0, 3.0, 1.0])
    alone = run(DecisionSettings(), [3.0])[0].reason
    assert first.reason == f"{alone}, 1 of the 2 frames that reject a part"
    assert second.reason == f"{alone}, 2 of the 2 frames that reject a part"


def test_any_score_exceeds_a_threshold_of_zero_by_as_much_as_one_likes():
    grades = (Grade(name="heavy", excess=1e9),)
    (decision,) = run(DecisionSettings(grades=grades), [0.5], threshold=0.0)
    assert decision.grade == "heavy"


def test_hysteresis_is_apart_for_each_category():
    rule = DecisionRule(DecisionSettings(hysteresis=0.5))
    thresholds = {"bolt": 2.0, "nut": 2.0}
    verdicts = []
    for category, score in [("bolt", 3.0), ("nut", 1.5), ("bolt", 1.5), ("bolt", 0.9)]:
        frame = arrived(0, IMAGE)
        judgement = Judgement(category, score, np.full((14, 14), score, np.float32))
        plain = decide(frame, None, judgement, thresholds, precision="fp32", latency_ms=0.0)
        verdicts.append(rule.apply(plain, frame, thresholds).verdict)
    assert verdicts == ["reject", "pass", "reject", "pass"]


@settings(max_examples=40, deadline=None)
@given(SCORES, st.integers(1, 5).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_k_of_n(scores, k_n):
    k, n = k_n
    decisions = run(DecisionSettings(k_of_n=KOfN(k=k, n=n)), scores)
    assert [bool(decision.part_verdict) for decision in decisions] == [
        (i + 1) % n == 0 for i in range(len(scores))
    ]
    for number in range(len(scores) // n):
        of_part = decisions[number * n : (number + 1) * n]
        values = scores[number * n : (number + 1) * n]
        above = sum(value is not None and value > THRESHOLD for value in values)
        missing = sum(value is None for value in values)
        part = of_part[-1].part_verdict
        assert (part.number, part.frames, part.above, part.undecided) == (number, n, above, missing)
        rejected = any(decision.verdict == "reject" for decision in of_part)
        assert (part.verdict == "reject") == rejected == (above >= k)
        assert (part.verdict == "pass") == (above + missing < k), "a lost frame helps no part pass"
        for value, decision in zip(values, of_part, strict=True):
            assert (decision.verdict == "no_decision") == (value is None)


def of_parts(*frames: tuple[str, float | None]) -> list[Decision]:
    """Two of three frames above the threshold reject a part; each frame is of a part."""
    rule, decisions = DecisionRule(DecisionSettings(k_of_n=KOfN(k=2, n=3))), []
    for index, (part, score) in enumerate(frames):
        frame = lost(index, "cable") if score is None else arrived(index, IMAGE)
        judgement = score and Judgement("bolt", score, np.full((14, 14), score, np.float32))
        plain = decide(
            replace(frame, part=part),
            None,
            judgement,
            {"bolt": THRESHOLD},
            precision="fp32",
            latency_ms=0.0,
        )
        decisions.append(rule.apply(plain, frame, {"bolt": THRESHOLD}))
    return decisions


def test_a_frame_too_many_does_not_shift_the_parts_after_it(caplog):
    frames = [("", None)] + [(part, 3.0 if part == "3" else 1.0) for part in "222333444"]
    decisions = of_parts(*frames)
    ends = [(one.part, one.part_verdict.verdict) for one in decisions if one.part_verdict]
    assert ends == [("2", "pass"), ("3", "reject"), ("4", "pass")]
    assert "part 2 gave 1 of 3 frames: no decision; 3 begins" in caplog.text
    cut = [(one.part, one.cut_short.verdict) for one in decisions if one.cut_short]
    assert cut == [("3", "no_decision")]


def test_an_output_acts_on_the_part():
    bad, lost = [("", 3.0), ("", 3.0), ("", 1.0)], [("", 1.0), ("", None), ("", 1.0)]
    acted_on = [one.acted_on for one in of_parts(*bad, *lost)]
    assert acted_on == [None, "reject", "reject", None, None, "pass"]
    assert [one.acted_on for one in run(DecisionSettings(), [1.0, None])] == [
        "pass",
        "no_decision",
    ]


@given(st.integers(0, 4), st.integers(0, 4))
def test_a_part_verdict_does_not_change_when_what_is_missing_turns_out_either_way(above, undecided):
    rule = KOfN(k=2, n=8)
    verdict = part_verdict(0, rule, above, undecided).verdict
    ways = {part_verdict(0, rule, above + more, 0).verdict for more in range(undecided + 1)}
    assert verdict == (ways.pop() if len(ways) == 1 else "no_decision")


def test_grades_by_area_and_by_excess():
    grades = (
        Grade(name="minor"),
        Grade(name="large", area=3000.0),
        Grade(name="strong", excess=0.5),
    )
    rule = DecisionSettings(grades=grades)
    assert [d.grade for d in run(rule, [1.0, 2.01, 2.9, 3.1])] == [None, "minor", "minor", "strong"]
    (small,) = run(rule, [2.9])
    area = sum(region.area for region in small.regions)
    larger = DecisionSettings(grades=(Grade(name="minor"), Grade(name="large", area=area)))
    assert run(larger, [2.9])[0].grade == "large"
    in_mm = DecisionSettings(mm_per_pixel=0.5, grades=(Grade(name="large", area=area * 0.25),))
    (decision,) = run(in_mm, [2.9])
    assert decision.grade == "large"
    assert decision.regions[0].area_mm2 == pytest.approx(decision.regions[0].area * 0.25)


@pytest.mark.parametrize("text", ["3/2", "0/3", "two", "1/2/3", ""])
def test_k_of_n_that_cannot_be(text):
    with pytest.raises(ValueError, match=r"k_of_n|2/3|above the threshold|greater"):
        DecisionSettings.model_validate({"k_of_n": text})


def test_one_rule_over_time():
    with pytest.raises(ValueError, match="use one of them"):
        DecisionSettings(hysteresis=0.1, k_of_n=KOfN(k=1, n=2))
    with pytest.raises(ValueError, match="same name"):
        DecisionSettings(grades=(Grade(name="a"), Grade(name="a")))
