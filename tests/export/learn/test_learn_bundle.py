"""``hvq-edge learn``: a new bundle beside the old one, in which one product alone has moved."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import exit_code, on_a_device
from helpers.images import bolt, write_png

from hvq_edge.bundle.integrity import self_test as trial
from hvq_edge.bundle.integrity.content import look
from hvq_edge.bundle.integrity.pack import pack_bundle
from hvq_edge.bundle.integrity.staged_update import current_version, install_bundle, roll_back
from hvq_edge.bundle.learnt import prototypes_learnt, what_changed
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.common.atomic import sha256_of
from hvq_edge.data.images import fit_image, read_frame
from hvq_edge.errors import BundleError, DatasetError, InputError, OutputError
from hvq_edge.export.learn.edited import Graphs
from hvq_edge.export.learn.learn_bundle import folds_of, learn_bundle
from hvq_edge.export.verify import verify
from hvq_edge.runtime.cpu.torch_engine import TorchEngine
from hvq_edge.runtime.known_answers import read_known_answers
from hvq_edge.runtime.open_engine import choose, open_engine

MONO, POLY = "solar_cell_mono", "solar_cell_poly"
CALLED_GOOD = 4


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


@pytest.fixture(scope="module")
def judged(solar_cells, tmp_path_factory) -> Path:
    """What people said of the test cells, as ``hvq-edge review --save`` lays it out."""
    folder = tmp_path_factory.mktemp("judged")
    for name, most in ((MONO, CALLED_GOOD), (POLY, 0)):
        test = solar_cells / name / "test"
        for kind, target in (("good", "good"), ("defective", "defective/crack")):
            there = sorted((test / kind).iterdir())[: most if kind == "good" else 3]
            (folder / name / target).mkdir(parents=True)
            for path in there:
                shutil.copy(path, folder / name / target)
    return folder


@pytest.fixture(scope="module")
def learnt(small_bundle, judged, tmp_path_factory) -> tuple[Bundle, dict, dict[str, str]]:
    """The new bundle, what the command printed, and the files of the old one before."""
    before = content(small_bundle)
    out = tmp_path_factory.mktemp("learnt") / "bundle"
    arguments = ["learn", str(small_bundle), "--good", str(judged), "--out", str(out)]
    said = on_a_device(*arguments, "--backend", "onnxruntime", "--json")
    return open_bundle(out), json.loads(said), before


def test_the_bundle_that_learnt_stays_as_it_was(learnt, small_bundle):
    assert content(small_bundle) == learnt[2]


def test_it_says_what_it_learnt_and_every_verdict_that_flips(learnt, judged):
    bundle, said, _ = learnt
    names = [f"{MONO}/good/{path.name}" for path in sorted((judged / MONO / "good").iterdir())]
    assert said["learnt"] == {MONO: names}
    (record,) = bundle.manifest.learnt
    assert (record.category, len(record.images)) == (MONO, CALLED_GOOD)
    changed = what_changed(bundle)
    for precision, rows in changed.rows.items():
        flipped = [row for row in rows if row.before.verdict != row.after.verdict]
        assert [row["image"] for row in said["flipped"][precision]] == [r.image for r in flipped]
        assert sum(row.seen == "learnt" for row in rows) == CALLED_GOOD
        assert sum(not row.good for row in rows) == 6
        assert sum(row.seen == "held out" for row in rows) == 6
        assert {row.after.threshold for row in rows if row.category == MONO} == {
            bundle.manifest.thresholds[precision][MONO].value
        }
    card = (bundle.path / "MODEL.md").read_text()
    assert "Before and after learning" in card
    assert all(row.image in card for row in changed.rows["int8"] if row.flipped)


def test_the_other_product_is_bit_identical(learnt, small_bundle, solar_cells):
    old = open_bundle(small_bundle)
    new = learnt[0]
    assert new.manifest.thresholds["int8"][POLY] == old.manifest.thresholds["int8"][POLY]
    assert new.manifest.category_limits[POLY] == old.manifest.category_limits[POLY]
    paths = sorted((solar_cells / POLY).rglob("test/*/*"))[:6]
    frames = np.stack([read_frame(path, 64) for path in paths])
    for precision in old.manifest.models:
        outputs = []
        for bundle in (old, new):
            with open_engine(bundle, precision=precision, backend="onnxruntime") as engine:
                outputs.append([engine.run(frame[None]) for frame in frames])
        kept = 0
        for one, other in zip(*outputs, strict=True):
            if one["category"][0] == 1:
                kept += 1
                for name in one:
                    np.testing.assert_array_equal(one[name], other[name])
        assert kept


def test_the_new_bundle_is_whole_runs_and_agrees_with_the_model(
    learnt, small_run, capsys, monkeypatch
):
    """The run's model gets the learnt prototypes, so ``verify`` holds the graphs against it."""
    bundle = learnt[0]
    found = look(bundle)
    assert (found.faults, found.added) == ((), ())
    # As it would start here, without timing what is fastest.
    monkeypatch.setattr(trial, "choose", partial(choose, precision="int8", backend="onnxruntime"))
    assert "right on" in trial.self_test(bundle)
    every = verify.runners_of(bundle)[0]
    one_library = [one for one in every if one.library == "ONNX Runtime"]
    monkeypatch.setattr(verify, "runners_of", lambda *_: (one_library, []))
    assert exit_code("verify", str(bundle.path), "--run", str(small_run), "--images", "4") == 0
    capsys.readouterr()
    outputs = []
    for learnt_since in (None, bundle):
        with TorchEngine(small_run, device="cpu", bundle=learnt_since) as model:
            outputs.append(model.run(read_known_answers(bundle).frames)["map"])
    assert (outputs[0] != outputs[1]).any()  # so it was held against what was learnt


