"""Evaluating an engine on a dataset."""

from __future__ import annotations

from contextlib import closing

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
from helpers.graphs import CATEGORIES, GRID, SIDE, save_bundle
from helpers.judged_images import UNDEFINED
from helpers.spotted_parts import data, draw, draw_mask, metrics_of, run_evaluation  # noqa: F401  # fixtures

from hvq_edge.data.dataset import find_dataset
from hvq_edge.errors import DatasetError
from hvq_edge.evaluation.evaluate import evaluate, ways_of
from hvq_edge.evaluation.metrics.metrics_file import EvaluationRecord, metrics_file
from hvq_edge.evaluation.metrics.results import mean_metrics
from hvq_edge.runtime.engine import EngineInfo
from hvq_edge.runtime.open_engine import FixedCategoryEngine, open_engine


def test_metrics_by_category_and_their_mean(run_evaluation):
    evaluation = run_evaluation("auto")
    bolt, nut = (metrics_of(evaluation, name) for name in ("bolt", "nut"))
    assert (bolt.good, bolt.defective, nut.good, nut.defective) == (3, 3, 2, 3)
    assert (bolt.image_auroc, bolt.image_ap, bolt.image_f1) == (1.0, 1.0, 1.0)
    assert nut.image_auroc == pytest.approx(4 / 6)  # of 2 x 3 pairs, the dark defect loses two
    assert nut.image_f1 == pytest.approx(0.8)
    assert evaluation.mean.image_auroc == pytest.approx((1 + 4 / 6) / 2)
    assert nut.pixel_auroc is None
    assert 0.9 < bolt.pixel_auroc <= 1.0
    for pixel in ("pixel_auroc", "pixel_ap", "pixel_f1", "pixel_aupro"):
        assert getattr(nut, pixel) is None
        assert getattr(evaluation.mean, pixel) == getattr(bolt, pixel) > 0.25
    assert (bolt.regions, bolt.without_mask) == (3, 0)
    assert (nut.regions, nut.without_mask) == (None, None)
    assert evaluation.mean.category_accuracy == 1.0
    assert bolt.false_rejects is None


def test_records_by_image(run_evaluation, data):
    evaluation = run_evaluation("auto", batch_size=2)
    assert len(evaluation.images) == 11
    first = evaluation.images[0]
    assert first.chosen == first.image.category == "bolt"
    assert first.map.shape == (GRID, GRID)
    by_name = {
        result.image.path.relative_to(data).as_posix(): result.score for result in evaluation.images
    }
    assert by_name["bolt/test/bright/050.png"] == pytest.approx((220 / 3 + 50) / 255, rel=1e-5)
    assert by_name["nut/test/good/005.png"] == pytest.approx(10 + (220 / 3 + 5) / 255, rel=1e-5)


def test_the_batch_size_does_not_matter(run_evaluation, data, tmp_path):
    bundle = save_bundle(tmp_path / "b", "auto")
    with closing(open_engine(bundle, backend="onnxruntime")) as engine:
        dataset = find_dataset(data)
        one = evaluate(engine, dataset, known_category=False, batch_size=1)
        all_at_once = evaluate(engine, dataset, known_category=False, batch_size=100)
    assert one.categories == all_at_once.categories


def test_pixel_metrics_compare_the_enlarged_map_with_the_mask(run_evaluation, data):
    """A mask moved away from the bright spot must be noticed."""
    right = metrics_of(run_evaluation("auto"), "bolt")
    for path in (data / "bolt/ground_truth/bright").iterdir():
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[48:, :16] = 255
        path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    moved = run_evaluation("auto")
    assert metrics_of(moved, "bolt").pixel_auroc < 0.6 < right.pixel_auroc
    assert metrics_of(moved, "bolt").pixel_aupro < 0.3
    assert right.pixel_aupro > 0.8


def test_a_defective_image_without_mask_counts_for_the_image_metrics_alone(run_evaluation, data):
    whole = metrics_of(run_evaluation("auto"), "bolt")
    draw(data / "bolt/test/bright/045.png", "bolt", 200)  # would be false positives without a mask
    found = metrics_of(run_evaluation("auto"), "bolt")
    assert (found.defective, found.regions, found.without_mask) == (4, 3, 1)
    for pixel in ("pixel_auroc", "pixel_ap", "pixel_f1", "pixel_aupro"):
        assert getattr(found, pixel) == getattr(whole, pixel)


def test_an_empty_mask_says_that_all_pixels_are_good(run_evaluation, data):
    whole = metrics_of(run_evaluation("auto"), "bolt")
    empty = cv2.imencode(".png", np.zeros((SIDE, SIDE), np.uint8))[1].tobytes()
    (data / "bolt/ground_truth/bright/050_mask.png").write_bytes(empty)
    found = metrics_of(run_evaluation("auto"), "bolt")
    assert (found.defective, found.regions, found.without_mask) == (3, 2, 0)
    assert found.pixel_auroc < whole.pixel_auroc  # its bright square now counts as good


def test_masks_that_cannot_be_read_leave_image_metrics(run_evaluation, data):
    for path in (data / "bolt/ground_truth/bright").iterdir():
        path.write_bytes(b"")
    found = metrics_of(run_evaluation("auto"), "bolt")
    assert (found.regions, found.without_mask) == (0, 3)
    assert found.image_auroc == 1.0
    assert found.pixel_auroc is found.pixel_ap is found.pixel_f1 is found.pixel_aupro is None


