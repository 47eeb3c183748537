"""``docs/how-to/reproduce.md``: its commands run, at small size, and what it says is so."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from helpers.paths import ROOT
from helpers.synthetic_weights import synthetic_weight
from helpers.visa_folder import write_visa

from hvq_edge.cli.app import main
from hvq_edge.common.atomic import sha256_of
from hvq_edge.model.backbone import Backbone
from hvq_edge.model.backbone_weights import PUBLISHED_URLS, to_published
from hvq_edge.run.record import read_run
from hvq_edge.run.settings import load_settings

PAGE = (ROOT / "docs/how-to/reproduce.md").read_text(encoding="utf-8")
SMALL = """\
[model]
input_side = 64
width = 16
heads = 2
feedforward = 32
layers = 2
codes = 8
"""


def commands() -> list[list[str]]:
    return [shlex.split(line)[1:] for line in PAGE.splitlines() if line.startswith("hvq-edge ")]


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def b4_weights(tmp_path_factory) -> Path:
    """A file in the published layout: B4's names and shapes, values made from them."""
    state = {
        to_published(name): torch.from_numpy(
            synthetic_weight(to_published(name), tuple(value.shape))
        )
        for name, value in Backbone("efficientnet_b4", 64).state_dict().items()
    }
    # The published file goes on where our network ends.
    state["_fc.weight"] = torch.zeros(1000, 1792)
    path = tmp_path_factory.mktemp("weights") / "efficientnet-b4.pth"
    torch.save(state, path)
    return path


@pytest.fixture(params=["mvtec", "visa"])
def dataset(request, tmp_path) -> Path:
    if request.param == "visa":
        return write_visa(tmp_path / "VisA")
    return request.getfixturevalue("mvtec_folder")


def test_the_whole_protocol_at_small_size(dataset, b4_weights, tmp_path, monkeypatch, capsys):
    """The three commands of the page, with a small network for two epochs."""
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)
    check, train, evaluate = commands()[:3]
    small = ["--settings", "small.toml", "--epochs", "2", "--backbone-weights", str(b4_weights)]
    for command in (check, [*train, *small], [*evaluate, "--json"]):
        capsys.readouterr()
        arguments = [str(dataset) if part == "DIR" else part for part in command]
        assert run_cli(*arguments) == 0, capsys.readouterr().err
    found = json.loads(capsys.readouterr().out)

    record = read_run(Path("runs/latest"))
    assert record.settings.preset == "paper"
    assert record.settings.model.backbone == "efficientnet_b4"
    assert record.settings.model.map_scale == "published"
    assert record.epochs_done == 2
    assert sha256_of(b4_weights) in record.backbone_weights
    categories = {"mvtec": ("bolt", "tile"), "VisA": ("candle", "pcb1")}[dataset.name]
    assert record.categories == categories

    known = found["evaluations"][0]
    assert known["category"] == "known"
    assert len(known["images"]) == {"mvtec": 16, "VisA": 12}[dataset.name]
    assert known["unreadable"] == {}
    masked = {"mvtec": {"bolt"}, "VisA": {"candle", "pcb1"}}[dataset.name]
    for one in known["categories"]:
        assert 0 <= one["image_auroc"] <= 1
        assert (one["pixel_auroc"] is not None) == (one["category"] in masked)
    assert 0 < known["mean"]["pixel_auroc"] < 1
    assert "ategory known" in Path("runs/latest/report.html").read_text(encoding="utf-8")


def test_the_other_commands_of_the_page_are_understood(monkeypatch, tmp_path, capsys):
    """They differ from those above in options only; here the folder is what is missing."""
    monkeypatch.chdir(tmp_path)
    others = [command for command in commands()[3:] if "--data" in command]
    assert len(others) == 2
    for command in others:
        assert run_cli(*command) == 2
        assert "the folder DIR does not exist" in capsys.readouterr().err


def test_the_page_names_the_file_that_is_fetched():
    assert PUBLISHED_URLS["efficientnet_b4"] in PAGE.split()
    assert load_settings("paper").model.backbone == "efficientnet_b4"


def test_the_table_of_settings_is_the_preset():
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", PAGE, re.MULTILINE))
    paper, edge = load_settings("paper"), load_settings("edge")
    value = {
        key: part[key]
        for part in (paper.model.model_dump(), paper.training.model_dump())
        for key in part
    }
    for key, said in rows.items():
        is_bool = isinstance(value[key], bool)
        assert said == (str(value[key]).lower() if is_bool else str(value[key])), key
    for table in ("model", "training"):
        ours, default = getattr(paper, table).model_dump(), getattr(edge, table).model_dump()
        special = {key for key in ours if ours[key] != default[key]}
        assert special <= rows.keys(), f"[{table}]: the preset sets these, the page does not say"


def test_the_settings_that_the_page_proposes_are_valid(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "all.toml").write_text(re.sub(r"^ +", "", text, flags=re.MULTILINE))
    settings = load_settings("paper", tmp_path / "all.toml")
    assert settings.training.held_out == 0.001


def test_links_of_the_page_exist():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE):
        assert (ROOT / "docs/how-to" / link).exists(), link
