"""Products added to a run, taken out, renamed: all else stays as it is, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from helpers.commands import exit_code
from helpers.images import bolt, scratch, write_png
from helpers.one_trace import one_trace

from hvq_edge.common.atomic import sha256_of
from hvq_edge.data.images import read_frame
from hvq_edge.errors import DatasetError, InputError, RunError
from hvq_edge.evaluation.evaluate_target import evaluate_target
from hvq_edge.export.export_run import export_run
from hvq_edge.model.checkpoint import load_run
from hvq_edge.run.record import read_run
from hvq_edge.training.categories.change import add_category, remove_category, rename_category
from hvq_edge.training.categories.images import good_images_of

BOLT, IMAGES, SIDE = "bolt é", 16, 64
PLACE = "where bolts are added"
"""A folder of its own: ``runs/latest`` below it is of no other training."""
THEIRS = "features of our bolts.csv"
"""A file that the user had where the run was written."""


@pytest.fixture(scope="session")
def grown(small_trained_run, bolts, made_once) -> Path:
    """The small run with bolts."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            place = folder.with_name(PLACE)
            place.mkdir(exist_ok=True)
            folder.mkdir()
            (folder / THEIRS).touch()
            patch.chdir(place)
            command = ["add-category", BOLT, "--good", str(bolts), "--run", str(small_trained_run)]
            assert exit_code(*command, "--out", str(folder)) == 0

    return made_once("small with bolts", make)


@pytest.fixture(scope="session")
def frames(small_trained_run) -> torch.Tensor:
    """Images of the categories that the run had, three of each."""
    record = read_run(small_trained_run)
    paths = [
        Path(str(record.data)) / one.path
        for name in record.categories
        for one in [one for one in record.images if one.category == name][:3]
    ]
    return torch.from_numpy(np.stack([read_frame(path, SIDE) for path in paths]))


def same_judgements(before, after, frames, index) -> None:
    """Compare two models' outputs bit by bit, the category known and chosen."""
    for category in (torch.repeat_interleave(torch.arange(2), 3), None):
        with torch.inference_mode():
            one = before(frames, category)
            other = after(frames, None if category is None else torch.tensor(index)[category])
        for name, value in one.items():
            expected = torch.tensor(index)[value].int() if name == "category" else value
            assert torch.equal(expected, other[name]), name


def test_what_the_others_had_stays_bit_for_bit(small_trained_run, grown, frames):
    same_judgements(load_run(small_trained_run)[0], load_run(grown)[0], frames, [0, 1])


def test_a_new_product_is_recognised_and_its_defects_score_highest(grown):
    model, record = load_run(grown)
    assert record.categories[2] == BOLT
    good = [bolt(100 + i) for i in range(8)]
    defective = [scratch(bolt(200 + i))[0] for i in range(8)]
    shown = [
        cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for image in [*good, *defective]
    ]
    with torch.inference_mode():
        found = model(torch.from_numpy(np.stack(shown)))
    assert (found["category"][:8] == 2).all()
    assert (found["margin"][:8] > 0).all()
    assert found["score"][:8].max() < found["score"][8:].min()


def test_the_new_run_records_what_was_done_and_the_old_one_is_untouched(
    small_trained_run, grown, bolts
):
    before, record = read_run(small_trained_run), read_run(grown)
    (change,) = record.changes
    assert (change.what, change.category, change.images) == ("added", BOLT, IMAGES)
    assert change.from_checkpoint == before.checkpoint_sha256
    assert before.changes == ()
    assert sha256_of(small_trained_run / "checkpoint.pt") == before.checkpoint_sha256
    assert record.images[: len(before.images)] == before.images
    new = record.images[len(before.images) :]
    assert {Path(one.path) for one in new} == {*bolts.glob("*.png")}
    assert {one.use for one in new} == {"fit", "held_out"}
    assert sum(one.use == "held_out" for one in new) == round(0.15 * IMAGES)
    assert {*record.category_limits} == {*record.categories}
    assert record.image_limits.brightness_high >= before.image_limits.brightness_high
    assert {path.name for path in grown.iterdir()} == {"run.json", "checkpoint.pt", THEIRS}
    assert (grown.with_name(PLACE) / "runs" / "latest").resolve() == grown.resolve()


