"""What a report is made of: examples, thumbnails, charts, and the operating point."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
from helpers.evaluated_images import make_results
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.common.svg import round_steps
from hvq_edge.data.dataset import DatasetImage
from hvq_edge.evaluation.charts import roc_mark, roc_points, score_histogram
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.operating_point import decisions_at, decisions_from, operating_point
from hvq_edge.evaluation.thumbnails import examples_of, heat_scale, thumbnails


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (1, [1, 1]),
        (2, [2, 2]),
        (4, [3, 3, 1, 1]),
        (5, [3, 3, 2, 2]),
        (6, [3, 3, 3, 3]),
        (9, [3, 3, 3, 3]),
    ],
)
def test_examples_are_extreme_and_never_twice(tmp_path, count, sizes):
    groups = list(examples_of(make_results(tmp_path, "bolt", count)).values())
    assert [len(group) for group in groups] == sizes
    shown = [result for group in groups for result in group]
    assert len(set(shown)) == len(shown)
    assert groups[0][0].score == count - 1  # the good one nearest to a reject first
    assert groups[1][0].score == 2.5  # the defect nearest to being missed first
    if len(groups) > 2:
        assert groups[2][0].score == count + 1.5  # the clearest defect first
        assert groups[3][0].score == 0.0  # the clearest good one first


def test_thumbnails_shrink_to_the_budget(tmp_path):
    results = make_results(tmp_path, "bolt", side=300)
    scale = heat_scale(results, 3.0)

    def made(budget):
        images = thumbnails([(result, scale) for result in results], budget).values()
        return {image.width for image in images}, sum(len(i.plain + i.heat) for i in images)

    (wide,), large = made(10**9)
    (narrow,), small = made(large // 2)
    assert wide == 448
    assert narrow < wide
    assert small <= large // 2
    assert made(1)[0] == {64}


def test_heat_starts_at_the_middle_of_the_good_scores(tmp_path):
    results = make_results(tmp_path, "bolt")
    scale = heat_scale(results, 3.2)
    assert (scale.typical, scale.threshold) == (2.0, 3.2)
    assert heat_scale([one for one in results if not one.image.good], None).typical is None


def test_red_is_what_the_report_says_is_rejected(tmp_path):
    results = make_results(tmp_path, "bolt")
    for result in results:
        cv2.imwrite(str(result.image.path), np.full((40, 80, 3), 90, np.uint8))
    results[-1] = replace(results[-1], refused="too dark")
    scale = heat_scale(results, 2.25)
    drawn = thumbnails([(result, scale) for result in results], 10**9)
    for result, thumbnail in drawn.items():
        data = base64.b64decode(thumbnail.heat.split(",")[1])
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)
        redder = (bgr[..., 2] - bgr[..., 1]).max()
        assert (redder > 90) == (result.score > 2.25 and result.refused is None), result


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=40),
    st.none() | st.floats(-1e6, 1e6, width=32),
)
def test_histogram_bars_stay_in_the_plot_and_count_everything(data, threshold):
    results = [
        ImageResult(
            DatasetImage(Path("x"), "bolt", "test", "good" if good else "bad"),
            "bolt",
            score,
            np.zeros((1, 1), np.float32),
        )
        for good, score in data
    ]
    chart = score_histogram(results, threshold)
    for bar in chart.good + chart.defective:
        assert bar.x >= 36 - 1e-6
        assert bar.x + bar.width <= 36 + 380 + 1e-6
    assert all(bar.y + bar.height == pytest.approx(chart.axis) for bar in chart.good)
    assert all(bar.y == chart.axis for bar in chart.defective)
    highest = min((bar.y for bar in chart.good), default=chart.axis)
    lowest = max((bar.y + bar.height for bar in chart.defective), default=chart.axis)
    assert (highest, lowest) == (pytest.approx(10), pytest.approx(160))
    # One image has one height, on both sides, and every bar is so many images high.
    unit = sum(bar.height for bar in chart.good + chart.defective) / len(data)
    for bars, kind in ((chart.good, True), (chart.defective, False)):
        images = [bar.height / unit for bar in bars]
        assert images == pytest.approx([max(round(number), 1) for number in images])
        assert sum(images) == pytest.approx(sum(good is kind for good, _ in data))
    assert bool(chart.good) == any(good for good, _ in data)
    assert bool(chart.defective) == any(not good for good, _ in data)
    assert (chart.threshold is None) == (threshold is None)
    assert all(36 - 1e-6 <= tick.at <= 36 + 380 + 1e-6 for tick in chart.x_ticks)


def test_roc_runs_from_corner_to_corner(tmp_path):
    points = roc_points(make_results(tmp_path, "bolt")).split()
    assert points[0] == "36.0,160.0"
    assert points[-1] == "186.0,10.0"


def test_the_mark_lies_where_the_decisions_are(tmp_path):
    results = make_results(tmp_path, "bolt")
    mark = roc_mark(decisions_at(results, {"bolt": 3.0}))  # above it: 1 of 5 good, 4 of 5 defects
    assert mark == (pytest.approx(36 + 150 / 5), pytest.approx(10 + 150 / 5))
    only_good = [result for result in results if result.image.good]
    assert roc_mark(decisions_at(only_good, {"bolt": 3.0})) is None
    assert roc_mark(None) is None


def test_decisions_are_above_a_threshold_or_from_a_score_on(tmp_path):
    results = make_results(tmp_path, "bolt")  # good 0 to 4, defective 2.5 to 6.5
    above, from_it = decisions_at(results, {"bolt": 4.0}), decisions_from(results, 4.0)
    assert (above.good.rejected, above.defective.passed) == (0, 2)
    assert (from_it.good.rejected, from_it.defective.passed) == (1, 2)
    wrong = [result.score for result in results if from_it.wrong(result)]
    assert wrong == [4.0, 2.5, 3.5]


def test_an_image_is_held_against_the_category_it_was_judged_as(tmp_path):
    first, *rest = make_results(tmp_path, "bolt")
    strayed = [ImageResult(first.image, "nut", first.score, first.map), *rest]
    assert decisions_at(strayed, {}) is None
    assert decisions_at(strayed, {"bolt": 9.0}).good.no_decision == 1, "nut has no threshold"
    assert decisions_at(strayed, {"bolt": 9.0, "nut": -1.0}).good.rejected == 1
    point = operating_point("bolt", strayed, {"bolt": 9.0}, 2.5)
    assert (point.threshold, point.in_use) == (9.0, True)
    assert point.decisions.good.no_decision == 1
    assert not operating_point("bolt", strayed, {"nut": 1.0}, 2.5).in_use
    assert operating_point("bolt", strayed, {}, None) is None


@pytest.mark.parametrize(
    ("low", "high", "steps"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-3, 3, [-2, 0, 2]),
        (0.012, 0.048, [0.02, 0.03, 0.04]),
        (1003, 1017, [1005, 1010, 1015]),
    ],
)
def test_ticks_are_round(low, high, steps):
    assert round_steps(low, high, 5) == steps
