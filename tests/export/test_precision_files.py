"""All four files of a trained model: they agree, a plan is kept to, ranges are measured once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.small_graphs import write_int8
from onnx import numpy_helper

from benchmarks.accuracy import precision as precision_benchmark
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.calibration import int8
from hvq_edge.calibration.images.own_set import CalibrationImage
from hvq_edge.calibration.quantise import quantisable_nodes
from hvq_edge.calibration.ranges.amax import METHODS
from hvq_edge.calibration.search import evidence, find_plan
from hvq_edge.calibration.search.evidence import effect_of, gather_evidence, results_on
from hvq_edge.calibration.search.plan import PLAN_NAME, Budget, Plan, read_plan, write_plan
from hvq_edge.calibration.search.trade_off_plot import PLOT_NAME
from hvq_edge.calibration.weights.gptq import gptq_weights
from hvq_edge.cli.app import main
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.errors import BundleError, InputError, SettingsError
from hvq_edge.export import precision_files
from hvq_edge.export.export_run import export_run
from hvq_edge.export.precision_files import Material, PrecisionOptions, write_precision_files
from hvq_edge.export.verify.verify import verify_bundle
from hvq_edge.run.record import read_run
from hvq_edge.runtime.contract import Graph
from hvq_edge.runtime.cpu.onnxruntime_engine import OnnxRuntimeEngine
from hvq_edge.runtime.open_engine import open_engine


@pytest.fixture(scope="module")
def run(solar_run, tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("precision") / "run"
    return Path(shutil.copytree(solar_run, copy, ignore=shutil.ignore_patterns("bundle")))


def int8_nodes(path: Path) -> set[str]:
    graph = onnx.load(path).graph
    weights = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    return {n.name for n in graph.node if len(n.input) > 1 and n.input[1] in weights}


def test_four_files_that_decide_alike(four_files, run, solar_cells):
    bundle = four_files
    manifest = bundle.manifest
    assert set(manifest.models) == {"fp32", "fp16", "int8", "int8-fp16"}
    assert set(manifest.thresholds) == set(manifest.models)
    sizes = {name: manifest.files[file].bytes for name, file in manifest.models.items()}
    assert sizes["int8-fp16"] < sizes["int8"] < sizes["fp32"]
    assert sizes["fp16"] < sizes["fp32"]
    assert manifest.fp16 is not None
    assert manifest.fp16.nodes > 50
    assert 0 < manifest.fp16.amax < 65504
    plan = read_plan(bundle.file(PLAN_NAME))
    assert plan.made_by == "rule"
    candidates = quantisable_nodes(onnx.load(bundle.model_file("fp32")))
    assert int8_nodes(bundle.model_file("int8")) == set(plan.int8_layers(candidates))
    assert int8_nodes(bundle.model_file("int8")) == int8_nodes(bundle.model_file("int8-fp16"))
    found = verify_bundle(bundle.path, run, solar_cells, most_images=12)
    for row in found.comparisons:
        assert row.passed, (row.precision, row.runner, row.faults)
        assert row.map_correlation > (0.9999 if row.precision == "fp32" else 0.98)
    worst = {row.precision: min(row.code_agreement) for row in found.comparisons}
    assert worst["fp32"] > worst["int8"]
    assert worst["fp16"] > worst["int8-fp16"] - 0.02


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-fp16"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_batch_of_8_gives_what_8_images_give(four_files, solar_cells, precision, backend):
    paths = [image.path for image in find_dataset(solar_cells).test()][:8]
    frames = np.stack([read_frame(path, four_files.manifest.input_side) for path in paths])
    with open_engine(four_files, precision=precision, backend=backend) as engine:
        together = engine.run(frames)
        alone = [engine.run(frame[None]) for frame in frames]
    maps = np.concatenate([output["map"] for output in alone])
    assert np.corrcoef(maps.ravel(), together["map"].ravel())[0, 1] > 0.999
    scores = np.concatenate([output["score"] for output in alone])
    assert np.abs(scores - together["score"]).max() < 0.1 * np.ptp(scores)
    assert (np.concatenate([o["category"] for o in alone]) == together["category"]).all()


@pytest.fixture(scope="module")
def held_out(run, four_files):
    record = read_run(run)
    held = [Path(record.data) / p.path for p in record.images if p.use == "held_out"][:24]
    return gather_evidence(held, [0] * len(held), four_files.manifest.input_side)


def judged(path: Path, manifest, images):
    graph = Graph(path, "int8", manifest.frame_shape, manifest.categories, "auto")
    with OnnxRuntimeEngine(graph) as engine:
        return results_on(engine, images, takes_category=False)


@pytest.fixture(scope="module")
def float_judged(four_files, held_out):
    return judged(four_files.model_file("fp32"), four_files.manifest, held_out)


@pytest.fixture(scope="module")
def weights_by_images() -> dict[tuple[Path, ...], dict[str, np.ndarray]]:
    return {}


@pytest.mark.parametrize("method", METHODS)
def test_every_way_to_choose_ranges_agrees(
    four_files, run, held_out, float_judged, weights_by_images, method, tmp_path, monkeypatch
):
    """The same images give the same INT8 weights in every way, so these are made once."""

    def weights(source, layers, frames, *arguments, **options):
        key = tuple(frames)
        if key not in weights_by_images:
            weights_by_images[key] = gptq_weights(source, layers, frames, *arguments, **options)
        return weights_by_images[key]

    monkeypatch.setattr(int8, "gptq_weights", weights)
    record = read_run(run)
    calibration = [Path(record.data) / p.path for p in record.images if p.use == "fit"][:16]
    target = tmp_path / "int8.onnx"
    side = four_files.manifest.input_side
    write_int8(four_files.model_file("fp32"), target, calibration, side, method=method)
    found = judged(target, four_files.manifest, held_out)
    effect = effect_of(float_judged, found, held_out)
    assert effect.codes > 0.9
    assert effect.maps > 0.98
    assert effect.scores > 0.98
    assert abs(effect.drop) < 3


@pytest.mark.long
def test_the_benchmark_of_all_four(four_files, solar_cells, tmp_path, capsys):
    out = tmp_path / "n.json"
    arguments = [str(four_files.path), str(solar_cells), "--rounds", "25", "--out", str(out)]
    precision_benchmark.main(arguments)
    printed = capsys.readouterr().out
    assert "image AUROC, solar_cell_mono" in printed
    numbers = json.loads(out.read_text())
    assert numbers["images"] == len(find_dataset(solar_cells).test())
    rows = numbers["rows"]
    assert rows["fp32"]["codes"] == rows["fp32"]["time"] == 1
    assert 0.9 < rows["int8"]["codes"] < 1
    assert 0.9 < rows["fp16"]["codes"] <= 1
    for row in rows.values():  # of 16 images a category, one pair that changes places is 0.016
        for category, auroc in row["auroc"].items():
            assert auroc > rows["fp32"]["auroc"][category] - 0.05, category
    assert all(0.3 < row["time"] < 5 for row in rows.values())


def test_the_benchmark_needs_all_four(solar_bundle, solar_cells, capsys):
    with pytest.raises(SystemExit) as ended:
        precision_benchmark.main([str(solar_bundle), str(solar_cells)])
    assert ended.value.code == 2
    assert "no fp16, int8-fp16 file" in capsys.readouterr().err


def test_ranges_are_measured_once_for_a_graph(four_files, run, tmp_path, monkeypatch):
    measured = []
    real = int8.measure_ranges

    def counted(*arguments, **options):
        measured.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(int8, "measure_ranges", counted)
    monkeypatch.setattr(int8, "gptq_weights", lambda *_, **__: {})  # not looked at
    record = read_run(run)
    frames = [Path(record.data) / p.path for p in record.images if p.use == "fit"][:8]
    source, side = four_files.model_file("fp32"), four_files.manifest.input_side
    kept = {"cache": tmp_path / "ranges"}
    first = int8.calibrate_graph(source, frames, side, **kept)
    assert int8.calibrate_graph(source, frames, side, **kept) == first
    assert len(measured) == 1
    int8.calibrate_graph(source, frames, side, method="minmax", **kept)
    int8.calibrate_graph(source, frames[1:], side, **kept)
    graph = onnx.load(source)
    weight = next(one for one in graph.graph.initializer if len(one.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) / 2, weight.name))
    onnx.save(graph, tmp_path / "other.onnx")
    assert int8.calibrate_graph(tmp_path / "other.onnx", frames, side, **kept) != first
    assert len(measured) == 4, "a method, a set of images and a graph have ranges of their own"


@pytest.mark.long
def test_a_search_writes_the_plan_it_used(small_run, tmp_path, monkeypatch):
    def some(graph: onnx.ModelProto) -> tuple[str, ...]:
        """A few layers instead of 53: each is measured."""
        near = ("backbone.stem", "backbone.blocks.0", "decoder.0")
        return tuple(name for name in quantisable_nodes(graph) if name.startswith(near))

    for module in (find_plan, int8, precision_files):
        monkeypatch.setattr(module, "quantisable_nodes", some)
    monkeypatch.setattr(evidence, "MOST_IMAGES", 5)
    budget = Budget(max_drop=5.0, min_code_agreement=0.98)
    own = Path(shutil.copytree(small_run, tmp_path / "run"))  # measurements are kept below it
    found = export_run(own, tmp_path / "found", int8=True, budget=budget)
    plan = read_plan(found.file(PLAN_NAME))
    assert plan.made_by == "search"
    assert plan.effect is not None
    assert budget.holds(plan.effect)
    assert found.file(PLOT_NAME).read_text().startswith("<svg")
    record = found.manifest.calibration
    assert record is not None
    assert (record.plan_by, record.float_layers) == ("search", len(plan.float_layers))
    assert 0 < len(plan.float_layers) < len(some(onnx.load(found.model_file("fp32"))))
    chosen = set(plan.int8_layers(some(onnx.load(found.model_file("fp32")))))
    assert int8_nodes(found.model_file("int8")) == chosen


def test_a_plan_by_hand(small_bundle, small_run, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    candidates = quantisable_nodes(onnx.load(open_bundle(small_bundle).model_file("fp32")))
    keep = {name: "mine" for name in candidates if not name.startswith("decoder")}
    write_plan(path, Plan(made_by="hand", float_layers=keep))
    command = ["export", str(small_run), "--int8", "--plan", str(path)]
    command += ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["calibration"]["plan_by"] == "hand"
    expected = {name for name in candidates if name.startswith("decoder")}
    assert int8_nodes(tmp_path / "out" / "model.int8.onnx") == expected


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"plan": "missing.toml", "int8": True}, InputError, "cannot read the INT8 plan"),
        ({"budget": Budget()}, SettingsError, "not asked for"),
        ({"plan": "p", "budget": Budget(), "int8": True}, SettingsError, "both given"),
    ],
)
def test_what_does_not_fit_is_said_first(run, tmp_path, options, error, message):
    if "plan" in options:
        options = {**options, "plan": Path(options["plan"])}
    with pytest.raises(error, match=message):
        export_run(run, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_plan_of_another_model_is_not_used(four_files, run, tmp_path):
    source = Path(shutil.copy(four_files.model_file("fp32"), tmp_path))
    record = read_run(run)
    fit = [image for image in record.images if image.use == "fit"][:8]
    material = Material(
        run=tmp_path / "run",
        source=source,
        size=four_files.manifest.input_side,
        mode="auto",
        categories=record.categories,
        images=[CalibrationImage(Path(record.data) / p.path, p.category, p.sha256) for p in fit],
        rule="",
        held_out=[],
    )
    write_plan(tmp_path / "p.toml", Plan(made_by="hand", float_layers={"x/Conv": "?"}))
    with pytest.raises(InputError, match="does not have: x/Conv"):
        write_precision_files(material, PrecisionOptions(int8=True, plan=tmp_path / "p.toml"))
    assert not (tmp_path / PLAN_NAME).exists()
    assert not (tmp_path / "model.int8.onnx").exists()


@pytest.mark.parametrize(
    ("precision", "flags"), [("fp16", "--fp16"), ("int8-fp16", "--int8 --fp16")]
)
def test_a_missing_file_names_its_flag(solar_bundle, precision, flags):
    with pytest.raises(BundleError) as caught:
        open_bundle(solar_bundle).model_file(precision)
    assert caught.value.next_step == f"run hvq-edge export {flags}"
