"""Evaluating an engine on a dataset, and the command around it.

The graph scores a picture by its brightest 16x16 block, so a bright square is a defect, and with
mode auto it chooses the category by the strongest colour: bolt red, nut green, washer plate blue.
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
from graphs import CATEGORIES, GRID, SIDE, save_bundle
from rich.console import Console
from test_run_record import record as run_record
from typer.testing import CliRunner

from hvq_edge.bundle import Threshold, open_bundle, write_manifest
from hvq_edge.data.dataset import find_dataset
from hvq_edge.errors import (
    DatasetError,
    GateFailed,
    InputError,
    OutputError,
    RunError,
    SettingsError,
)
from hvq_edge.evaluation.evaluate import evaluate, ways_of
from hvq_edge.evaluation.evaluate_target import evaluate_target
from hvq_edge.evaluation.gates import Gate, parse_gates
from hvq_edge.evaluation.metrics_file import (
    EvaluationRecord,
    MetricsFile,
    PictureRow,
    read_metrics,
)
from hvq_edge.evaluation.results import CategoryMetrics, Metrics, mean_metrics
from hvq_edge.evaluation.table import COLUMNS, metrics_tables
from hvq_edge.run_record import write_run
from hvq_edge.runtime.engine import EngineInfo
from hvq_edge.runtime.open_engine import FixedCategoryEngine, open_engine

COLOUR = {name: channel for channel, name in enumerate(CATEGORIES)}


def draw(path: Path, category: str, spot: int, colour: int | None = None) -> None:
    """A plain picture in the category's colour with a square of ``spot`` at one block."""
    picture = np.full((SIDE, SIDE, 3), 60, np.uint8)
    picture[..., COLOUR[category] if colour is None else colour] += 40
    picture[16:32, 32:48] += np.uint8(spot)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())


def draw_mask(path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:32, 32:48] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", mask)[1].tobytes())


@pytest.fixture
def data(tmp_path):
    """bolt: perfectly separable, with masks; nut: one defect below all good ones, no masks."""
    root = tmp_path / "Prüf data"
    for category, good, bad in (("bolt", (0, 4, 8), (30, 40, 50)), ("nut", (5, 10), (0, 20, 30))):
        draw(root / category / "train/good/0.png", category, 0)
        for spot in good:
            draw(root / category / f"test/good/{spot:03}.png", category, spot)
        for spot in bad:
            draw(root / category / f"test/bright/{spot:03}.png", category, spot)
            if category == "bolt":
                draw_mask(root / category / f"ground_truth/bright/{spot:03}_mask.png")
    return root


@pytest.fixture
def run_evaluation(data, tmp_path):
    def run(mode="auto", *, known=None, categories=None, **options):
        folder = tmp_path / f"bundle {mode}"
        if folder.exists():
            bundle = open_bundle(folder)
        else:
            bundle = save_bundle(folder, mode, categories=categories)
        with closing(open_engine(bundle, backend="onnxruntime")) as engine:
            known = ways_of(engine.info)[0] if known is None else known
            return evaluate(engine, find_dataset(data), known_category=known, **options)

    return run


def metrics_of(evaluation, category):
    (found,) = [one for one in evaluation.categories if one.category == category]
    return found


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


