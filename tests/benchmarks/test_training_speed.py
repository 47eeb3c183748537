"""The training benchmark runs, its table can be parsed, and its ratios are those of its times."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from benchmarks.speed import training_speed
from benchmarks.speed.training_speed import FORMS, Speed, main, rows

ROW = re.compile(
    r"  \(([a-d])\) .{36} +([\d.]+) +([\d.]+) \.\. *([\d.]+) +([\d.]+) +([\d.]+) \.\. *([\d.]+)"
)


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def table_of(out: str) -> dict[str, dict[str, float]]:
    found = {}
    for match in map(ROW.fullmatch, out.splitlines()):
        if match:
            form, *values = match.groups()
            names = ("speed", "low", "high", "ratio", "least", "most")
            found[form] = dict(zip(names, map(float, values), strict=True))
    return found


def test_generated_images_and_every_form(capsys):
    arguments = ["--sizes", "tiny", "--rounds", "2", "--batch", "2", "--images", "3"]
    main([*arguments, "--threads", "1", "--device", "cpu"])
    out = capsys.readouterr().out
    assert "1 threads" in out
    assert "efficientnet_lite0 (published weights), 224 px" in out
    assert "3 images (generated) of 3 categories, batch 2, 2 rounds" in out
    table = table_of(out)
    assert list(table) == list(FORMS)
    assert table["a"]["ratio"] == table["a"]["least"] == table["a"]["most"] == 1
    for row in table.values():
        assert 0 < row["low"] <= row["speed"] <= row["high"]
        assert 0 < row["least"] <= row["ratio"] <= row["most"]


def test_a_folder_of_images(mvtec_folder, capsys):
    arguments = ["--data", str(mvtec_folder), "--sizes", "tiny", "--rounds", "1", "--batch", "2"]
    main([*arguments, "--images", "4", "--warm-up", "0", "--device", "cpu"])
    out = capsys.readouterr().out
    assert "4 images (mvtec) of 2 categories, batch 2, 1 rounds" in out
    assert list(table_of(out)) == list(FORMS)


def test_a_folder_without_images(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--data", str(tmp_path), "--sizes", "tiny"])
    assert exit_.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_ratios_are_taken_round_by_round():
    """A slow round of the machine slows every form, and leaves the ratio as it is."""
    slow = np.array([10.0, 5.0, 8.0])
    (first, second) = rows([Speed("a", slow), Speed("c", 3 * slow)])
    assert first.speed == (8.0, 5.0, 10.0)
    assert second.ratio == pytest.approx((3.0, 3.0, 3.0))


def test_a_loss_that_is_not_finite_is_no_time(monkeypatch):
    def broken(*_):
        return torch.tensor(float("nan"), requires_grad=True)

    monkeypatch.setattr(training_speed.Steps, "_loss_c", broken)
    with pytest.raises(ArithmeticError, match=r"form \(c\)"):
        main(["--sizes", "tiny", "--batch", "1", "--images", "2", "--device", "cpu"])
