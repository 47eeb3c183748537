"""Choices are judged on the maps of the model itself."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from benchmarks.accuracy import choices
from benchmarks.accuracy.choices import CHOICES, Choice, numbers, scores_of
from benchmarks.accuracy.disturbances import DISTURBANCES, Shot
from benchmarks.accuracy.kept_parts import CLEAN, STRENGTHS, products_of
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.evaluation.metrics.image_metrics import auroc
from hvq_edge.model.checkpoint import load_run
from hvq_edge.run.record import read_run, recorded_data, write_run

DEFAULT = CHOICES["default"]


@pytest.fixture(scope="module")
def products(small_run, tmp_path_factory):
    return products_of(small_run, tmp_path_factory.mktemp("choices"))


@pytest.mark.parametrize("condition", [CLEAN, "shift", "brightness"])
def test_the_default_is_what_the_model_says(condition, products, small_run):
    model, record = load_run(small_run)
    dataset, side = find_dataset(recorded_data(small_run)), record.settings.model.input_side
    assert [one.name for one in products] == list(record.categories)
    for k, product in enumerate(products):
        frames = []
        for number, image in enumerate(dataset.test(product.name)):
            pixels = read_image(image.path)
            if condition != CLEAN:
                disturb = DISTURBANCES[condition][STRENGTHS[condition]]
                pixels = disturb(pixels, Shot(number, side))
            frames.append(fit_image(pixels, side))
        with torch.inference_mode():
            raw = model.raw_features(torch.from_numpy(np.stack(frames)))
            kept = model.standardise(raw.half().float())  # as features are kept
            expected = model.judge(kept, torch.full((len(frames),), k))["score"].numpy()
        _, scores = scores_of(product, DEFAULT)
        assert expected.std() > 0.05
        np.testing.assert_allclose(scores[condition], expected, rtol=0, atol=1e-3)


def test_every_choice_is_another_score(products):
    """Where the learnt share is none or all, or no level reaches the limit, levels are the same."""
    product = products[0]
    groups = [
        {name: choice for name, choice in CHOICES.items() if "level" not in name},
        {name: choice for name, choice in CHOICES.items() if choice.share is not None},
        {"low limit": Choice(reach=-2.0), "lower limit": Choice(reach=-4.0)},
    ]
    for group in groups:
        found = {name: scores_of(product, choice) for name, choice in group.items()}
        for (one, (limit, scores)), (other, (other_limit, others)) in combinations(
            found.items(), 2
        ):
            assert np.abs(others[CLEAN] - scores[CLEAN]).max() > 1e-3, (one, other)
            assert other_limit != limit, (one, other)
    assert numbers(product, CHOICES["prototypes alone"]) != numbers(product, DEFAULT)


def test_without_versions_their_share_of_the_scale_is_nothing(products):
    alone = products[0]._replace(varied=None)
    _, scores = scores_of(alone, DEFAULT)
    _, expected = scores_of(products[0], CHOICES["scale of the images alone"])
    np.testing.assert_array_equal(scores[CLEAN], expected[CLEAN])


def test_the_tables_are_means_over_products(products, monkeypatch, capsys):
    monkeypatch.setattr(choices, "products_of", lambda *_: products)
    left_out, kept = products
    choices.main(["small", "--without", left_out.name])
    printed = capsys.readouterr().out
    first, second = printed.split("Means over ")[1:]
    assert first.startswith(f"2 products ({left_out.run}/{left_out.name}, ")
    assert second.startswith(f"1 products ({kept.run}/{kept.name})")
    for table, of in ((first, products), (second, [kept])):
        _, _, *rows = [line for line in table.splitlines() if line.startswith("|")]
        assert [row.split("|")[1].strip() for row in rows] == list(CHOICES)
        for row in rows:
            name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
            judged = [scores_of(one, CHOICES[name]) for one in of]
            areas = [
                auroc(scores[CLEAN], one.defective)
                for one, (_, scores) in zip(of, judged, strict=True)
            ]
            assert float(cells[0]) == pytest.approx(100 * np.mean(areas), abs=0.051)
            verdicts = [
                [
                    (scores["blur"][kind] > threshold).mean()
                    for kind in (~one.defective, one.defective)
                ]
                for one, (threshold, scores) in zip(of, judged, strict=True)
            ]
            blurred = [float(value) for value in cells[3 + 3].split(" / ")]
            assert blurred == pytest.approx(100 * np.mean(verdicts, axis=0), abs=0.051)


@pytest.mark.parametrize("which", ["nothing of it", "all"])
def test_what_cannot_be_left_out_is_said(which, products, monkeypatch, capsys):
    monkeypatch.setattr(choices, "products_of", lambda *_: products)
    names = [one.name for one in products] if which == "all" else [which]
    with pytest.raises(SystemExit) as exit_:
        choices.main(["small", *(word for name in names for word in ("--without", name))])
    assert exit_.value.code == 2
    assert f"{products[0].run}/{products[0].name}" in capsys.readouterr().err


def test_a_run_whose_score_is_made_otherwise_is_refused(small_run, tmp_path, capsys):
    record = read_run(small_run)
    changed = record.settings.model.model_copy(update={"image_level": "kept"})
    settings = record.settings.model_copy(update={"model": changed})
    write_run(tmp_path, record.model_copy(update={"settings": settings}))
    with pytest.raises(SystemExit) as exit_:
        choices.main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert exit_.value.code == 2
    assert "not made as by default" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
