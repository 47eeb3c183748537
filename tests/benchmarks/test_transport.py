"""The ablation of transport losses and scores: what it trains, that it resumes, what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import transport
from benchmarks.accuracy.evidence import code_use
from benchmarks.accuracy.row_training import Workshop
from hvq_edge.model import HVQTrans
from hvq_edge.run.settings import load_settings
from hvq_edge.training.batches import Images

SMALL = {"input_side": 64, "width": 16, "heads": 2, "feedforward": 32, "layers": 2, "codes": 16}


@pytest.fixture
def arguments(mvtec_folder, tmp_path) -> list[str]:
    lines = [f"{key} = {value}" for key, value in {**SMALL, "prototypes": 8}.items()]
    training = ["[training]", "versions = 1"]
    (tmp_path / "small.toml").write_text("\n".join(["[model]", *lines, *training]))
    settings = ["--settings", str(tmp_path / "small.toml"), "--epochs", "1", "--device", "cpu"]
    some = ["--losses", "none", "conditional", "--starts", "preset's", "--seeds", "0", "1"]
    return [str(mvtec_folder), "--out", str(tmp_path / "out"), *settings, *some]


def cells(printed: str) -> dict[str, list[str]]:
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {name: rest for name, *rest in rows}


def test_it_trains_once_judges_every_form_and_goes_on_where_it_stopped(
    arguments, tmp_path, capsys, monkeypatch
):
    transport.main(arguments)
    table = cells(capsys.readouterr().out)
    forms = ("none", "all levels", "all levels, sharp")
    losses = ("none", "conditional")
    assert [*table] == [f"preset's, {loss}, {form}" for loss in losses for form in forms]
    out = tmp_path / "out"
    results = {path.stem: json.loads(path.read_text()) for path in (out / "rows").glob("*.json")}
    assert len(results) == 12
    assert len([*(out / "weights").glob("*.pt")]) == 4  # a loss and a seed; maps share weights
    for loss in losses:
        own = [results[f"start-preset-s-loss-{loss}-seed-{seed}"] for seed in (0, 1)]
        areas = [one["evidence"]["mean"]["image_auroc"] for one in own]
        seeds, area, recall, *_, used, perplexity, seconds = table[f"preset's, {loss}, none"]
        low, high = min(areas), max(areas)
        assert area == f"{100 * np.mean(areas):.1f} ({100 * low:.1f} .. {100 * high:.1f})"
        recalls = [one["evidence"]["mean"]["image_recall_at_5"] for one in own]
        assert recall.startswith(f"{100 * np.mean(recalls):.1f} ")
        assert seeds == "2"
        assert len(used.split(" / ")) == len(perplexity.split(" / ")) == 3
        spent = np.mean([one["fit_images"] / one["images_per_second"] for one in own])
        assert seconds == f"{spent:.1f}"
        weight = own[0]["settings"]["training"]["conditional_transport_weight"]
        assert (weight > 0) == (loss == "conditional")
        with_scores = results[f"start-preset-s-loss-{loss}-seed-0-scores-all-levels"]
        assert with_scores["evidence"] != own[0]["evidence"]
        assert with_scores["held_out_loss"] == own[0]["held_out_loss"]

    def fail(*_: object) -> None:
        raise AssertionError("this was already done")

    lost = out / "rows" / "start-preset-s-loss-none-seed-1.json"
    before = lost.read_text()
    lost.unlink()
    monkeypatch.setattr(Workshop, "_train", fail)
    transport.main(arguments)  # judged again from its weights
    assert json.loads(lost.read_text()) == json.loads(before)
    monkeypatch.setattr(Workshop, "run", fail)
    transport.main(arguments)
    lost.unlink()
    capsys.readouterr()
    transport.main([*arguments, "--table"])
    assert cells(capsys.readouterr().out)["preset's, none, none"][0] == "1"


@pytest.mark.parametrize("preset", ["tiny", "edge", "paper"])
def test_rows_differ_in_what_their_names_say(preset):
    base = load_settings(preset)
    rows = transport.rows_of(base, [*transport.STARTS], [*transport.LOSSES], [0, 1, 2])
    work = transport.by_seed(rows)
    assert len({row.slug for row in work}) == len(work) == 2 * 5 * 3 * 3
    assert [row.training["seed"] for row in work] == sorted(row.training["seed"] for row in work)
    names = [row.name for row in work]
    for row in work:
        settings = row.settings(base)
        assert ("scores" in row.name) == (len(settings.model.transport_weights) > 1)
        assert ("loss none, seed" in row.name) == (not settings.training.has_transport_loss)
        if row.weights_of:
            assert names.index(row.weights_of) < names.index(row.name)
            trained = next(one for one in work if one.name == row.weights_of)
            assert trained.settings(base).training == settings.training


def test_use_of_codes_by_hand():
    """By level: the share that any image uses, and perplexity; means over the categories."""
    torch.manual_seed(0)
    model = HVQTrans(load_settings("tiny", model=SMALL).model, 2).eval()
    shape = (6, model.settings.grid**2, model.raw_channels)
    features = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    found = code_use(model, Images(features, np.array([0, 0, 1, 1, 1, 1])))
    with torch.no_grad():
        tokens = model.normalise(torch.from_numpy(features.astype(np.float32)))
        codes = model.reconstruct(tokens, torch.tensor([0, 0, 1, 1, 1, 1])).codes.numpy()
    for level, (used, perplexity) in enumerate(found):
        own = []
        for images in (slice(0, 2), slice(2, 6)):
            counts = np.bincount(codes[images, level].ravel(), minlength=16)
            share = counts[counts > 0] / counts.sum()
            own.append(((counts > 0).mean(), np.exp(-(share * np.log(share)).sum())))
        assert (used, perplexity) == pytest.approx(tuple(np.mean(own, axis=0)), rel=1e-4)


def test_data_that_is_not_there_is_said(tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as stopped:
        transport.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "nowhere" in capsys.readouterr().err
