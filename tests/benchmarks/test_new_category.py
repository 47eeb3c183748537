"""The table of products added afterwards: what it trains and judges, and that it resumes."""

from __future__ import annotations

import json

import numpy as np

from benchmarks.accuracy import new_category
from benchmarks.accuracy.added_products import ALL, Bench, Product
from benchmarks.accuracy.new_category import table

SMALL = {"input_side": 64, "width": 16, "heads": 2, "feedforward": 32, "layers": 1, "codes": 16}


def cells(printed: str) -> dict[tuple[str, str], list[str]]:
    """The cells of each row by product and number of images."""
    rows = (line.strip("|").split("|") for line in printed.splitlines()[2:])
    return {
        (name.strip(), images.strip()): [one.strip() for one in others]
        for name, images, *others in rows
    }


def test_it_adds_each_product_in_every_way_and_goes_on_where_it_stopped(
    mvtec_folder, tmp_path, capsys, monkeypatch
):
    lines = [f"{key} = {value}" for key, value in {**SMALL, "prototypes": 8}.items()]
    training = ["[training]", "versions = 1"]
    (tmp_path / "small.toml").write_text("\n".join(["[model]", *lines, *training]))
    out = tmp_path / "out"
    settings = ["--settings", str(tmp_path / "small.toml"), "--epochs", "1"]
    arguments = [str(mvtec_folder), "--out", str(out), *settings, "--images", "4", "0", "50"]
    new_category.main([*arguments, "--draws", "1"])
    printed = capsys.readouterr().out
    assert {path.stem for path in (out / "weights").glob("*.pt")} == {
        "without-bolt",
        "without-tile",
        "all",
    }
    numbers = json.loads((out / "numbers.json").read_text())
    ways = {key.split("/")[3] for key in numbers}
    assert ways == {"added", "prototypes alone", "memory", "trained", "classifier"}
    assert {key.split("/")[1] for key in numbers} == {"4", "0"}  # there are no 50 images
    reached, _, chosen = printed.partition("\nThe product chosen by the classifier\n\n")
    rows = cells(reached)
    assert len(rows) == 2 * 2 + 2  # of each product and of the mean
    assert [*cells(chosen)] == [(name, n) for name in ("bolt", "tile") for n in ("4", "all")]
    shown = rows["bolt", "all"][0]
    assert shown.startswith(f"{100 * numbers['bolt/0/0/added']['image']:.1f} / ")

    def fail(*_: object) -> None:
        raise AssertionError("this was already done")

    monkeypatch.setattr(new_category, "ways_of", fail)
    monkeypatch.setattr(Bench, "trained", fail)
    new_category.main([*arguments, "--draws", "1"])
    assert capsys.readouterr().out == printed


def test_means_are_of_draws_and_then_of_products_and_leave_out_what_is_not_known():
    def numbers(image: float, pixel: float | None) -> dict[str, float | None]:
        return {"image": image, "pixel": pixel, "recall": 0.5, "seconds": 1.0}

    found = {
        "bolt/10/0/added": numbers(0.9, 0.8),
        "bolt/10/1/added": numbers(0.7, 0.6),
        "tile/10/0/added": numbers(0.6, None),
        f"tile/{ALL}/0/added": numbers(1.0, None),
        "bolt/10/0/trained": numbers(0.5, 0.5),
    }
    assert cells(table(found, ("bolt", "tile"))) == {
        ("bolt", "10"): ["80.0 / 70.0 / 50.0", "50.0 / 50.0 / 50.0"],
        ("tile", "10"): ["60.0 / – / 50.0", "–"],
        ("tile", "all"): ["100.0 / – / 50.0", "–"],
        ("mean of 2", "10"): ["70.0 / 70.0 / 50.0", "–"],
    }


def test_drawn_images_are_learnt_from_or_held_out_and_other_draws_are_others():
    features = np.zeros((40, 1, 1), np.float16)
    apart = np.arange(40) >= 34
    product = Product("bolt", features, apart, features[:, None], None, None, None)
    one = product.draw(20, 0, 0.15)
    assert (len(one.fit), len(one.held_out)) == (17, 3)
    assert not {*one.fit} & {*one.held_out}
    assert {*one.fit} != {*product.draw(20, 1, 0.15).fit}
    whole = product.draw(ALL, 0, 0.15)
    assert ([*whole.fit], [*whole.held_out]) == ([*range(34)], [*range(34, 40)])
