"""The acceptance report: what was measured, with its doubt; what was not, with its command."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.graphs import CATEGORIES, SIDE, save_bundle
from helpers.thresholds import threshold_at

from hvq_edge.bundle.judged_images import ImageRow
from hvq_edge.bundle.manifest import LearntImages, record_of, write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import put_thresholds
from hvq_edge.cli.app import main
from hvq_edge.data.content import hash_image
from hvq_edge.evaluation.acceptance.acceptance import collect
from hvq_edge.evaluation.acceptance.examples import (
    BEST,
    CALMEST,
    FALSE_REJECTS,
    MISSED,
    choose_examples,
)
from hvq_edge.evaluation.acceptance.page import write_acceptance
from hvq_edge.evaluation.acceptance.threshold_bound import threshold_bound
from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.threshold import GoodPart, learn_threshold
from hvq_edge.verdict.tolerance import share
from hvq_edge.verdict.tolerance_bound import order_statistic

# The page, on a bundle whose every score is known: brightness.


@pytest.fixture
def bundle(tmp_path) -> Path:
    """Scores are brightness; thresholds 0.6 of 30 images, nuts' set by one image alone."""
    found = save_bundle(tmp_path / "bundle", "auto")
    thresholds = {
        name: threshold_at(
            value,
            images=30,
            bound=order_statistic(np.linspace(0, value, 30), None).bound,
            highest_image=f"{name}/train/good/7.png",
            next_highest=value - (0.3 if name == "nut" else 0.01),
            median=value - 0.4,
        )
        for name, value in (("bolt", 0.6), ("nut", 10.6))
    }
    manifest = found.manifest.model_copy(update={"thresholds": {"fp32": thresholds}})
    write_manifest(found.path, manifest)
    return found.path


@pytest.fixture
def data(tmp_path) -> Path:
    """Red bolts and green nuts: 6 good dark ones, 4 defective bright ones; one each the wrong way.

    The graph of the bundle takes the brightest channel as the category.
    """
    import cv2

    root = tmp_path / "data"
    for number, name in enumerate(CATEGORIES[:2]):
        for kind, levels in (("good", [40, 50, 60, 70, 80, 200]), ("dent", [90, 210, 220, 230])):
            for place, level in enumerate(levels):
                image = np.full((SIDE, SIDE, 3), level, np.uint8)
                image[..., number] = min(level + 5, 255)
                image[0, 0] = place  # no two files are the same
                path = root / name / "test" / kind / f"{place}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image[..., ::-1])
        (root / name / "train" / "good").mkdir(parents=True)
        shutil.copy(path, root / name / "train" / "good" / "7.png")
    return root


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def evaluated(bundle: Path, data: Path) -> Path:
    arguments = ("eval", bundle, "--data", data, "--precision", "fp32", "--backend", "onnxruntime")
    assert run(*arguments) == 0
    return bundle


def text_of(page: str) -> str:
    body = page[page.index("<body>") :]
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_the_whole_page(bundle, data, capsys):
    assert run("report", evaluated(bundle, data)) == 0
    said = capsys.readouterr().out
    page = (bundle / "acceptance.html").read_text()
    text = text_of(page)
    low, high = share(1, 6).interval.low, share(1, 6).interval.high
    assert (
        text.count(f"1 of 6 {100 * low:.1f} to {100 * high:.1f} %") == 4
    )  # false rejects: table, card
    assert "2 of 12" in text
    assert text.count("1 of 4") == 6, "table, card, and the dot on the curve"
    assert "1 of 4 defects missed, 1 of 6 good rejected" in text
    assert "tested with these kinds of defects: dent (4)" in text
    assert "at most 9.6 % false rejects at 95 % confidence" in text, "9.503, never less than it is"
    assert "p-value" in text
    for heading in (MISSED, FALSE_REJECTS, BEST, CALMEST):
        assert heading in text
    assert "dent/0.png" in text, "the missed one"
    assert "good/5.png" in text, "the false reject"
    for record in open_bundle(bundle).manifest.files.values():
        assert record.sha256 in page
    # What is missing is said, on the page and on the terminal.
    for point in (
        "One image alone sets the threshold of nut: nut/train/good/7.png.",
        "washer plate has no threshold in fp32",
        "The exported graphs were not compared with the trained model.",
        "How fast it is was not measured.",
        "the training images are not known",
    ):
        assert point in text
        assert point in said
    assert "Not measured; run hvq-edge bench" in text
    assert "Prepared by: name, date, signature" in text


def test_the_page_stands_alone(bundle, data):
    evaluated(bundle, data)
    _, path = write_acceptance(bundle)
    page = path.read_text()
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert not re.findall(r"https?://", page)
    assert page.count("<section") == page.count("</section>")
    assert "@media print" in page
    assert len(page) < 3_500_000


