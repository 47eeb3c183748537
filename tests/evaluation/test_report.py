"""The report page: complete, self-contained, safe and small."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("jinja2")

from helpers.evaluated_images import make_evaluation, make_results

from hvq_edge.errors import OutputError
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.pixel_tally import PixelTally
from hvq_edge.evaluation.metrics.results import (
    Evaluation,
    Unreadable,
    category_metrics,
    mean_metrics,
)
from hvq_edge.evaluation.report import render_report, write_report

EVIL = "<script>alert('& more')</script>"


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
