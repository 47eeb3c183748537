"""``hvq-edge eval``: its files, what it prints, what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("onnx")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
from helpers.images import make_texture, write_png
from helpers.run_records import record as run_record
from helpers.spotted_parts import bundle, data, draw  # noqa: F401  # fixtures
from typer.testing import CliRunner

import hvq_edge
from hvq_edge.bundle.manifest import LearntImages, write_manifest
from hvq_edge.data.content import hash_image
from hvq_edge.data.dataset import find_dataset
from hvq_edge.design.language import language_of, speaking
from hvq_edge.errors import (
    BundleError,
    DatasetError,
    GateFailed,
    OutputError,
    RunError,
    SettingsError,
)
from hvq_edge.evaluation.evaluate_target import evaluate_target
from hvq_edge.evaluation.metrics.metrics_file import read_metrics
from hvq_edge.run.record import ImageRecord, write_run
from hvq_edge.runtime.open_engine import open_engine


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
    assert only.images[0].path.startswith("bolt/test/")
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


def test_images_added_since_the_training_bring_others_into_the_test(bundle, tmp_path):
    """The plain layout chooses a fifth of all that lie there: what was learnt from is tested."""
    data = tmp_path / "plain"
    draw(data / "bolt/dent/0.png", "bolt", 150)
    for number in range(20):
        write_png(data / f"bolt/good/{number}.png", make_texture(number))
    learnt = {hash_image(image.path) for image in find_dataset(data).train_good()}
    images = tuple(ImageRecord(path="", category="bolt", sha256=one, use="fit") for one in learnt)
    checkpoint = bundle.manifest.checkpoint_sha256
    write_run(bundle.path.parent, run_record(images=images, checkpoint_sha256=checkpoint))
    arguments = (bundle.path, "--data", data, "--precision", "fp32", "--backend", "onnxruntime")
    assert "served training" not in invoke(*arguments).output
    for number in range(20, 60):
        write_png(data / f"bolt/good/{number}.png", make_texture(number))
    test = find_dataset(data).test()
    moved = sum(hash_image(image.path) in learnt for image in test)
    assert 0 < moved < len(learnt)
    with speaking(language_of("de")):
        done = invoke(*arguments)
    said = f"{moved} of {len(test)} test images served training or thresholds too: "
    assert f"Note: {said}" in done.output
    page = (bundle.path / "eval-fp32/report.html").read_text(encoding="utf-8")
    assert f'<p class="warn">{moved} von {len(test)} Prüfbilder' in page


def test_test_images_that_only_the_bundle_knows(bundle, data):
    """Those of a calibration, and those learnt since the export: no run is at hand."""
    spots = data / "bolt/test/good"
    one, other = (hash_image(spots / name) for name in ("000.png", "004.png"))
    learnt = LearntImages(
        category="bolt", created="", images=(other,), replaced={}, before="0" * 64
    )
    update = {"threshold_images": (one,), "learnt": (learnt,)}
    write_manifest(bundle.path, bundle.manifest.model_copy(update=update))
    found = evaluate_target(bundle.path, data, precision="fp32", backend="onnxruntime")
    assert found.notes[0].startswith("2 of 11 test images served")


def test_the_command_prints_json_alone(bundle, data):
    done = invoke(bundle.path, "--data", data, "--backend", "onnxruntime", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["evaluations"][0]["mean"]["image_auroc"] == pytest.approx(5 / 6)


def test_all_precisions_stand_beside_each_other(bundle, data, tmp_path):
    done = invoke(bundle.path, "--data", data, "--precision", "all", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    contents = {
        name: read_metrics(tmp_path / "out" / f"eval-{name}" / "metrics.json")
        for name in ("fp32", "int8")
    }
    table = [line.split() for line in done.stdout.splitlines()]
    for name, content in contents.items():
        assert content.precision == name
        for one in content.evaluations[-1].categories:
            (row,) = [
                row
                for before, row in zip([[], *table], table, strict=False)
                if row[:2] == [one.category, name]
                or (row[:1] == [name] and before[:1] == [one.category])
            ]
            numbers = row[row.index(name) + 1 :]
            assert numbers[0] == f"{100 * one.image_auroc:.1f}"
            counts = [(one.false_rejects, one.good), (one.missed, one.defective)]
            assert numbers[-3:-1] == ["–" if n is None else f"{n}/{of}" for n, of in counts]
    lines = done.stdout.partition("Test images")[2].splitlines()[1:9]
    assert max(len(line.rstrip()) for line in lines) <= 80
    given = invoke(bundle.path, "--data", data, "--precision", "all", "--json")
    said = json.loads(given.stdout)
    assert list(said) == ["fp32", "int8"]
    assert said["int8"]["precision"] == "int8"
    gate = invoke(bundle.path, "--data", data, "--precision", "all", "--min", "0.9")
    assert isinstance(gate.exception, GateFailed)


def test_all_precisions_of_a_run_are_those_of_the_bundle_in_it(bundle, data):
    run = bundle.path.parent
    write_run(run, run_record(data=str(data)))
    given = invoke(run, "--precision", "all", "--json")
    assert list(json.loads(given.stdout)) == ["fp32", "int8"]
    shutil.rmtree(bundle.path)
    refused = invoke(run, "--precision", "all")
    assert isinstance(refused.exception, BundleError)
    assert "hvq-edge export" in refused.exception.next_step
    assert isinstance(invoke(data, "--precision", "all").exception, RunError)


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
        with pytest.raises(BundleError, match="training run that was not exported"):
            open_engine(run, **option)
    with pytest.raises(SettingsError, match="fp32 only"):
        open_engine(run, precision="int8", backend="torch")
    with pytest.raises(SettingsError, match="none of auto"):
        open_engine(run, backend="openvno")


def test_a_run_with_a_precision_stands_for_its_bundle(bundle, data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(bundle.path, run / "bundle")
    (run / "run.json").write_text("{}", encoding="utf-8")
    found = hvq_edge.evaluate(str(run), str(data), precision="int8", backend="onnxruntime")
    assert found.info.precision == "int8"
    assert found.report.parent == run / "bundle" / "eval-int8"


def test_info_is_that_of_the_engine(bundle, data):
    found = evaluate_target(bundle.path, data, precision="int8", backend="onnxruntime")
    assert found.info == replace(found.info, backend="onnxruntime", precision="int8")
    assert found.report.parent.name == "eval-int8"
    assert found.evaluations[0].categories[0].threshold is None  # thresholds are fp32's only