def test_nothing_measured_at_all(bundle):
    _, path = write_acceptance(bundle)
    text = text_of(path.read_text())
    assert "not measured run hvq-edge eval" in text
    assert "Not compared; run hvq-edge verify" in text
    assert "Not known" in text
    assert " of 1" not in text, "a count out of nowhere"


def test_a_changed_graph_is_an_open_point(bundle):
    with (bundle / "model.fp32.onnx").open("ab") as file:
        file.write(b"x")
    points = [one.what for one in collect(bundle).open_points]
    assert "The bundle is not whole: model.fp32.onnx was changed." in points


def test_numbers_follow_the_thresholds_of_now(bundle, data):
    """Calibrated again after eval: the counts are those of the thresholds in the bundle."""
    evaluated(bundle, data)
    manifest = open_bundle(bundle).manifest
    higher = {
        name: one.model_copy(update={"value": one.value + 0.39})
        for name, one in manifest.thresholds["fp32"].items()
    }
    write_manifest(bundle, manifest.model_copy(update={"thresholds": {"fp32": higher}}))
    found = collect(bundle)
    assert [one.missed.count for one in found.shown.categories] == [4, 4]
    assert [one.false_rejects.count for one in found.shown.categories] == [0, 0]


def test_images_judged_as_a_category_without_threshold_lead_to_no_decision(bundle, data):
    manifest = open_bundle(bundle).manifest
    bolt = {"bolt": manifest.thresholds["fp32"]["bolt"]}
    write_manifest(bundle, manifest.model_copy(update={"thresholds": {"fp32": bolt}}))
    found = collect(evaluated(bundle, data))
    bolts, nuts = found.shown.categories
    assert (nuts.good_undecided, nuts.defective_undecided) == (nuts.good, nuts.defective)
    assert (nuts.missed.count, nuts.false_rejects.count) == (0, 0)
    assert nuts.without_threshold == nuts.good + nuts.defective
    assert found.shown.all.defective_undecided == nuts.defective + bolts.defective_undecided


def test_images_that_are_gone(bundle, data):
    evaluated(bundle, data)
    shutil.rmtree(data)
    found, path = write_acceptance(bundle)
    assert any("no longer at" in one.what for one in found.open_points)
    assert "<img" not in path.read_text()


def test_a_test_image_that_cannot_be_read_is_an_open_point(bundle, data):
    """eval leaves it out, so the report must not end there."""
    (data / "bolt/test/good/gone.png").symlink_to(data / "nowhere.png")
    evaluated(bundle, data)
    assert run("report", bundle) == 0
    found = collect(bundle)
    assert [one.what for one in found.open_points if "cannot be read" in one.what] == [
        "1 test image cannot be read."
    ]
    assert [one.images for one in found.data if one.use == "test"] == [20]


def test_test_images_learnt_since_the_export_are_an_open_point(bundle, data):
    digest = hash_image(data / "bolt/test/good/0.png")
    learnt = LearntImages(
        category="bolt", created="", images=(digest,), replaced={}, before="0" * 64
    )
    manifest = open_bundle(bundle).manifest
    write_manifest(bundle, manifest.model_copy(update={"learnt": (learnt,)}))
    points = [one.what for one in collect(evaluated(bundle, data)).open_points]
    assert "1 test image served training too: the test is not one." in points


def test_a_verify_file_of_other_graphs(bundle):
    (bundle / "verify.json").write_text("{}")
    assert any("is not a verification" in one.what for one in collect(bundle).open_points)
    content = {
        "passed": True,
        "checkpoint_sha256": "0" * 64,
        "data": "",
        "images": 1,
        "precisions": {},
        "comparisons": [],
        "models": {"fp32": "1" * 64},
    }
    (bundle / "verify.json").write_text(json.dumps(content))
    found = collect(bundle)
    assert found.verification is None
    assert any("other graphs" in one.what for one in found.open_points)
    content["models"]["fp32"] = record_of(bundle / "model.fp32.onnx").sha256
    content["precisions"] = {"fp32": {"passed": False, "faults": ["OpenVINO: map error 1 > 0"]}}
    (bundle / "verify.json").write_text(json.dumps(content))
    found = collect(bundle)
    assert found.verification is not None
    assert any("did not pass fp32 on OpenVINO" in one.what for one in found.open_points)


def test_what_others_named_is_escaped(bundle):
    manifest = open_bundle(bundle).manifest
    write_manifest(bundle, manifest.model_copy(update={"notes": ("<script>alert(1)</script>",)}))
    _, path = write_acceptance(bundle)
    assert "<script>" not in path.read_text()


def test_every_rule_says_its_promise():
    known = learn_threshold([GoodPart(score, "") for score in range(59)])
    assert "at most 5 % false rejects" in threshold_bound("fp32", "bolt", known).promise
    other = threshold_at(1.0, images=59)
    assert threshold_bound("fp32", "bolt", other).promise == "none: it was set by hand"


