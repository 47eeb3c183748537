"""The two commands of the accuracy table: from a folder of images to numbers, and again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.images import make_texture, scratch, write_png

from benchmarks.accuracy import ablations, accuracy, image_sources, row_training
from benchmarks.accuracy.ablation_rows import BASE, ROWS, Row
from benchmarks.accuracy.evidence import leave_one_out
from benchmarks.accuracy.image_sources import FeatureStore, Source, flipped, locked, pseudo_sources
from benchmarks.accuracy.row_training import Workshop
from hvq_edge.data.dataset import find_dataset
from hvq_edge.errors import DatasetError
from hvq_edge.evaluation.evaluate import evaluate
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.run.record import read_run
from hvq_edge.run.settings import load_settings
from hvq_edge.runtime.cpu.torch_engine import TorchEngine
from hvq_edge.training import trainer
from hvq_edge.training.train_run import continue_run, start_run

pytestmark = pytest.mark.long

SMALL = """\
[model]
image_level = "subtracted"
input_side = 64
width = 16
heads = 2
feedforward = 32
layers = 2
codes = 16
prototypes = 8
[training]
held_out = 0.3
versions = 1
"""
FEW = (BASE, "no prototypes", "image level kept", "random codebook start", "score over 8 px")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories, one with masks; scratches that are hard to see, so that metrics vary."""
    root = tmp_path_factory.mktemp("data")
    looks = {"bolt": {"grain": 1.2, "mean": 150.0}, "tile": {"grain": 3.0, "mean": 90.0}}
    for number, (name, look) in enumerate(looks.items()):
        for i in range(20):
            folder = "train/good" if i < 9 else "test/good" if i < 14 else "test/scratch"
            image = make_texture(1000 * number + i, height=64, width=64, **look)
            if i >= 14:
                damaged, mask = scratch(image)
                image = (0.8 * image + 0.2 * damaged).astype(np.uint8)
                if name == "bolt":
                    write_png(root / f"bolt/ground_truth/scratch/{i:03}_mask.png", mask)
            write_png(root / name / folder / f"{i:03}.png", image)
    return root


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def accuracy_out(data, settings_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "accuracy"
    accuracy.main(accuracy_arguments(data, out, settings_file))
    return out


@pytest.fixture(scope="module")
def ablations_out(data, settings_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "ablations"
    ablations.main(ablation_arguments(data, out, settings_file))
    return out


def accuracy_arguments(data: Path, out: Path, settings_file: Path, *more: str) -> list[str]:
    preset = ["--preset", "tiny", "--settings", str(settings_file), "--epochs", "1"]
    return [str(data), "--out", str(out), "--device", "cpu", *preset, *more]


def ablation_arguments(data: Path, out: Path, settings_file: Path, *more: str) -> list[str]:
    given = ["--settings", str(settings_file), "--epochs", "1", "--device", "cpu"]
    only = [] if "--only" in more else ["--only", *FEW]
    return [str(data), "--out", str(out), *given, *only, *more]


def content(out: Path) -> dict:
    return json.loads((out / "accuracy.json").read_text())


def fail(*_: object, **__: object) -> None:
    raise AssertionError("this was already done")


# accuracy.py


def test_our_numbers_are_those_of_eval(data, accuracy_out):
    with TorchEngine(accuracy_out / "run", device="cpu") as engine:
        expected = evaluate(engine, find_dataset(data), known_category=True)
    ours = content(accuracy_out)["methods"]["hvq-edge"]
    assert len(expected.categories) == len(ours["categories"]) == 2
    for mine, theirs in zip(ours["categories"], expected.categories, strict=True):
        assert mine == pytest.approx(theirs.model_dump(), abs=1e-6)
    assert ours["mean"] == pytest.approx(expected.mean.model_dump(), abs=1e-6)
    assert ours["categories"][0]["pixel_aupro"] is not None
    assert ours["categories"][1]["pixel_aupro"] is None
    assert 0.1 < ours["mean"]["pixel_auroc"] < 0.999  # neither perfect nor empty


def test_the_file_holds_every_method_and_form(accuracy_out):
    found = content(accuracy_out)
    assert list(found["methods"]) == list(accuracy.METHODS)
    assert found["images"] == {"fit": 12, "held out": 6, "test": 22}
    assert len(found["methods"]) == 5
    assert len(found["map_forms"]) == 36
    own = found["map_forms"]["whitened + prototypes / 2, by position, level subtracted"]
    ours = found["methods"]["hvq-edge"]
    assert own["mean"] == pytest.approx(ours["mean"], abs=1e-6)
    assert own["pseudo"] == pytest.approx(ours["pseudo"])
    for one in found["methods"].values():
        assert one["pseudo_mean"] == pytest.approx(np.mean(list(one["pseudo"].values())))
        by_category = sorted(one["pseudo"].values())  # two: each is the mean without the other
        assert one["pseudo_range"] == pytest.approx(by_category)


def test_a_second_call_trains_nothing_and_finds_the_same(
    data, accuracy_out, settings_file, monkeypatch, capsys
):
    before = content(accuracy_out)
    monkeypatch.setattr("hvq_edge.training.train_run.train_epochs", fail)
    monkeypatch.setattr("hvq_edge.training.features._read", fail)  # nor features of training
    accuracy.main(accuracy_arguments(data, accuracy_out, settings_file, "--json"))
    printed = json.loads(capsys.readouterr().out)
    assert {**printed, "created": ""} == {**content(accuracy_out), "created": ""}
    assert {**printed, "created": ""} == {**before, "created": ""}


def test_tables(accuracy_out, capsys):
    file = accuracy.Accuracy.model_validate(content(accuracy_out))
    accuracy.print_tables(file)
    out = capsys.readouterr().out
    shown = {line.split("|")[1].strip(): line for line in out.splitlines() if line.startswith("| ")}
    for name, one in file.methods.items():
        assert f" {100 * one.mean.image_auroc:.1f} " in shown[name]
        assert f" {100 * one.pseudo_mean:.1f} " in shown[name]
    assert "distance + prototypes / 2, by position, level subtracted" in shown
    assert "1 epochs; images: 12 fit, 6 held out, 22 test" in out
    widths = {len(line) for line in out.split("Other forms")[1].splitlines() if line[:1] == "|"}
    assert len(widths) == 1  # columns stand under each other


def test_ours_and_the_baseline_are_fed_the_same(data, accuracy_out, tmp_path, monkeypatch):
    fitted, fed = {}, {}
    fit_memory, forms, map_of = accuracy.fit_memory, accuracy.MapForms, accuracy.map_of

    def memory(raw, *, pooled, device):
        fitted.setdefault(pooled, []).append(np.asarray(raw))
        made = fit_memory(raw, pooled=pooled, device=device)

        class Watched:
            def distance(self, seen):
                fed.setdefault(pooled, []).append(seen.clone())
                return made.distance(seen)

        return Watched()

    def watched_forms(model, images, seed):
        fitted["ours"] = np.asarray(images[0].features)
        return forms(model, images, seed)

    def watched_map(model):
        def judge(raw, k):
            fed.setdefault("ours", []).append(raw.clone())
            return map_of(model)(raw, k)

        return judge

    monkeypatch.setattr(accuracy, "fit_memory", memory)
    monkeypatch.setattr(accuracy, "MapForms", watched_forms)
    monkeypatch.setattr(accuracy, "map_of", watched_map)
    run = str(accuracy_out / "run")
    accuracy.main([str(data), "--run", run, "--out", str(tmp_path), "--device", "cpu"])
    assert len(fed["ours"]) == 2 * (2 + 1 + 2)  # test, held out and pseudo-defects in batches of 8
    for pooled in (False, True):
        np.testing.assert_array_equal(np.concatenate(fitted[pooled]), fitted["ours"])
        assert all(map(torch.equal, fed[pooled], fed["ours"]))
    cached = np.load(accuracy_out / "run" / "features.npy")
    np.testing.assert_array_equal(fitted["ours"], cached)
    assert not (tmp_path / "features.npy").exists()  # the run has them
    assert content(tmp_path)["methods"] == content(accuracy_out)["methods"]


def test_a_stopped_training_goes_on(data, settings_file, tmp_path, monkeypatch):
    settings = load_settings("tiny", settings_file, training={"epochs": 3})
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0)
    epochs = []

    def stop_at_two(stage, done, total, note=""):
        if stage == "training":
            epochs.append(done)
            if len(epochs) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accuracy.trained_run(data, tmp_path, settings, "cpu", stop_at_two)
    accuracy.trained_run(data, tmp_path, settings, "cpu", stop_at_two)
    assert epochs == [1, 2, 2, 3]  # the second was not saved when it was stopped
    assert read_run(tmp_path).epochs_done == 3


def test_a_run_of_other_settings_or_images_is_refused(
    data, accuracy_out, settings_file, tmp_path, capsys
):
    arguments = accuracy_arguments(data, accuracy_out, settings_file)
    arguments[arguments.index("--epochs") + 1] = "2"
    changed = tmp_path / "data"
    for path in data.rglob("*.png"):
        write_png(changed / path.relative_to(data), make_texture(7, height=64, width=64))
    of_others = [str(changed), "--run", str(accuracy_out / "run"), "--out", str(tmp_path)]
    for given, message in ((arguments, "other data or settings"), (of_others, "another content")):
        with pytest.raises(SystemExit) as stopped:
            accuracy.main(given)
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert message in said or "changed" in said
    assert not (tmp_path / "accuracy.json").exists()


# ablations.py


def test_rows_are_written_and_compared_with_the_base(data, ablations_out, settings_file, capsys):
    ablations.main(ablation_arguments(data, ablations_out, settings_file))
    out = capsys.readouterr().out
    table = out.split("\n\n")[1].splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == [
        row.name for row in ROWS if row.name in FEW
    ]
    results = ablations.finished_rows(ablations_out)
    base = results[BASE].evidence
    for line in table[2:]:
        name, area, change, ends, _, pseudo_change, *_ = (
            cell.strip() for cell in line.strip("|").split("|")
        )
        found = results[name].evidence
        assert area == f"{100 * found.mean.image_auroc:.1f}"
        if name == BASE:
            assert change == ends == ""
            continue
        differences = sorted(
            100 * (found.image_auroc[k] - base.image_auroc[k]) for k in base.pseudo
        )
        assert change == f"{np.mean(differences):+.1f}"
        assert ends == "[{:+.1f}, {:+.1f}]".format(*differences)  # two categories
        pseudo = [100 * (found.pseudo[k] - base.pseudo[k]) for k in base.pseudo]
        assert float(pseudo_change) == pytest.approx(np.mean(pseudo), abs=0.051)
    assert results[BASE].images_per_second > 0
    assert results["no prototypes"].images_per_second is None
    assert results["no prototypes"].held_out_loss == results[BASE].held_out_loss
    assert results["random codebook start"].held_out_loss != results[BASE].held_out_loss


def test_finished_rows_are_skipped(data, ablations_out, settings_file, monkeypatch):
    monkeypatch.setattr(Workshop, "run", fail)
    monkeypatch.setattr(FeatureStore, "_write", fail)
    ablations.main(ablation_arguments(data, ablations_out, settings_file))


def test_a_lost_row_is_judged_again_from_its_weights(
    data, ablations_out, settings_file, monkeypatch
):
    before = ablations.finished_rows(ablations_out)
    (ablations_out / "rows" / "base.json").unlink()
    for name in ("train_epochs", "fit_prototypes"):
        monkeypatch.setattr(row_training, name, fail)
    monkeypatch.setattr(FeatureStore, "_write", fail)
    ablations.main(ablation_arguments(data, ablations_out, settings_file))
    assert ablations.finished_rows(ablations_out) == before


def test_rows_begin_and_train_as_hvq_edge_train_does(data, ablations_out, settings_file, tmp_path):
    settings = load_settings("tiny", settings_file, training={"epochs": 1})
    start_run(data, tmp_path, settings)
    continue_run(tmp_path, device="cpu")
    expected = load_tensors(tmp_path / "checkpoint.pt")
    weights = load_tensors(ablations_out / "weights" / "base.pt")["state"]
    assert any(name.startswith("codebooks.") for name in weights)
    for name, value in weights.items():
        assert torch.equal(value, expected[name]), name
    for path in (ablations_out / "prototypes").glob("*.pt"):
        prototypes = load_tensors(path)
        assert {"prototypes.centres", "prototypes.whitening"} <= prototypes.keys()
        for name, value in prototypes.items():
            assert torch.equal(value, expected[name]), name


def test_weights_of_the_base_are_those_the_row_would_train(data, ablations_out, settings_file):
    """``image level kept`` changes nothing that training sees."""
    settings = load_settings("tiny", settings_file, training={"epochs": 1})
    workshop = Workshop(ablations.make_plan(data, ablations_out, settings), ablations_out, "cpu")
    alone = workshop.run(Row("level kept, trained anew", model={"image_level": "kept"}))
    shared = ablations.finished_rows(ablations_out)["image level kept"]
    assert alone.evidence == shared.evidence
    assert alone.evidence != ablations.finished_rows(ablations_out)[BASE].evidence


def test_one_row_that_fails_does_not_stop_the_others(data, ablations_out, settings_file, capsys):
    only = ["--only", "neighbour-masked attention", "score over 8 px"]
    with pytest.raises(SystemExit) as stopped:
        ablations.main(ablation_arguments(data, ablations_out, settings_file, *only))
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert "leaves nothing to see on a grid of 4x4" in said.err
    assert "| score over 8 px" in said.out
    assert not (ablations_out / "rows" / "neighbour-masked-attention.json").exists()


def test_a_row_that_another_process_has_begun_is_left_to_it(
    data, ablations_out, settings_file, capsys
):
    lock = ablations_out / "rows" / "64-codes.lock"
    with locked(lock) as own:
        assert own
        only = ["--only", "64 codes"]
        ablations.main(ablation_arguments(data, ablations_out, settings_file, *only))
    assert "64 codes: another process is at it" in capsys.readouterr().err
    assert not lock.with_suffix(".json").exists()
    with locked(lock, wait=False) as own:
        assert own  # given back


def test_rows_of_other_settings_are_not_mixed(data, ablations_out, settings_file, capsys):
    arguments = ablation_arguments(data, ablations_out, settings_file)
    arguments[arguments.index("--epochs") + 1] = "2"
    with pytest.raises(SystemExit) as stopped:
        ablations.main(arguments)
    assert stopped.value.code == 2
    assert re.search(
        r"holds rows of other data, settings or\s+another\s+teacher .*, 1\s+epochs",
        capsys.readouterr().err,
    )


def test_rows_of_a_taught_backbone_have_features_of_their_own(
    data, settings_file, ablations_out, tmp_path, capsys
):
    taught = ["--only", BASE, "--teacher", "efficientnet_lite0", "--teacher-side", "96"]
    ablations.main(ablation_arguments(data, tmp_path, settings_file, *taught))
    (folder,) = (tmp_path / "features").glob("*-taught-by-efficientnet_lite0-96")
    assert (folder / "taught.pt").exists()
    row, plain = (ablations.finished_rows(out)[BASE] for out in (tmp_path, ablations_out))
    assert row.evidence != plain.evidence
    with pytest.raises(SystemExit):  # without the teacher the folder is another table's
        ablations.main(ablation_arguments(data, tmp_path, settings_file, "--only", BASE))
    assert "another" in capsys.readouterr().err


def test_rows_of_another_version_are_not_read(data, settings_file, tmp_path, capsys):
    (tmp_path / "plan.json").write_text('{"data": "here", "settings": {"model": {"colour": 1}}}')
    with pytest.raises(SystemExit) as stopped:
        ablations.main(ablation_arguments(data, tmp_path, settings_file))
    assert stopped.value.code == 2
    assert "plan.json is not a plan that this version reads" in capsys.readouterr().err


def test_rows_are_named_once_and_their_settings_are_valid(capsys):
    ablations.main(["--list"])
    assert capsys.readouterr().out.splitlines() == [row.name for row in ROWS]
    assert len({row.slug for row in ROWS}) == len(ROWS)
    base = load_settings("tiny")
    for row in ROWS:
        changed = row.settings(base)
        beside = row.variant or row.flips or row.pooling != 16 or row.name == BASE
        assert (changed == base) == (bool(beside) and not row.training), row.name
        if row.weights_of:  # what training sees is left alone
            assert changed.training == base.training
    hot = next(row for row in ROWS if row.name == "transport weight 0.5, temperature x 2")
    assert hot.settings(base).model.transport_temperature == 4 * base.model.width


def test_an_unknown_row(data, capsys):
    with pytest.raises(SystemExit):
        ablations.main([str(data), "--only", "magic"])
    assert "no row is called magic" in capsys.readouterr().err


# What both are made of.


def test_means_that_leave_one_out():
    values = {"a": 0.9, "b": 0.6, "c": 0.3}
    assert leave_one_out(values) == pytest.approx((0.45, 0.75))
    assert leave_one_out({"a": 0.9}) is None


def test_pseudo_defects_take_turns_on_every_held_out_image():
    held_out = [
        Source(str(i), "ab"[i % 2], lambda side, i=i: make_texture(i, height=side, width=side))
        for i in range(5)
    ]
    found = pseudo_sources(held_out)
    assert [source.category for source in found] == [c for c in "ababa" for _ in range(3)]
    assert len({source.key for source in found}) == 15
    for number, source in enumerate(found):
        good = held_out[number // 3].read(64)
        assert (source.read(64) != good).any()
        assert (source.read(64) == good).mean() > 0.5
        assert np.array_equal(source.read(64), source.read(64))
    with pytest.raises(DatasetError, match="two held-out"):
        pseudo_sources(held_out[:1])


@pytest.mark.parametrize(
    ("direction", "expected"), [("horizontal", [[1, 0], [3, 2]]), ("vertical", [[2, 3], [0, 1]])]
)
def test_flips(direction, expected):
    frame = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, axis=2)
    turned = flipped(Source("key", "a", lambda _: frame), direction)
    assert turned.read(2)[..., 0].tolist() == expected
    assert turned.key != "key"


def test_stored_features_are_those_of_the_model_and_computed_once(tmp_path, monkeypatch):
    settings = load_settings("tiny", model={"input_side": 64}).model
    sources = [
        Source(str(i), "a", lambda side, i=i: make_texture(i, height=side, width=side))
        for i in range(10)
    ]
    store = FeatureStore(tmp_path, settings)
    found = store.features("test", sources)
    model = store._model
    raw = image_sources.raw_features(model, np.stack([one.read(64) for one in sources]))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, raw.numpy(), rtol=2e-3, atol=1e-3)
    monkeypatch.setattr(FeatureStore, "_write", fail)
    again = FeatureStore(tmp_path, settings)
    np.testing.assert_array_equal(again.features("test", sources), found)
    with pytest.raises(AssertionError, match="already done"):  # other images: another file
        again.features("test", sources[1:])
