"""The report page: complete, self-contained, safe and small."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.common.svg import round_steps
from hvq_edge.data.dataset import DatasetImage
from hvq_edge.errors import OutputError
from hvq_edge.evaluation.charts import roc_mark, roc_points, score_histogram
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.pixel_tally import PixelTally
from hvq_edge.evaluation.metrics.results import (
    Evaluation,
    Unreadable,
    category_metrics,
    mean_metrics,
)
from hvq_edge.evaluation.operating_point import decisions_at, decisions_from, operating_point
from hvq_edge.evaluation.report import render_report, write_report
from hvq_edge.evaluation.thumbnails import examples_of, heat_scale, thumbnails

EVIL = "<script>alert('& more')</script>"


def make_results(folder: Path, category: str, count: int = 5, side: int = 40):
    """``count`` good and defective images whose file names say their score."""
    random = np.random.default_rng(len(category))
    results = []
    for good in (True, False):
        for number in range(count):
            score = number + (0.0 if good else 2.5)
            path = folder / category / f"{'good' if good else 'bad'} {score}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = random.integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)
            path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
            heat = np.full((4, 4), 0.1, np.float32)
            heat[1, 2] = score
            defect = "good" if good else "dent & scratch"
            image_of = DatasetImage(path, category, "test", defect, None)
            results.append(ImageResult(image_of, category, score, heat))
    return results


def make_evaluation(folder: Path, names=("bolt", "nut"), *, known=True, thresholds=None, **sizes):
    by_name = {name: make_results(folder, name, **sizes) for name in names}
    metrics = [
        category_metrics(name, results, None, known_category=known, thresholds=thresholds or {})
        for name, results in by_name.items()
    ]
    return Evaluation(
        data=folder,
        known_category=known,
        images=tuple(result for results in by_name.values() for result in results),
        unreadable=(),
        categories=tuple(metrics),
        mean=mean_metrics(metrics),
        thresholds=thresholds or {},
    )


class Page(HTMLParser):
    """Collects tags and text; notices tags that are not closed in order."""

    VOID = frozenset({"meta", "link", "img", "line", "rect", "polyline", "circle", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_stands_alone(tmp_path):
    text = render_report([make_evaluation(tmp_path)], title="Report", facts={"Run": "here"})
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "video"}
    assert all(link["href"].startswith("data:") for link in page.all("link"))
    assert not re.search(r"https?://|url\(|@import", text)
    images = page.all("img")
    assert len(images) == 2 * 2 * 10  # two categories; five good, five defective; image and heat
    for image in images:
        kind, data = image["src"].split(",")
        assert kind == "data:image/jpeg;base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape == (int(image["height"]), int(image["width"]), 3) == (40, 80, 3)
        assert image["alt"]


def test_the_page_shows_the_numbers(tmp_path):
    evaluation = make_evaluation(tmp_path, thresholds={"bolt": 3.2})
    page = Page(render_report([evaluation], title="Report of run 7", facts={"Preset": "tiny"}))
    words = " ".join(" ".join(page.text).split())
    for shown in ("Report of run 7", "Preset tiny", "bolt", "nut", "rejected above 3.2", "88.0"):
        assert shown in words
    assert evaluation.categories[0].image_auroc == pytest.approx(22 / 25)
    assert "good 4.0.png" in words
    assert "3 of 5 good images rejected" not in words
    assert "1 of 5 good images rejected, 1 of 5 defective images missed" in words  # bolt
    assert words.count("false reject") >= 1


def test_what_is_on_the_wrong_side_is_marked(tmp_path):
    evaluation = make_evaluation(tmp_path, ("bolt",), thresholds={"bolt": 3.2})
    words = " ".join(" ".join(Page(render_report([evaluation], title="R", facts={})).text).split())
    assert "good/good 4.0.png · false reject" in words
    assert "dent & scratch/bad 2.5.png · missed" in words
    assert words.count("· false reject") == words.count("· missed") == 1


def test_without_a_threshold_the_best_f1_is_drawn_and_said_to_be_that(tmp_path):
    evaluation = make_evaluation(tmp_path, ("bolt",))
    page = Page(render_report([evaluation], title="Report", facts={}))
    words = " ".join(" ".join(page.text).split())
    assert "best F1 on these images, at 2.5; no threshold is in use" in words
    assert "At the best F1: 2 of 5 good images rejected, 0 of 5 defective images missed" in words
    (line,) = [one for one in page.all("line") if "threshold" in one.get("class", "")]
    dot, traded = page.all("circle")
    assert line["class"] == "threshold best"
    assert dot["class"] == traded["class"] == "mark best"
    x, y = 36 + 150 * 2 / 5, 10.0  # 2 of 5 good rejected, all defects found
    assert (float(dot["cx"]), float(dot["cy"])) == (x, y)
    assert (float(traded["cx"]), float(traded["cy"])) == (x, 160.0), "none is missed"
    assert "0 of 5 defects missed, 2 of 5 good rejected" in words


def test_pixel_metrics_and_images_without_mask_are_told(tmp_path):
    results = make_results(tmp_path, "bolt")
    tally = PixelTally()
    tally.add(np.eye(4), np.eye(4) > 0)
    metrics = category_metrics(
        "bolt", results, tally, known_category=True, thresholds={}, without_mask=2
    )
    evaluation = Evaluation(tmp_path, True, tuple(results), (), (metrics,), mean_metrics([metrics]))
    words = " ".join(" ".join(Page(render_report([evaluation], title="R", facts={})).text).split())
    assert "100.0 % mean pixel AUPRO" in words
    assert "pixel F1max 100.0" in words
    assert "defect regions 1" in words
    assert "leave out 2 defective images without a readable mask" in words
    without = make_evaluation(tmp_path, ("bolt",))
    words = " ".join(Page(render_report([without], title="R", facts={})).text)
    assert "mean pixel" not in words
    assert "readable mask" not in words


def test_charts_follow_the_last_evaluation_and_tables_show_all(tmp_path):
    known, chosen = (make_evaluation(tmp_path, known=way) for way in (True, False))
    page = Page(render_report([known, chosen], title="Report", facts={}))
    assert len(page.all("table")) == 2
    assert len(page.all("polyline")) == 4, "two a category: ROC, and missed against rejected"
    words = " ".join(page.text)
    assert "Category known" in words
    assert "Category chosen by the model" in words


def test_confusions_and_unreadable_files_are_told(tmp_path):
    evaluation = make_evaluation(tmp_path, known=False)
    first, *rest = evaluation.images
    wrong = ImageResult(first.image, "nut", first.score, first.map)
    evaluation = Evaluation(
        **{
            **vars(evaluation),
            "images": (wrong, *rest),
            "unreadable": (Unreadable(tmp_path / "x.png", "x.png cannot be used: empty."),),
        }
    )
    words = " ".join(Page(render_report([evaluation], title="Report", facts={})).text)
    assert "1 of bolt judged as nut" in words
    assert "x.png cannot be used: empty." in words


def test_what_others_named_is_escaped(tmp_path):
    evil = EVIL.replace("/", "")  # a file name cannot hold a slash
    evaluation = make_evaluation(tmp_path, (evil, "nut"))
    text = render_report([evaluation], title=EVIL, facts={EVIL: EVIL})
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert EVIL in page.text
    assert "dent & scratch" in " ".join(page.text)


@pytest.mark.parametrize("good", [True, False])
def test_one_class_only(tmp_path, good):
    results = [one for one in make_results(tmp_path, "bolt") if one.image.good is good]
    metrics = category_metrics("bolt", results, None, known_category=True, thresholds={})
    evaluation = Evaluation(tmp_path, True, tuple(results), (), (metrics,), mean_metrics([metrics]))
    page = Page(render_report([evaluation], title="Report", facts={}))
    assert len(page.all("polyline")) == 0
    assert "–" in " ".join(page.text)


def test_many_large_images_stay_below_three_megabytes(tmp_path):
    names = tuple(f"category {number}" for number in range(20))
    evaluation = make_evaluation(tmp_path, names, side=150)  # noise: the worst for JPEG
    assert len(render_report([evaluation], title="Report", facts={})) < 3_000_000


def test_an_image_that_is_gone_is_left_out(tmp_path):
    evaluation = make_evaluation(tmp_path, ("bolt",))
    (tmp_path / "bolt/good 4.0.png").unlink()
    page = Page(render_report([evaluation], title="Report", facts={}))
    assert len(page.all("img")) == 2 * 9


def test_writing(tmp_path):
    evaluation = make_evaluation(tmp_path, ("bolt",))
    path = tmp_path / "new folder/report.html"
    write_report(path, [evaluation], title="Report", facts={})
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(OutputError):
        write_report(path / "below/report.html", [evaluation], title="Report", facts={})


# --- parts ---------------------------------------------------------------------------------------


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
