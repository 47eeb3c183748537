"""Verify: it passes what is right, and fails what is not."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.graphs import frames, save_bundle, save_graph
from helpers.patience import HANG_SECONDS
from onnx import numpy_helper
from polygraphy.json import load_json
from rich.console import Console

from hvq_edge.bundle.integrity.content import seal
from hvq_edge.bundle.integrity.self_test import self_test
from hvq_edge.bundle.manifest import record_of, write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.verification import Verification
from hvq_edge.cli.app import main
from hvq_edge.cli.verify import bisection_table
from hvq_edge.data.dataset import find_dataset
from hvq_edge.errors import BundleError, DatasetError, GateFailed
from hvq_edge.export.known_answers import KEPT
from hvq_edge.export.verify.bisect import bisect_graph
from hvq_edge.export.verify.module_outputs import bisect_modules, module_outputs
from hvq_edge.export.verify.runners import runners_of
from hvq_edge.export.verify.verify import choose_images, verify_bundle
from hvq_edge.model.checkpoint import load_run
from hvq_edge.runtime.known_answers import ANSWERS_NAME, CHECK_NAME, read_known_answers
from hvq_edge.runtime.open_engine import choose, open_engine


@pytest.fixture
def bundle(small_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


def test_verify_passes_a_right_bundle(bundle, small_run, solar_cells):
    found = verify_bundle(bundle, small_run, solar_cells, most_images=12)
    rows = {(row.precision, row.runner): row for row in found.comparisons}
    assert rows.keys() == {
        (precision, runner)
        for precision in ("fp32", "int8")
        for runner in ("ONNX Runtime", "OpenVINO")
    }
    for runner in ("ONNX Runtime", "OpenVINO"):
        row = rows["fp32", runner]
        assert row.passed, row.faults
        assert row.images == 12
        assert min(row.code_agreement) > 0.999
        assert not row.decisions_changed
        assert rows["int8", runner].score_error_max > 0, "INT8 was not what ran"
    written = Verification.model_validate_json((bundle / "verify.json").read_text())
    assert written == found
    not_run = {row.runner: row.reason for row in found.not_run}
    assert not_run == dict.fromkeys(("TensorRT", "TensorRT-RTX"), "the bundle has no engine of it")
    for row in found.comparisons:
        assert row.score_error_median <= row.score_error_p95 <= row.score_error_max
        assert row.margin_error_max is not None
        by_category = {one.category: one.images for one in row.decisions}
        assert by_category == {"solar_cell_mono": 6, "solar_cell_poly": 6}
    repeat_with_polygraphy(bundle, found)
    assert choose(open_bundle(bundle)).reason.startswith(
        ("int8: verified", "fp32: int8 is ")  # by speed
        if found.precisions["int8"].passed
        else "fp32: hvq-edge verify did not pass int8"
    )
    try_known_answers(bundle)


def repeat_with_polygraphy(bundle: Path, found: Verification) -> None:
    """The printed command, run as a user would, and on a damaged graph."""
    program = [
        sys.executable,
        "-c",
        "import sys; from polygraphy.tools import main; sys.exit(main())",
    ]
    _, *words = shlex.split(found.commands["fp32"])
    assert found.commands.keys() == {"fp32", "int8"}
    done = subprocess.run([*program, *words], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    for output in ("score", "map", "codes", "category", "margin"):
        assert f"'{output}' (dtype" in done.stdout + done.stderr, "not compared"
    saved = load_json(str(bundle / "verify" / "inputs.json"))
    assert [feed.keys() for feed in saved] == [{"frames"}] * 4
    names = {path.name for path in (bundle / "verify").iterdir()}
    assert names == {
        "inputs.json",
        "outputs-pytorch.json",
        *(f"outputs-{p}-{r}.json" for p in ("fp32", "int8") for r in ("onnx-runtime", "openvino")),
    }
    damaged = bundle / "damaged.onnx"
    save_changed(bundle / "model.fp32.onnx", damaged, "decoder_norm.weight", 2.0)
    words[words.index(str(bundle / "model.fp32.onnx"))] = str(damaged)
    done = subprocess.run([*program, *words], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 1, "the tolerances let everything pass"
    damaged.unlink()


def try_known_answers(bundle: Path) -> None:
    """What the export left is what a device tries itself with; a damaged graph does not pass."""
    opened = open_bundle(bundle)
    answers = read_known_answers(opened)
    assert answers is not None
    assert set(answers.precisions) == {"fp32", "int8"}
    assert len(answers.frames) == KEPT
    for precision in ("fp32", "int8"):
        for backend in ("onnxruntime", "openvino"):
            open_engine(opened, precision=precision, backend=backend).close()
    tight, loose = (answers.precisions[one].tolerance for one in ("fp32", "int8"))
    assert tight.codes <= loose.codes
    assert tight.score < loose.score
    assert "right on 4 known images" in self_test(opened)
    change_weight(bundle, "decoder_norm.weight", 1.5)
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(GateFailed, match="computes wrongly"):
            open_engine(open_bundle(bundle), precision="fp32", backend=backend)


def test_verify_leaves_known_answers_where_the_export_left_none(bundle, small_run, solar_cells):
    manifest = open_bundle(bundle).manifest
    files = {name: one for name, one in manifest.files.items() if name != ANSWERS_NAME}
    (bundle / ANSWERS_NAME).unlink()
    write_manifest(bundle, manifest.model_copy(update={"files": files}))
    verify_bundle(bundle, small_run, solar_cells, most_images=4)
    sealed, names = seal(open_bundle(bundle))
    assert CHECK_NAME in names
    assert set(read_known_answers(sealed).precisions) == {"fp32", "int8"}


def save_changed(source: Path, target: Path, name: str, factor: float) -> None:
    proto = onnx.load(source)
    entry = next(entry for entry in proto.graph.initializer if entry.name == name)
    value = numpy_helper.to_array(entry) * np.float32(factor)
    entry.CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(proto, target)


def change_weight(bundle: Path, name: str, factor: float) -> None:
    """Change one constant of the float graph and give the file its right hash again."""
    path = bundle / "model.fp32.onnx"
    save_changed(path, path, name, factor)
    manifest = open_bundle(bundle).manifest
    files = {**manifest.files, path.name: record_of(path)}
    write_manifest(bundle, manifest.model_copy(update={"files": files}))


LAYER = "encoder.1.feedforward.linear1"


def test_verify_fails_a_graph_that_differs_and_finds_the_layer(
    bundle, small_run, solar_cells, capsys
):
    change_weight(bundle, f"{LAYER}.bias", 30.0)
    arguments = ["verify", str(bundle), "--data", str(solar_cells), "--images", "4"]
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--run", str(small_run), "--bisect", "--json"])
    assert exit_.value.code == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["precisions"]["fp32"]["passed"] is False
    assert "verify.json" in err
    against = {one["against"]: one for one in found["bisections"] if one["precision"] == "fp32"}
    assert list(against) == ["PyTorch, module by module", "the run's model, exported anew"]
    for bisection, compared in zip(against.values(), (50, 100), strict=True):
        assert bisection["first"]["module"] == LAYER
        assert bisection["first"]["error"] > 1e-3
        assert bisection["compared"] > compared
        assert bisection["before"]
        assert all(one["error"] < 1e-5 for one in bisection["before"])
    check = main_output(capsys, "bundle", "check", str(bundle))
    assert "verify/inputs.json" in check


def main_output(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit):
        main(list(arguments))
    return str(capsys.readouterr().out)


def test_bisection_names_the_damaged_module(tmp_path):
    """A graph against itself, one weight changed: that layer, and all before it are equal."""
    right = save_graph(tmp_path / "right.onnx", "auto")
    proto = onnx.load(right)
    for node in proto.graph.node:  # as an exported graph names them: MODULE/OPERATOR
        node.name = f"block.{node.output[0]}/{node.op_type}"
    onnx.save(proto, right)
    save_changed(right, tmp_path / "damaged.onnx", "grey_weights", 2.0)
    feed = {"frames": frames(1)}

    def bisect(other: Path, **options):
        return bisect_graph(
            right, other, feed, precision="fp32", against="itself", image="noise", **options
        )

    found = bisect(tmp_path / "damaged.onnx")
    assert found.first is not None
    assert (found.first.module, found.first.operator) == ("block.grey", "Conv")
    assert found.first.error == pytest.approx(1.0), "twice the weight"
    assert [one.module for one in found.before] == ["block.floats", "block.planes", "block.means"]
    assert {one.error for one in found.before} == {0.0}
    assert "block.grey" in shown(bisection_table(found))
    assert bisect(tmp_path / "damaged.onnx", tolerance=1.5).first is None
    same = bisect(right)
    assert same.first is None
    assert "none of" in shown(bisection_table(same))


def test_modules_of_pytorch_give_what_the_graph_gives(small_run, small_bundle):
    """Every module that is not folded away, of the whole network."""
    model, _ = load_run(small_run)
    feed = {"frames": frames(1)}
    found = bisect_modules(model, small_bundle / "model.fp32.onnx", feed, image="noise")
    assert found.first is None
    assert found.compared == len(module_outputs(model, feed)) > 50
    assert max(one.error for one in found.before) < 1e-5


def test_a_fault_of_the_export_is_found(small_run, small_bundle):
    """A model that differs from the graph, as if the export had lost half of a norm's weight.

    A graph exported anew would be as wrong, and equal to the one looked at.
    """
    model, _ = load_run(small_run)
    model.encoder[1].norm1.weight.data *= 2
    graph = small_bundle / "model.fp32.onnx"
    found = bisect_modules(model, graph, {"frames": frames(1)}, image="noise")
    assert found.first is not None
    assert found.first.module == "encoder.1.norm1"
    assert found.before[-1].module == "encoder.1.self_attention.out"
    assert "leaves PyTorch, module by module at encoder.1.norm1" in shown(bisection_table(found))


def shown(table) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_an_engine_that_does_not_run_here_is_listed(tmp_path):
    bundle = save_bundle(tmp_path / "bundle")
    (bundle.path / "engines").mkdir()
    (bundle.path / "engines" / "tensorrt-10.3.0-sm87-fp32.plan").write_bytes(b"plan")
    tested, not_run = runners_of(bundle)
    assert [one.name for one in tested] == ["fp32 ONNX Runtime", "fp32 OpenVINO"]
    reasons = {row.runner: row.reason for row in not_run}
    assert "tensorrt-10.3.0-sm87-fp32" in reasons["TensorRT"]
    assert reasons["TensorRT-RTX"] == "the bundle has no engine of it"


def test_auto_precision_heeds_a_failed_verification(bundle):
    (bundle / "verify.json").write_text(
        json.dumps({"passed": False, "precisions": {"int8": {"passed": False}}})
    )
    assert choose(open_bundle(bundle)).precision == "fp32"


def test_a_bundle_of_another_run_is_refused(bundle, small_run, solar_cells):
    manifest = open_bundle(bundle).manifest
    write_manifest(bundle, manifest.model_copy(update={"checkpoint_sha256": "0" * 64}))
    with pytest.raises(BundleError, match="checkpoints differ"):
        verify_bundle(bundle, small_run, solar_cells)
    assert not (bundle / "verify.json").exists()


def test_a_bundle_without_its_run_is_told_of_its_known_answers(bundle, tmp_path, capsys):
    alone = shutil.copytree(bundle, tmp_path / "alone" / "bundle")
    with pytest.raises(SystemExit) as exit_:
        main(["verify", str(alone)])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert f"{alone} stands alone" in said
    assert f"--run; where there is none, hvq-edge doctor --bundle {alone}" in said


def test_images_of_other_parts_are_refused(bundle, small_run, mvtec_folder):
    with pytest.raises(DatasetError, match="no test images of solar_cell_mono"):
        verify_bundle(bundle, small_run, mvtec_folder)


def test_images_are_balanced(solar_cells):
    chosen = choose_images(find_dataset(solar_cells).test(), 10)
    groups = {(p.category, p.good) for p in chosen}
    assert len(chosen) == 10
    assert len(groups) == 4
    assert len({p.path for p in chosen}) == 10
    assert len(choose_images(find_dataset(solar_cells).test(), 1000)) == 32