@pytest.mark.long
def test_the_exported_graph_and_its_thresholds_say_the_same_of_the_others(
    grown, small_trained_bundle, frames, tmp_path
):
    with one_trace():
        bundle = export_run(grown, tmp_path / "bundle")
    outputs = []
    for folder in (small_trained_bundle, bundle.path):
        graph = folder / bundle.manifest.models["fp32"]
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {"frames": frames.numpy()}))
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_array_equal(one, other)
    before = json.loads((small_trained_bundle / "bundle.json").read_text())["thresholds"]["fp32"]
    after = json.loads((bundle.path / "bundle.json").read_text())["thresholds"]["fp32"]
    assert np.isfinite(after.pop(BOLT)["value"])
    assert after.keys() == before.keys()
    for name, threshold in before.items():  # the engine that is quickest may be another
        assert after[name]["value"] == pytest.approx(threshold["value"], rel=1e-4)
        for same in ("images", "rule", "highest_image"):
            assert after[name][same] == threshold[same]
    assert bundle.manifest.training.changes == read_run(grown).changes
    card = (bundle.path / "MODEL.md").read_text(encoding="utf-8")
    assert f"{BOLT} was added to the trained network, with {IMAGES} good images" in card


def test_taken_out_again_the_others_stay_and_nothing_of_it_is_left(
    small_trained_run, grown, frames, tmp_path
):
    first = read_run(grown).categories[0]
    left = remove_category(grown, tmp_path / "left", first)
    assert left.record.categories == read_run(grown).categories[1:]
    assert first not in {one.category for one in left.record.images}
    assert first not in left.record.category_limits
    whole, rest = load_run(grown)[0], load_run(tmp_path / "left")[0]
    with torch.inference_mode():
        before = whole(frames[3:], torch.full((3,), 1))
        after = rest(frames[3:], torch.full((3,), 0))
    for name in ("score", "map", "codes"):
        assert torch.equal(before[name], after[name]), name
    remove_category(grown, tmp_path / "as before", BOLT)
    same_judgements(
        load_run(small_trained_run)[0], load_run(tmp_path / "as before")[0], frames, [0, 1]
    )
    assert [one.what for one in read_run(tmp_path / "as before").changes] == ["added", "removed"]


def test_another_name_changes_nothing_else(grown, frames, tmp_path):
    renamed = rename_category(grown, tmp_path / "run", BOLT, "nut").record
    before = read_run(grown)
    assert renamed.categories == (*before.categories[:2], "nut")
    assert [one.category for one in renamed.images] == [
        "nut" if one.category == BOLT else one.category for one in before.images
    ]
    assert renamed.category_limits["nut"] == before.category_limits[BOLT]
    assert renamed.changes[-1].sentence.endswith(f"{BOLT} was given the name nut.")
    same_judgements(load_run(grown)[0], load_run(tmp_path / "run")[0], frames, [0, 1])


def test_a_folder_with_the_name_that_a_category_had_is_named(
    small_trained_run, solar_cells, tmp_path
):
    first = read_run(small_trained_run).categories[0]
    for index, (old, new) in enumerate(((first, "cell"), ("cell", "cell A"))):
        run = tmp_path / str(index - 1) if index else small_trained_run
        rename_category(run, tmp_path / str(index), old, new)
    with pytest.raises(DatasetError, match=f"no images of cell A, but of {first}") as caught:
        evaluate_target(tmp_path / "1", solar_cells, out=tmp_path / "found")
    assert caught.value.next_step == f"rename the folder {first} to cell A"


