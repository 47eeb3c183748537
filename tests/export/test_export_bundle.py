"""The bundle that an export writes: thresholds, calibration images, nothing lost on failure."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from helpers.one_trace import one_trace

import hvq_edge
from hvq_edge.bench.entrants import entrants_of
from hvq_edge.bench.measure import run_benchmark
from hvq_edge.bundle.integrity.content import CARD_NAME
from hvq_edge.bundle.manifest import AddedCategory, LearntImages, write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.cli.app import main
from hvq_edge.data.content import hash_image
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.errors import CheckpointError, GateFailed, InputError, OutputError, SettingsError
from hvq_edge.explain.exemplars import exemplars_of_bundle
from hvq_edge.export.export_run import export_run
from hvq_edge.export.fold.folded import FoldedHVQTrans
from hvq_edge.export.graph.onnx_graph import export_graph
from hvq_edge.model import load_run
from hvq_edge.run.record import read_run, write_run
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.verdict.calibrate.expected_rate import expected_rate
from hvq_edge.verdict.calibrate.from_images import calibrate_run
from hvq_edge.verdict.judgement import judgements, refusal


@pytest.fixture(autouse=True)
def each_export_traces_once() -> Iterator[None]:
    with one_trace():
        yield


def test_bundle_has_thresholds_of_held_out_images(small_bundle, small_run):
    bundle = open_bundle(small_bundle)
    manifest, record = bundle.manifest, read_run(small_run)
    assert manifest.categories == ("solar_cell_mono", "solar_cell_poly")
    assert manifest.category_mode == "auto"
    held_out = {p.sha256 for p in record.images if p.use == "held_out"}
    assert set(manifest.threshold_images) == held_out
    assert manifest.calibration is not None
    calibration = set(manifest.calibration.images)
    assert calibration
    assert not calibration & held_out
    data = Path(record.data)
    for precision in ("fp32", "int8"):
        engine = open_engine(bundle, precision=precision)
        scores = {use: {name: [] for name in manifest.categories} for use in ("fit", "held_out")}
        for image in record.images:
            frame = read_frame(data / image.path, manifest.input_side)
            (judged,) = judgements(engine.run(frame[None]), manifest.categories)
            if refusal(judged, bundle.checks.fault(frame, judged)) is None:
                scores[image.use][judged.category].append(judged.score)
        engine.close()
        for name, threshold in manifest.thresholds[precision].items():
            unseen, learnt = (np.sort(scores[use][name]) for use in ("held_out", "fit"))
            found = expected_rate(unseen, 0.05, learnt=learnt)
            assert threshold.value == pytest.approx(found.value, rel=1e-4)
            assert (threshold.images, threshold.bound.learnt) == (len(unseen), len(learnt))
            assert threshold.bound.expected == 0.05 < threshold.bound.rate


def test_a_threshold_names_the_highest_held_out_image_that_passes(small_bundle, small_run):
    threshold = open_bundle(small_bundle).manifest.thresholds["fp32"]["solar_cell_mono"]
    record = read_run(small_run)
    assert threshold.highest_image in {p.path for p in record.images if p.use == "held_out"}
    assert threshold.median <= threshold.value

    def alone(value: float, second: float | None, median: float) -> bool:
        changes = {"value": value, "next_highest": second, "median": median}
        return threshold.model_copy(update=changes).set_by_one_image

    assert alone(13.2, 8.0, 4.0)
    assert not alone(8.5, 8.0, 4.0)
    assert not alone(13.2, None, 13.2)
    assert alone(-1.0, -5.0, -6.0), "scores may be negative"


def test_one_category_bundle(small_run, tmp_path):
    out, models = tmp_path / "one", tmp_path / "models"
    bundle = hvq_edge.export_bundle(
        str(small_run), str(out), category="solar_cell_poly", triton=str(models), exemplars=True
    )
    assert bundle == open_bundle(out)
    assert [one.name for one in models.iterdir()] == ["hvq_edge_fp32"]
    assert bundle.manifest.categories == ("solar_cell_poly",)
    assert list(bundle.manifest.thresholds["fp32"]) == ["solar_cell_poly"]
    mono = {p.sha256 for p in read_run(small_run).images if p.category == "solar_cell_mono"}
    assert not mono & set(bundle.manifest.threshold_images)
    shown = exemplars_of_bundle(bundle, "solar_cell_poly")
    assert set(shown.sha256) <= {one.sha256 for one in read_run(small_run).images} - mono
    assert "carries good training images" in (out / CARD_NAME).read_text("utf-8")


def test_product_images_are_in_a_bundle_only_if_asked_for(small_bundle):
    assert not any("exemplars" in name for name in open_bundle(small_bundle).manifest.files)
    assert not (small_bundle / "exemplars").exists()


def test_a_new_export_says_what_it_rests_on_and_what_went(
    small_run, small_bundle, tmp_path, capsys
):
    assert "int8" in open_bundle(small_bundle).manifest.models
    run = shutil.copytree(small_run, tmp_path / "run")
    source = "good images of 2024-05-02, another day by EXIF"
    record = read_run(run).model_copy(update={"held_out_from": {"solar_cell_poly": source}})
    write_run(run, record)
    former = run / "bundle"
    images = {"images": ("0" * 64,), "before": "1" * 64, "created": "2026-01-01T00:00:00+00:00"}
    learnt = LearntImages(category="solar_cell_mono", replaced={}, **images)
    added = AddedCategory(category="a bolt", held_out=(), codes_of="solar_cell_mono", **images)
    manifest = open_bundle(former).manifest
    update = {"learnt": (learnt, learnt), "added": (added,)}
    write_manifest(former, manifest.model_copy(update=update))
    for name in ("engines/tensorrt-10.3.0-sm87-fp32.plan", "bundle.sig"):
        (former / name).parent.mkdir(exist_ok=True)
        (former / name).touch()
    with pytest.raises(SystemExit) as stop:
        main(["export", str(run), "--category", "solar_cell_poly"])
    assert not stop.value.code
    (threshold,) = open_bundle(run / "bundle").manifest.thresholds["fp32"].values()
    assert threshold.bound.source == source
    said = capsys.readouterr()
    assert f"The threshold of solar_cell_poly rests on {source}." in said.out
    assert "int8 of the former bundle went with it: hvq-edge export --int8 writes" in said.err
    assert f"engines of the former bundle are gone: run hvq-edge build {former} again" in said.err
    assert "is gone: run hvq-edge add-category 'a bolt' --good DIR" in said.err
    assert f"of solar_cell_mono is gone: run hvq-edge learn {former} --good DIR again" in said.err
    assert f"signature of the former bundle is gone: run hvq-edge sign {former} again" in said.err
    assert said.err.count("Warning: ") == 5


def test_unknown_category(small_run, tmp_path):
    with pytest.raises(InputError, match="'gadget'; it has solar_cell_mono, solar_cell_poly"):
        export_run(small_run, tmp_path / "out", category="gadget")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_bundle_is_left_alone(small_run, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"dear")
    with pytest.raises(OutputError, match="is not a bundle"):
        export_run(small_run, tmp_path)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"dear"


def test_a_failed_export_keeps_the_bundle_that_was_there(
    small_run, small_bundle, tmp_path, monkeypatch
):
    out = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def break_down(_model, path: Path, *_rest, **options) -> None:
        path.write_bytes(b"half a graph")
        raise RuntimeError("power cut")

    monkeypatch.setattr("hvq_edge.export.export_run.export_graph", break_down)
    with pytest.raises(RuntimeError, match="power cut"):
        export_run(small_run, out, category="input")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.long
def test_own_calibration_images(small_run, solar_cells, tmp_path):
    own = tmp_path / "own images"
    for name in ("solar_cell_mono", "solar_cell_poly"):
        some = sorted((solar_cells / name / "train" / "good").iterdir())[:12]
        (own / name / "good").mkdir(parents=True)
        for path in some:
            shutil.copy(path, own / name / "good" / path.name)
    held_out = {p.sha256 for p in read_run(small_run).images if p.use == "held_out"}
    for path in own.rglob("*.*"):
        if hash_image(path) in held_out:  # a brightness step more: the same cell, another image
            cv2.imwrite(str(path), cv2.imread(str(path)) + np.uint8(1))
    bundle = export_run(small_run, tmp_path / "b", int8=True, calibration=own, ranges="mse")
    assert bundle.manifest.calibration.method.endswith("ranges: mse")
    assert bundle.manifest.calibration is not None
    assert "--calib" in bundle.manifest.calibration.rule
    found = find_dataset(own).train_good()
    assert set(bundle.manifest.calibration.images) == {hash_image(p.path) for p in found}


def test_own_calibration_images_of_other_parts(small_run, mvtec_folder, tmp_path):
    with pytest.raises(
        InputError,
        match=r"no good images of solar_cell_mono, at least .*_poly",
    ):
        export_run(small_run, tmp_path / "b", int8=True, calibration=mvtec_folder)


def test_unknown_ranges(small_run, tmp_path):
    with pytest.raises(SettingsError, match="'best' are none of minmax, percentile"):
        export_run(small_run, tmp_path / "b", int8=True, ranges="best")
    with pytest.raises(SettingsError, match="max_drop"):
        hvq_edge.export_bundle(small_run, tmp_path / "b", int8=True, max_drop=-1)


def test_calibration_without_the_feature_cache_chooses_the_same(small_run, small_bundle, tmp_path):
    copied = Path(shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("b*")))
    (copied / "features.npy").unlink()
    bundle = export_run(copied, tmp_path / "b", int8=True)
    assert bundle.manifest.calibration == open_bundle(small_bundle).manifest.calibration
    assert not (copied / "features.npy").exists()


def test_a_model_without_classifier_needs_a_category(small_run, tmp_path):
    bare = copy.deepcopy(load_run(small_run)[0])
    bare.classifier.fitted.fill_(False)
    with pytest.raises(CheckpointError, match="cannot choose the category"):
        export_graph(bare, tmp_path / "x.onnx", "auto")
    assert FoldedHVQTrans(bare, "input").folds


def test_the_bundle_says_what_folding_saved(small_bundle):
    bundle = open_bundle(small_bundle)
    graph = bundle.manifest.graph
    assert graph is not None
    assert graph.exported.bytes == bundle.model_file("fp32").stat().st_size
    assert graph.exported.nodes < graph.plain.nodes
    assert graph.exported.multiply_adds < graph.plain.multiply_adds
    assert graph.exported.tables > graph.plain.tables == 0


def test_a_graph_that_breaks_a_rule_leaves_no_bundle(small_run, tmp_path, monkeypatch):
    def broken(model, path, *arguments, **options):
        folds = export_graph(model, path, *arguments, **options)
        proto = onnx.load(path)
        weight = next(t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
        values = onnx.numpy_helper.to_array(weight) * np.float32(np.nan)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(proto, path)
        return folds

    monkeypatch.setattr("hvq_edge.export.export_run.export_graph", broken)
    with pytest.raises(GateFailed, match="finite-constants"):
        export_run(small_run, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


# What reads the bundle beside its run: calibrate and bench.


def test_images_learnt_from_are_left_out(small_bundle, solar_cells, tmp_path):
    """On a real bundle beside its run: of all good images only the unseen ones are left."""
    own = tmp_path / "bundle"
    own.mkdir()
    for file in small_bundle.iterdir():
        if file.is_file():
            (own / file.name).write_bytes(file.read_bytes())
    run = small_bundle.parent
    done = calibrate_run(own, solar_cells, precisions=["int8"], run=run, force=True)
    fit = {p.sha256 for p in read_run(small_bundle.parent).images if p.use == "fit"}
    manifest = open_bundle(own).manifest
    assert not fit & set(manifest.threshold_images)
    assert not set(manifest.calibration.images) & set(done.bundle.manifest.threshold_images)
    assert any("learnt from in training" in note for note in done.notes)
    former = open_bundle(small_bundle).manifest.thresholds
    assert manifest.thresholds["fp32"] == former["fp32"], "the other precision keeps its own"
    for name, threshold in manifest.thresholds["int8"].items():
        assert threshold.bound.asked == 0.05
        assert former["int8"][name].bound.asked == 0.05
        assert former["int8"][name].rule == str(former["int8"][name].bound)


def test_the_pytorch_model_of_the_run_is_the_reference(small_bundle):
    opened = open_bundle(small_bundle)
    entrants = entrants_of(opened, backends=["torch", "openvino"], precisions=["fp32"])
    assert [entrant.name for entrant in entrants] == ["PyTorch fp32", "openvino fp32"]
    only = entrants_of(opened, backends=["onnxruntime"], precisions=["fp32"])
    assert [entrant.name for entrant in only] == ["onnxruntime fp32"]
    report = run_benchmark(opened, entrants, batches=[1], rounds=1, memory=False)
    assert report.reference == "PyTorch fp32"
    assert "PyTorch" in report.resources["PyTorch fp32"].device