def test_examples_are_what_their_headings_say():
    rows = [
        ImageRow(path=f"{good}{i}", category="nut", judged_as="nut", good=good, score=score)
        for good, scores in ((True, [1, 2, 3, 8, 9]), (False, [4, 7, 8, 9, 10, 11]))
        for i, score in enumerate(scores)
    ]
    found = choose_examples(rows, {"nut": 7.0})
    assert [row.score for row in found[MISSED]] == [4, 7], "at the threshold is not above it"
    assert [row.score for row in found[FALSE_REJECTS]] == [9, 8]
    assert [row.score for row in found[BEST]] == [11, 10, 9]
    assert [row.score for row in found[CALMEST]] == [1, 2, 3]


def test_promises_and_p_values_are_on_the_page(bundle, data):
    """Bolts: 40 good ones where 1 % was asked for, which takes 299. Nuts: set by hand."""
    parts = [GoodPart(0.4 + i / 100, f"part{i}.png") for i in range(40)]
    bolt = learn_threshold(parts, asked=0.01, source="good bolts", machine="line 3")
    nut = threshold_at(10.6, images=30, rule="set by hand", calibration_scores=table_of([10.1]))
    put_thresholds(open_bundle(bundle), {"fp32": {"bolt": bolt, "nut": nut}})
    _, path = write_acceptance(evaluated(bundle, data))
    text = text_of(path.read_text())
    assert f"{bolt.bound} good bolts line 3 {bolt.bound.created} part39.png" in text
    needed = "bolt: 1 % of false rejects was asked for, the upper bound is 7.3 % (299 good images"
    assert needed in text
    assert f"bolt: {bolt.bound.warnings[0]}" in text, "each scores as its neighbours"
    assert "The threshold of nut has no upper bound: set by hand." in text
    assert "cannot be less than: 0.024 for bolt, 0.5 for nut." in text


def test_thresholds_of_every_precision_are_on_the_page(tmp_path):
    """Other ones in int8: each has its row, and what is open of both is said once."""
    found = save_bundle(tmp_path / "bundle", "auto", precisions=("fp32", "int8"))
    for precision, value in (("fp32", 0.25), ("int8", 0.75)):
        parts = [GoodPart(value - i / 100, f"{i}.png") for i in range(30)]
        threshold = learn_threshold(parts)
        by_hand = threshold_at(value, images=30, rule="set by hand")
        put_thresholds(found, {precision: {"bolt": threshold, "nut": by_hand}})
    report, path = write_acceptance(found.path)
    text = text_of(path.read_text())
    for precision, value in (("fp32", 0.25), ("int8", 0.75)):
        assert f"bolt {precision} {value} largest of 30 good images" in text
    points = [one.what for one in report.open_points]
    assert points.count("The threshold of nut has no upper bound: set by hand.") == 1


def test_times_of_hvq_edge_bench_are_on_the_page(bundle, capsys):
    """What the command itself writes, with its graph and a peer that is not there."""
    command = ("bench", bundle, "--backends", "onnxruntime", "--batch", "1,2", "--rounds", "2")
    assert run(*command, "--no-memory", "--peers", bundle / "no.onnx") == 0
    found, path = write_acceptance(bundle)
    text = text_of(path.read_text())
    assert found.bench is not None
    assert [(row.name, row.batch) for row in found.bench.timings] == [
        ("onnxruntime fp32", 1),
        ("onnxruntime fp32", 2),
    ]
    for row in found.bench.timings:
        times = " ".join(f"{value:.1f}" for value in (row.p50, row.p95, row.p99))
        assert f"{row.name} {row.batch} {times} {row.images_a_second:.1f} reference –" in text
    assert f"on {found.bench.machine}, {found.bench.cpus} processors" in text
    assert "onnxruntime no.onnx: there is no file" in text
    assert "How fast it is was not measured." not in [one.what for one in found.open_points]


def test_a_bench_file_that_cannot_be_believed_is_an_open_point(bundle):
    assert run("bench", bundle, "--backends", "onnxruntime", "--batch", "1", "--rounds", "1") == 0
    path = bundle / "bench.json"
    content = json.loads(path.read_text())
    assert "MB" in write_acceptance(bundle)[1].read_text()
    content |= {"created": "2020-01-01T00:00:00+00:00", "warnings": ["the machine was busy"]}
    path.write_text(json.dumps(content))
    points = [one.what for one in collect(bundle).open_points]
    assert "bench.json is older than the bundle." in points
    assert "Speed: the machine was busy." in points
    path.write_text(json.dumps({"rows": [{"p50_ms": 1.5}]}))
    found = collect(bundle)
    assert found.bench is None
    assert any("bench.json is not a benchmark" in one.what for one in found.open_points)