def test_records_by_picture(run_evaluation, data):
    evaluation = run_evaluation("auto", batch_size=2)
    assert len(evaluation.pictures) == 11
    first = evaluation.pictures[0]
    assert first.chosen == first.picture.category == "bolt"
    assert first.map.shape == (GRID, GRID)
    by_name = {
        result.picture.path.relative_to(data).as_posix(): result.score
        for result in evaluation.pictures
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
    assert metrics_of(moved, "bolt").pixel_aupro < 0.3 < 0.8 < right.pixel_aupro


def test_a_defective_picture_without_mask_counts_for_the_image_metrics_alone(run_evaluation, data):
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


def test_a_model_of_one_category_judges_only_its_pictures(run_evaluation):
    evaluation = run_evaluation("one", categories=("nut",))
    assert [one.category for one in evaluation.categories] == ["nut"]
    assert {result.picture.category for result in evaluation.pictures} == {"nut"}


def test_categories_are_matched_by_name_not_by_position(run_evaluation):
    evaluation = run_evaluation("input", categories=("washer plate", "nut", "bolt"))
    by_category = {result.picture.category: result.score for result in evaluation.pictures}
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
    with pytest.raises(DatasetError, match="no test pictures of washer plate"):
        run_evaluation("one", categories=("washer plate",))


def test_unreadable_pictures_and_masks_are_listed_and_left_out(run_evaluation, data):
    broken = data / "bolt/test/bright/050.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (data / "nut/test/good/text.png").write_text("not a picture", encoding="utf-8")
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
    with pytest.raises(DatasetError, match="none of the 11 test pictures"):
        run_evaluation("auto")


def test_no_test_pictures_is_an_error(run_evaluation, data):
    for path in data.glob("*/test/*/*.png"):
        path.unlink()
    with pytest.raises(DatasetError, match="no test pictures"):
        run_evaluation("auto")


def test_thresholds_give_false_rejects_and_missed(run_evaluation):
    limit = (220 / 3 + 6) / 255
    evaluation = run_evaluation("auto", thresholds={"bolt": limit, "nut": 10 + limit})
    bolt, nut = (metrics_of(evaluation, name) for name in ("bolt", "nut"))
    assert (bolt.threshold, bolt.false_rejects, bolt.missed) == (limit, 1, 0)
    assert (nut.false_rejects, nut.missed) == (1, 1)


def test_progress_counts_every_picture(run_evaluation):
    seen = []
    run_evaluation("auto", batch_size=2, on_progress=lambda *report: seen.append(report))
    assert seen[-1][1:3] == (11, 11)
    assert [report[1] for report in seen] == [2, 4, 6, 8, 10, 11]


class Broken:
    """An engine whose scores are not numbers."""

    info = EngineInfo("test", "int8", "none", SIDE, CATEGORIES, "auto")

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


def test_a_score_that_is_no_number_names_the_picture(data):
    with pytest.raises(InputError, match=r"int8 model gives .*\.png"):
        evaluate(Broken(), find_dataset(data), known_category=False)


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
    assert ways_of(EngineInfo(backend, "fp32", "", SIDE, CATEGORIES, mode)) == ways


def test_a_fixed_category_is_evaluated_as_one(data, tmp_path):
    bundle = save_bundle(tmp_path / "b", "input")
    with closing(open_engine(bundle, backend="onnxruntime", category="nut")) as engine:
        assert isinstance(engine, FixedCategoryEngine)
        evaluation = evaluate(engine, find_dataset(data), known_category=True)
    assert [one.category for one in evaluation.categories] == ["nut"]
    assert all(result.score > 10 for result in evaluation.pictures)


def test_means_leave_out_what_is_not_defined():
    empty = Metrics(
        image_auroc=None,
        image_ap=None,
        image_f1=None,
        pixel_auroc=None,
        pixel_ap=None,
        category_accuracy=None,
    )
    some = empty.model_copy(update={"image_auroc": 0.5})
    assert mean_metrics([empty, some]).image_auroc == 0.5
    assert mean_metrics([empty]).image_auroc is None


def shown(tables, width):
    console = Console(width=width, file=StringIO())
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def test_table_shows_what_is_defined(run_evaluation):
    (table,) = metrics_tables(run_evaluation("auto"), 120)
    headings = [column.header for column in table.columns]
    assert headings[:4] == ["category", "good", "defects", "image\nAUROC"]
    assert headings[6:10] == ["pixel\nAUROC", "pixel\nAP", "pixel\nF1max", "pixel\nAUPRO"]
    assert "missed" not in headings
    assert list(table.columns[3].cells) == ["100.0", "66.7", "83.3"]
    bolt, nut, mean = table.columns[9].cells
    assert nut == "–"
    assert bolt == mean


def test_without_masks_the_table_has_no_pixel_columns(run_evaluation, data):
    for path in (data / "bolt/ground_truth/bright").iterdir():
        path.unlink()
    evaluation = run_evaluation("auto")
    for width in (60, 120):
        (table,) = metrics_tables(evaluation, width)
        assert "pixel" not in "".join(str(column.header) for column in table.columns)


@pytest.mark.parametrize(("width", "tables"), [(50, 3), (80, 2), (100, 1), (120, 1)])
def test_the_table_loses_nothing_at_any_width(run_evaluation, width, tables):
    evaluation = run_evaluation("auto", thresholds=dict.fromkeys(CATEGORIES, 1.0))
    found = metrics_tables(evaluation, width)
    assert len(found) == tables
    text = shown(found, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    wide = shown(metrics_tables(evaluation, 500), 500)
    words = {word for word in wide.split() if word != "–" and not word.startswith("─")}
    assert words <= set(text.split())
    assert {"bolt", "nut", "mean", "66.7", "AUROC", "AUPRO", "rejects", "missed"} <= words


def test_a_table_of_pixels_leaves_out_categories_without_masks(run_evaluation):
    evaluation = run_evaluation("auto", thresholds=dict.fromkeys(CATEGORIES, 1.0))
    _, pixels = metrics_tables(evaluation, 80)
    assert list(pixels.columns[0].cells) == ["bolt"]


# --- gates ---------------------------------------------------------------------------------------


def test_gates_are_read():
    assert parse_gates(["0.9", "pixel_aupro=0.85", "image_f1=1"]) == (
        Gate("image_auroc", 0.9),
        Gate("pixel_aupro", 0.85),
        Gate("image_f1", 1.0),
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("95", "not per cent"),
        ("-0.1", "share from 0 to 1"),
        ("nan", "share from 0 to 1"),
        ("much", "'much' is not a number"),
        ("aupro=0.9", "no metric 'aupro'"),
        ("=0.9", "no metric ''"),
        ("pixel_aupro=", "'' is not a number"),
        ("threshold=0.5", "no metric 'threshold'"),
    ],
)
def test_gates_that_cannot_be(text, fault):
    with pytest.raises(SettingsError, match=fault) as caught:
        parse_gates(["0.9", text])
    assert "pixel_aupro" in caught.value.next_step
    assert caught.value.exit_code == 2


def test_all_wrong_gates_are_listed():
    with pytest.raises(SettingsError) as caught:
        parse_gates(["95", "x=0.1"])
    assert caught.value.cause.count("--min") == 2


def test_every_metric_has_a_heading():
    assert set(COLUMNS) == set(Metrics.model_fields)


# --- files and command ---------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path):
    made = save_bundle(tmp_path / "bundle", "auto", precisions=("fp32", "int8"))
    limit = Threshold(value=0.31, pictures=3, rule="largest score of held-out good pictures")
    thresholds = {"fp32": {"bolt": limit, "nut": limit.model_copy(update={"value": 10.33})}}
    write_manifest(made.path, made.manifest.model_copy(update={"thresholds": thresholds}))
    return open_bundle(made.path)


def invoke(*arguments):
    import typer

    from hvq_edge.cli.eval_ import evaluate as command

    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_files_of_a_bundle(bundle, data):
    found = evaluate_target(bundle.path, data, precision="fp32", backend="onnxruntime")
    assert found.metrics == bundle.path / "eval-fp32" / "metrics.json"
    content = read_metrics(found.metrics)
    assert content == found.content
    (only,) = content.evaluations
    assert only.category == "chosen"
    assert only.categories[0].false_rejects == 1
    assert only.pictures[0].path.startswith("bolt/test/")
    assert content.precision == "fp32"
    page = found.report.read_text(encoding="utf-8")
    assert "rejected above 0.31, the threshold in use" in page
    assert str(data.name) in page


def test_the_command_prints_the_table(bundle, data, tmp_path):
    out = tmp_path / "out here"
    done = invoke(bundle.path, "--data", data, "--precision", "fp32", "--out", out)
    assert done.exit_code == 0, done.output
    assert "66.7" in done.stdout
    assert (out / "metrics.json").is_file()
    assert (out / "report.html").is_file()


def test_without_data_it_is_the_runs(bundle, data):
    alone = invoke(bundle.path, "--precision", "fp32", "--backend", "onnxruntime")
    assert isinstance(alone.exception, DatasetError)
    assert "--data DIR" in alone.exception.next_step
    write_run(bundle.path.parent, run_record(data=str(data)))
    done = invoke(bundle.path, "--precision", "fp32", "--backend", "onnxruntime", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["data"] == str(data.resolve())


def test_the_command_prints_json_alone(bundle, data):
    done = invoke(bundle.path, "--data", data, "--backend", "onnxruntime", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["evaluations"][0]["mean"]["image_auroc"] == pytest.approx(5 / 6)


def test_the_gate(bundle, data):
    arguments = (bundle.path, "--data", data, "--precision", "fp32", "--min")
    assert invoke(*arguments, "0.8").exit_code == 0
    failed = invoke(*arguments, "0.9")
    assert isinstance(failed.exception, GateFailed)
    assert "0.8333" in failed.exception.cause
    assert failed.exception.exit_code == 1
    assert (bundle.path / "eval-fp32/report.html").is_file()  # to see why
    assert invoke(*arguments, "category_accuracy=1").exit_code == 0  # the limit itself will do
    both = invoke(*arguments, "0.9", "--min", "pixel_aupro=1", "--min", "pixel_auroc=0.5")
    assert both.exception.cause.startswith("the mean image AUROC is 0.8333")
    assert "; the mean pixel AUPRO is" in both.exception.cause
    assert "pixel AUROC" not in both.exception.cause


def test_wrong_gates_are_refused_before_the_work(bundle, data):
    refused = invoke(bundle.path, "--data", data, "--min", "95")  # a share, not per cent
    assert isinstance(refused.exception, SettingsError)
    assert not (bundle.path / "eval-int8").exists()
    assert not (bundle.path / "eval-fp32").exists()


def test_a_gate_without_defects_is_an_error(bundle, data):
    for path in data.glob("*/test/bright/*.png"):
        path.unlink()
    for gate, why in (
        ("0.5", "both good and defective"),
        ("pixel_ap=0.5", "no category has masks"),
    ):
        failed = invoke(bundle.path, "--data", data, "--min", gate)
        assert isinstance(failed.exception, DatasetError)
        assert why in failed.exception.cause


def test_a_place_that_cannot_be_written_is_refused_first(bundle, data, tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")

    def never(*_, **__):
        raise AssertionError("worked before looking at the output folder")

    with pytest.raises(OutputError):
        evaluate_target(bundle.path, data, out=tmp_path / "file/below", on_progress=never)


def test_neither_run_nor_bundle(data, tmp_path):
    failed = invoke(tmp_path / "nowhere", "--data", data)
    assert isinstance(failed.exception, RunError)
    assert "hvq-edge train" in failed.exception.next_step


def test_options_that_do_not_fit_a_run(tmp_path, data):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}", encoding="utf-8")
    for option in ({"precision": "int8"}, {"backend": "openvino"}):
        with pytest.raises(SettingsError, match=r"training run|fp32 only"):
            open_engine(run, **option)


def test_info_is_that_of_the_engine(bundle, data):
    found = evaluate_target(bundle.path, data, precision="int8", backend="onnxruntime")
    assert found.info == replace(found.info, backend="onnxruntime", precision="int8")
    assert found.report.parent.name == "eval-int8"
    assert found.evaluations[0].categories[0].threshold is None  # thresholds are fp32's only


# --- metrics.json of other versions --------------------------------------------------------------

OLD = """{"format": "hvq-edge-metrics/1", "hvq_edge_version": "0.1.0",
"created": "2026-11-23T20:54:57+00:00", "target": "/r", "data": "/d", "backend": "torch",
"precision": "fp32", "device": "cpu", "evaluations": [{"category": "known",
"mean": {"image_auroc": 0.9, "image_ap": 0.8, "image_f1": 0.7, "pixel_auroc": null,
"pixel_ap": null, "category_accuracy": null},
"categories": [{"image_auroc": 0.9, "image_ap": 0.8, "image_f1": 0.7, "pixel_auroc": null,
"pixel_ap": null, "category_accuracy": null, "category": "bolt", "good": 2, "defective": 1,
"image_f1_threshold": 0.5, "threshold": null, "false_rejects": null, "missed": null}],
"pictures": [{"path": "bolt/test/good/0.png", "category": "bolt", "judged_as": "bolt",
"good": true, "score": 0.25}], "unreadable": {}}]}"""
"""As 0.1.0 wrote it."""


def names_in(value, place=""):
    """Every key of a JSON document with the keys above it."""
    if isinstance(value, dict) and not place.endswith("unreadable"):
        for key, below in value.items():
            yield f"{place}/{key}"
            yield from names_in(below, f"{place}/{key}")
    elif isinstance(value, list):
        for below in value:
            yield from names_in(below, place)


def test_files_of_0_1_0_can_be_read(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(OLD, encoding="utf-8")
    found = read_metrics(path).evaluations[0]
    assert found.mean.image_auroc == 0.9
    assert found.mean.pixel_aupro is None
    assert found.categories[0].regions is None


def test_readers_of_0_1_0_find_all_they_know(bundle, data):
    """Who read the file by its keys still can."""
    found = evaluate_target(bundle.path, data, precision="fp32", backend="onnxruntime")
    now = set(names_in(json.loads(found.metrics.read_text(encoding="utf-8"))))
    assert set(names_in(json.loads(OLD))) <= now


def test_files_of_later_versions_can_be_read(tmp_path):
    later = json.loads(OLD)
    later["operator"] = "Ada"
    later["evaluations"][0]["mean"]["pixel_spro"] = 0.5
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(later), encoding="utf-8")
    assert read_metrics(path) == MetricsFile.model_validate_json(OLD)


@pytest.mark.parametrize(
    "content", [OLD.replace("metrics/1", "metrics/2"), "{}", "no JSON", "\xff", OLD[:-30]]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match="not a file of metrics"):
        read_metrics(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_metrics(tmp_path / "missing.json")


METRICS_PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "model", [MetricsFile, EvaluationRecord, PictureRow, Metrics, CategoryMetrics]
)
def test_the_page_about_metrics_has_every_field(model):
    for field in model.model_fields:
        assert f"| `{field}` |" in METRICS_PAGE, f"docs/metrics.md should say what {field} is"


def test_the_page_about_metrics_has_no_field_of_its_own():
    models = (MetricsFile, EvaluationRecord, PictureRow, Metrics, CategoryMetrics)
    known = {field for model in models for field in model.model_fields}
    assert set(re.findall(r"^\| `(\w+)` \|", METRICS_PAGE, re.MULTILINE)) == known
