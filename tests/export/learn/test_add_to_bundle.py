"""``hvq-edge add-category --on-device``: a product more in a bundle, no bit of the others moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.commands import exit_code, on_a_device
from helpers.images import bolt, write_png
from helpers.small_graphs import SIDE

from hvq_edge.bundle.integrity.content import look
from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.common.atomic import sha256_of
from hvq_edge.data.images import fit_image, read_frame
from hvq_edge.errors import BundleError, DatasetError, InputError
from hvq_edge.export.fp16.convert import to_fp16
from hvq_edge.export.learn.add_to_bundle import add_to_bundle
from hvq_edge.export.learn.grown import add_centre, grow
from hvq_edge.export.learn.learn_bundle import learn_bundle
from hvq_edge.export.lint.check import check_graph_file
from hvq_edge.runtime.cpu.torch_engine import TorchEngine
from hvq_edge.runtime.open_engine import open_engine

BOLT = "bolt é"
KNOWN = ("solar_cell_mono", "solar_cell_poly")


@pytest.fixture(scope="module")
def added(small_bundle, bolts, tmp_path_factory) -> tuple[Bundle, dict]:
    """The new bundle, and what the command printed."""
    folder = tmp_path_factory.mktemp("added")
    for number in range(3):
        write_png(folder / BOLT / "good" / f"{number}.png", bolt(100 + number))
        chipped = bolt(200 + number)
        chipped[20:32, 20:32] //= 3
        write_png(folder / BOLT / "defective/chip" / f"{number}.png", chipped)
    write_png(folder / BOLT / "defective/chip/dark.png", chipped // 50)
    shutil.copy(min(bolts.iterdir()), folder / BOLT / "good")  # learnt from, or held out
    before = sha256_of(small_bundle / "bundle.json")
    options = ["--good", str(bolts), "--on-device", "--judged", str(folder)]
    where = [str(small_bundle), "--out", str(folder / "new"), "--backend", "onnxruntime"]
    said = json.loads(on_a_device("add-category", BOLT, *where, *options, "--json"))
    assert sha256_of(small_bundle / "bundle.json") == before
    return open_bundle(folder / "new"), said


def test_the_bundle_knows_the_product_and_judges_it(added):
    bundle, said = added
    manifest = bundle.manifest
    assert manifest.categories == (*KNOWN, BOLT)
    (record,) = manifest.added
    assert (record.category, len(record.images) + len(record.held_out)) == (BOLT, 16)
    assert said["learnt"] == len(record.images)
    for precision in manifest.models:
        assert said["thresholds"][precision] == manifest.thresholds[precision][BOLT].value
        tried = said["tried"][precision]
        assert tried["held_out"] == len(record.held_out)
        assert (tried["good"], tried["defective"], tried["found"]) == (3, 4, 3)
        assert tried["defective_undecided"] == 1, "the dark one"
    assert any("prototypes alone" in note for note in said["notes"])
    assert any("1 of 8 judged images is among the good" in note for note in said["notes"])
    assert set(manifest.category_limits) == {*KNOWN, BOLT}
    assert look(bundle).faults == ()
    assert "--on-device" in (bundle.path / "MODEL.md").read_text()


def test_the_other_products_are_bit_identical_in_every_file(added, small_bundle, solar_cells):
    old, new = open_bundle(small_bundle), added[0]
    paths = [path for name in KNOWN for path in sorted((solar_cells / name).rglob("test/*/*"))[:4]]
    frames = [read_frame(path, SIDE) for path in paths]
    for precision in old.manifest.models:
        assert all(
            new.manifest.thresholds[precision][name] == old.manifest.thresholds[precision][name]
            for name in KNOWN
        )
        outputs = []
        for bundle in (old, new):
            with open_engine(bundle, precision=precision, backend="onnxruntime") as engine:
                outputs.append([engine.run(frame[None]) for frame in frames])
        for one, other in zip(*outputs, strict=True):
            assert one["category"][0] in (0, 1)
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


def test_the_model_of_the_run_gets_it_too_and_agrees_with_the_graph(added, small_run):
    frames = np.stack([fit_image(bolt(seed), (SIDE, SIDE)) for seed in (50, 51)])
    with (
        open_engine(added[0], precision="fp32", backend="onnxruntime") as engine,
        TorchEngine(small_run, device="cpu", bundle=added[0]) as model,
    ):
        ours, theirs = (one.run(frames) for one in (engine, model))
    assert (ours["category"] == 2).all()
    assert (ours["margin"] > 0).all()
    np.testing.assert_array_equal(ours["category"], theirs["category"])
    for name in ("score", "map", "margin"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-3)


def outputs_of(graph: onnx.ModelProto, category: int) -> list[np.ndarray]:
    frames = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    given = {"frames": frames, "category": np.full(1, category, np.int32)}
    return session.run(None, {one.name: given[one.name] for one in session.get_inputs()})


@pytest.mark.parametrize(("mode", "precision"), [("auto", "int8-fp16"), ("input", "fp32")])
def test_a_graph_grows_by_a_copy_twice(small_graphs, mode, precision, tmp_path):
    graph = onnx.load(small_graphs[mode, precision.removesuffix("-fp16")])
    graph = to_fp16(graph) if "fp16" in precision else graph
    before = [outputs_of(graph, category) for category in (0, 1)]
    for categories in (2, 3):
        grow(graph, categories, source=1)
        if mode == "auto":
            far = np.full(384, 1e3, np.float32)  # nothing is near it
            add_centre(graph, far, categories)
    onnx.save(graph, tmp_path / "grown.onnx")
    check_graph_file(tmp_path / "grown.onnx")
    for category, source in ((0, 0), (1, 1), (2, 1), (3, 1)):
        if mode == "input" or category < 2:
            for one, other in zip(outputs_of(graph, category), before[source], strict=True):
                np.testing.assert_array_equal(one, other)


def test_what_cannot_be_added_is_said(small_bundle, bolts, solar_cells, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="there is a category"):
        add_to_bundle(small_bundle, KNOWN[0], bolts, out)
    with pytest.raises(DatasetError, match="no folder"):
        add_to_bundle(small_bundle, BOLT, tmp_path / "nothing", small_bundle)
    held_out = set(open_bundle(small_bundle).manifest.threshold_images)
    for path in (solar_cells / KNOWN[0] / "train/good").iterdir():
        if sha256_of(path) in held_out:
            (tmp_path / "known").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "known")
    shutil.copytree(bolts, tmp_path / "known", dirs_exist_ok=True)
    with pytest.raises(DatasetError, match="known to the bundle"):
        add_to_bundle(small_bundle, BOLT, tmp_path / "known", out)
    (tmp_path / "judged" / BOLT / "defective").mkdir(parents=True)
    shutil.copy(min(bolts.iterdir()), tmp_path / "judged" / BOLT / "defective")
    with pytest.raises(DatasetError, match="it is called good and defective"):
        add_to_bundle(small_bundle, BOLT, bolts, out, judged=[tmp_path / "judged"])
    alone = Path(shutil.copytree(small_bundle, tmp_path / "alone"))
    manifest = open_bundle(alone).manifest
    write_manifest(alone, manifest.model_copy(update={"category_mode": "one"}))
    with pytest.raises(BundleError, match="alone"):
        add_to_bundle(alone, BOLT, bolts, out)
    assert exit_code("add-category", BOLT, str(small_bundle), "--good", str(bolts)) == 2
    assert "--on-device" in capsys.readouterr().err
    assert not out.exists()


def test_what_another_product_was_learnt_from_is_known(added, bolts, tmp_path):
    """Those that were not held out as well: one part would be two products."""
    bundle, _ = added
    learnt = set(bundle.manifest.added[0].images)
    (tmp_path / "nuts").mkdir()
    for path in bolts.rglob("*.png"):
        if sha256_of(path) in learnt:
            shutil.copy(path, tmp_path / "nuts")
    with pytest.raises(DatasetError, match="known to the bundle"):
        add_to_bundle(bundle.path, "nut", tmp_path / "nuts", tmp_path / "out")
    with pytest.raises(InputError, match="no image is left to learn"):
        learn_bundle(bundle.path, tmp_path / "nuts", tmp_path / "out", category=BOLT)