def test_the_double_of_a_product_is_said_aloud(small_trained_run, solar_cells, tmp_path, capsys):
    """Mirrored images are other files, and the same product to the classifier."""
    known = read_run(small_trained_run).categories[0]
    for path in sorted((solar_cells / known / "train/good").iterdir())[::3]:
        write_png(tmp_path / "double" / path.name, cv2.flip(cv2.imread(str(path)), 1))
    arguments = ["--good", str(tmp_path / "double"), "--run", str(small_trained_run), "--json"]
    assert exit_code("add-category", "double", *arguments, "--out", str(tmp_path / "run")) == 0
    warned = json.loads(capsys.readouterr().out)["warnings"]
    assert any(f"of double are taken for {known}" in one for one in warned) or any(
        f"of {known} are taken for double" in one for one in warned
    )


def test_the_only_category_cannot_be_taken_out(small_trained_run, tmp_path):
    names = read_run(small_trained_run).categories
    remove_category(small_trained_run, tmp_path / "one", names[0])
    with pytest.raises(InputError, match="only category"):
        remove_category(tmp_path / "one", tmp_path / "none", names[1])


@pytest.mark.parametrize("name", ["auto", "Input", "", " bolt", "a/b", ".."])
def test_a_name_that_no_folder_could_have_is_refused(name, small_trained_run, bolts, tmp_path):
    with pytest.raises(InputError, match="cannot be called"):
        add_category(small_trained_run, tmp_path / "run", name, bolts)
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_there_ends_with_2(small_trained_run, bolts, tmp_path, capsys):
    known = read_run(small_trained_run).categories[1]
    where = ["--run", str(small_trained_run), "--out", str(tmp_path / "run")]
    assert exit_code("add-category", known, "--good", str(bolts), *where) == 2
    assert "there is a category" in capsys.readouterr().err
    assert (
        exit_code("rename-category", read_run(small_trained_run).categories[0], known, *where) == 2
    )
    assert exit_code("remove-category", "no such part", *where) == 2
    assert not (tmp_path / "run").exists()


def test_too_few_images_are_named(small_trained_run, bolts, tmp_path):
    for i, path in enumerate(sorted(bolts.iterdir())[:3]):
        shutil.copy(path, tmp_path / f"{i}.png")
    with pytest.raises(DatasetError, match=r"3 different good images .* at least 10") as caught:
        add_category(small_trained_run, tmp_path / "run", BOLT, tmp_path)
    assert "add good images" in caught.value.next_step
    for i in range(20):  # copies are no more images
        shutil.copy(tmp_path / f"{i % 3}.png", tmp_path / f"copy {i}.png")
    with pytest.raises(DatasetError, match="3 different good images"):
        add_category(small_trained_run, tmp_path / "run", BOLT, tmp_path)
    assert not (tmp_path / "run").exists()


def test_an_image_of_another_product_is_named(small_trained_run, bolts, tmp_path):
    folder = Path(shutil.copytree(bolts, tmp_path / "bolts"))
    record = read_run(small_trained_run)
    shutil.copy(Path(str(record.data)) / record.images[0].path, folder / "stray.png")
    with pytest.raises(DatasetError, match=f"stray.png is an image of {record.images[0].category}"):
        add_category(small_trained_run, tmp_path / "run", BOLT, folder)


def test_a_folder_that_holds_a_run_is_left_alone(small_trained_run, grown, bolts):
    before = sha256_of(grown / "checkpoint.pt")
    with pytest.raises(RunError, match="already holds a run"):
        add_category(small_trained_run, grown, "another", bolts)
    assert sha256_of(grown / "checkpoint.pt") == before


def test_of_a_products_folder_no_test_image_is_learnt_from(small_trained_run, bolts, tmp_path):
    folder = tmp_path / BOLT
    for part, start in (("train/good", 0), ("test/good", 20), ("test/scratch", 40)):
        for i in range(12):
            write_png(folder / part / f"{i}.png", bolt(start + i))
    record = read_run(small_trained_run)
    data, training = Path(record.data), record.settings.training
    found = good_images_of(BOLT, folder, data, training).images
    assert {Path(one.path).parent for one in found} == {folder / "train" / "good"}