def test_it_is_installed_and_rolled_back_as_any_bundle(learnt, small_bundle, tmp_path):
    files = [tmp_path / "old.zip", tmp_path / "new.zip"]
    for folder, file in zip((small_bundle, learnt[0].path), files, strict=True):
        pack_bundle(folder, file)
    install_bundle(files[0], tmp_path / "device")
    first = current_version(tmp_path / "device")
    assert install_bundle(files[1], tmp_path / "device").former == first
    assert open_bundle(tmp_path / "device" / "current").manifest.learnt
    roll_back(tmp_path / "device")
    assert not open_bundle(tmp_path / "device" / "current").manifest.learnt


def test_a_bundle_learns_again_and_keeps_what_it_had_learnt(
    learnt, judged, small_run, solar_cells, tmp_path
):
    for path in sorted((solar_cells / POLY / "test" / "good").iterdir())[:1]:
        (tmp_path / POLY / "good").mkdir(parents=True)
        shutil.copy(path, tmp_path / POLY / "good")
    shutil.copytree(judged / MONO / "good", tmp_path / MONO / "good")  # known by now
    for number in range(3):
        write_png(tmp_path / POLY / "good" / f"bolt {number}.png", bolt(number))
    done = learn_bundle(learnt[0].path, tmp_path, tmp_path / "out", backend="onnxruntime")
    assert list(done.images) == [POLY]
    assert any("left out" in note for note in done.notes)
    kept = {(table, name): found for table, name, found in prototypes_learnt(done.bundle)}
    assert {name for _, name in kept} == {MONO, POLY}
    # A bolt is like nothing that it knew: now there is a centre for bolts, and they are judged.
    assert [one.centres for one in done.bundle.manifest.learnt] == [0, 1]
    assert kept.pop(("classifier.centres", POLY)).shape == (1, 384)
    others = np.stack([fit_image(bolt(number), (64, 64)) for number in (7, 8, 9)])
    for bundle, knows in ((learnt[0], False), (done.bundle, True)):
        outputs = []
        with (
            open_engine(bundle, precision="fp32", backend="onnxruntime") as engine,
            TorchEngine(small_run, device="cpu", bundle=bundle) as model,
        ):
            outputs = [one.run(others) for one in (engine, model)]
        assert ((outputs[0]["margin"] >= 0) == knows).all()
        np.testing.assert_array_equal(outputs[0]["category"], outputs[1]["category"])
        np.testing.assert_allclose(outputs[0]["margin"], outputs[1]["margin"], atol=1e-3)
    for (table, name), centres in kept.items():
        np.testing.assert_array_equal(Graphs(done.bundle).centres(table, name), centres)
    # The run is not beside it: its scores are known, its images are not at hand.
    assert any("not at hand" in note for note in done.notes)


def test_what_cannot_be_learnt_is_said(small_bundle, judged, solar_cells, tmp_path):
    with pytest.raises(OutputError, match="there already"):
        learn_bundle(small_bundle, judged, tmp_path)
    with pytest.raises(DatasetError, match="no folder"):  # what is to be learnt comes first
        learn_bundle(small_bundle, tmp_path / "nothing", tmp_path)
    other = tmp_path / "other" / MONO / "defective"
    other.mkdir(parents=True)
    shutil.copy(next((judged / MONO / "good").iterdir()), other)
    with pytest.raises(DatasetError, match="called good and defective"):
        learn_bundle(small_bundle, judged, tmp_path / "out", judged=[tmp_path / "other"])
    with pytest.raises(DatasetError, match="of which category"):
        learn_bundle(small_bundle, solar_cells / MONO / "test", tmp_path / "out", category="bolt")
    known = solar_cells / MONO / "train" / "good"
    with pytest.raises(InputError, match="left out"):  # learnt in training
        learn_bundle(small_bundle, known, tmp_path / "out", category=MONO)
    assert exit_code("learn", str(small_bundle)) == 2
    assert not (tmp_path / "out").exists()


def test_a_damaged_record_of_prototypes_is_an_error(learnt, tmp_path):
    folder = Path(shutil.copytree(learnt[0].path, tmp_path / "bundle"))
    (folder / "learnt-prototypes.npz").write_bytes(b"none")
    with pytest.raises(BundleError, match="not the file"):
        list(prototypes_learnt(open_bundle(folder)))


def test_each_image_is_judged_once_without_itself():
    assert folds_of(1) == []
    for images in (2, 4, 7):
        apart = folds_of(images)
        assert sorted(number for _, alone in apart for number in alone) == [*range(images)]
        assert all(not {*kept} & {*alone} for kept, alone in apart)
