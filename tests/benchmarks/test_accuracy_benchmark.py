"""The accuracy table: from a folder of images to numbers, and again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.accuracy_runs import data, fail, settings_file  # noqa: F401  # fixtures
from helpers.images import make_texture, write_png

from benchmarks.accuracy import accuracy, image_sources
from benchmarks.accuracy.evidence import leave_one_out
from benchmarks.accuracy.image_sources import FeatureStore, Source, flipped, pseudo_sources
from hvq_edge.data.dataset import find_dataset
from hvq_edge.errors import DatasetError
from hvq_edge.evaluation.evaluate import evaluate
from hvq_edge.run.record import read_run
from hvq_edge.run.settings import load_settings
from hvq_edge.runtime.cpu.torch_engine import TorchEngine
from hvq_edge.training import trainer

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def accuracy_out(data, settings_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "accuracy"
    accuracy.main(accuracy_arguments(data, out, settings_file))
    return out


def accuracy_arguments(data: Path, out: Path, settings_file: Path, *more: str) -> list[str]:
    preset = ["--preset", "tiny", "--settings", str(settings_file), "--epochs", "1"]
    return [str(data), "--out", str(out), "--device", "cpu", *preset, *more]


def content(out: Path) -> dict:
    return json.loads((out / "accuracy.json").read_text())


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


# What it and the ablations are made of.


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