def test_a_wrongly_chosen_category_is_counted_and_scored_as_chosen(run_evaluation, data):
    draw(data / "bolt/test/good/009.png", "bolt", 0, colour=2)  # looks like a washer plate
    chosen = run_evaluation("auto")
    bolt = metrics_of(chosen, "bolt")
    assert bolt.category_accuracy == pytest.approx(6 / 7)
    assert bolt.image_auroc < 1.0  # ten times the category is added to its score
    known = run_evaluation("input")
    assert metrics_of(known, "bolt").image_auroc == 1.0
    assert metrics_of(known, "bolt").category_accuracy is None


def test_a_model_of_one_category_judges_only_its_images(run_evaluation):
    evaluation = run_evaluation("one", categories=("nut",))
    assert [one.category for one in evaluation.categories] == ["nut"]
    assert {result.image.category for result in evaluation.images} == {"nut"}


def test_categories_are_matched_by_name_not_by_position(run_evaluation):
    evaluation = run_evaluation("input", categories=("washer plate", "nut", "bolt"))
    by_category = {result.image.category: result.score for result in evaluation.images}
    assert by_category["bolt"] > 20
    assert 10 < by_category["nut"] < 20


def test_unknown_categories_are_named(run_evaluation, data):
    for name in ("gear", "axle"):
        (data / name / "test/good").mkdir(parents=True)
        for split in ("train", "test"):
            draw(data / name / split / "good/0.png", "bolt", 0)
    with pytest.raises(DatasetError, match="categories axle, gear") as caught:
        run_evaluation("auto")
    assert "it knows bolt, nut, washer plate" in str(caught.value)
    with pytest.raises(DatasetError, match="no test images of washer plate"):
        run_evaluation("one", categories=("washer plate",))


def test_unreadable_images_and_masks_are_listed_and_left_out(run_evaluation, data):
    broken = data / "bolt/test/bright/050.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (data / "nut/test/good/text.png").write_text("not an image", encoding="utf-8")
    (data / "bolt/ground_truth/bright/040_mask.png").write_bytes(b"")
    evaluation = run_evaluation("auto")
    assert {fault.path.name for fault in evaluation.unreadable} == {
        "050.png",
        "text.png",
        "040_mask.png",
    }
    assert metrics_of(evaluation, "bolt").defective == 2
    assert metrics_of(evaluation, "nut").good == 2
    assert metrics_of(evaluation, "bolt").pixel_auroc is not None
    assert metrics_of(evaluation, "bolt").without_mask == 1


def test_nothing_readable_is_an_error(run_evaluation, data):
    for path in data.glob("*/test/*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="none of the 11 test images"):
        run_evaluation("auto")


def test_no_test_images_is_an_error(run_evaluation, data):
    for path in data.glob("*/test/*/*.png"):
        path.unlink()
    with pytest.raises(DatasetError, match="no test images"):
        run_evaluation("auto")


def test_thresholds_give_false_rejects_and_missed(run_evaluation):
    limit = (220 / 3 + 6) / 255
    evaluation = run_evaluation("auto", thresholds={"bolt": limit, "nut": 10 + limit})
    bolt, nut = (metrics_of(evaluation, name) for name in ("bolt", "nut"))
    assert (bolt.threshold, bolt.false_rejects, bolt.missed) == (limit, 1, 0)
    assert (nut.false_rejects, nut.missed) == (1, 1)


def test_progress_counts_every_image(run_evaluation):
    seen = []
    run_evaluation("auto", batch_size=2, on_progress=lambda *report: seen.append(report))
    assert seen[-1][1:3] == (11, 11)
    assert [report[1] for report in seen] == [2, 4, 6, 8, 10, 11]


class Broken:
    """An engine whose scores are not numbers."""

    info = EngineInfo("test", "int8", "none", (SIDE, SIDE), CATEGORIES, "auto")

    def run(self, frames, category=None):
        batch = len(frames)
        return {
            "score": np.full(batch, np.nan, np.float32),
            "map": np.zeros((batch, GRID, GRID), np.float32),
            "codes": np.zeros((batch, 1, GRID**2), np.int32),
            "category": np.zeros(batch, np.int32),
            "margin": np.ones(batch, np.float32),
        }

    def close(self):
        pass


def test_a_score_that_is_no_number_gets_no_decision_and_no_rank(data):
    found = evaluate(Broken(), find_dataset(data), known_category=False, thresholds={"bolt": 1.0})
    for one in found.categories:
        assert (
            one.not_finite
            == one.good + one.defective
            == one.good_verdicts.no_decision + (one.defective_verdicts.no_decision)
        )
        assert one.image_auroc is None
    (record,) = metrics_file(data, Broken().info, [found]).evaluations
    assert {(row.score, row.verdict) for row in record.images} == {(None, "no_decision")}
    assert EvaluationRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("mode", "backend", "ways"),
    [
        ("auto", "torch", (True, False)),
        ("input", "torch", (True,)),
        ("auto", "openvino", (False,)),
        ("input", "openvino", (True,)),
        ("one", "openvino", (True,)),
    ],
)
def test_ways_of_evaluating(mode, backend, ways):
    assert ways_of(EngineInfo(backend, "fp32", "", (SIDE, SIDE), CATEGORIES, mode)) == ways


def test_a_fixed_category_is_evaluated_as_one(data, tmp_path):
    bundle = save_bundle(tmp_path / "b", "input")
    with closing(open_engine(bundle, backend="onnxruntime", category="nut")) as engine:
        assert isinstance(engine, FixedCategoryEngine)
        evaluation = evaluate(engine, find_dataset(data), known_category=True)
    assert [one.category for one in evaluation.categories] == ["nut"]
    assert all(result.score > 10 for result in evaluation.images)


def test_means_leave_out_what_is_not_defined():
    some = UNDEFINED.model_copy(update={"image_auroc": 0.5})
    assert mean_metrics([UNDEFINED, some]).image_auroc == 0.5
    assert mean_metrics([UNDEFINED]).image_auroc is None
