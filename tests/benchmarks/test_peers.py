"""Graphs of other methods are timed beside ours; each reading counts the graphs that it needs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper

from benchmarks.speed import peers
from benchmarks.speed.peer_graphs import PEERS, RECORD
from benchmarks.speed.peers import FORMS, FREE, INT8_FORMS, OURS, PRODUCTS, Graph, Row


def largest(*shape: int) -> onnx.ModelProto:
    """A graph that gives the largest value of an image: the cheapest that can be timed."""
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, None)
    node = helper.make_node("ReduceMax", ["input"], ["score"], keepdims=0)
    graph = helper.make_graph([node], "largest", [image], [score])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_peers(folder: Path) -> None:
    """Files such as ``make peers`` leaves: one for a product each, one for all."""
    rows = []
    for name, products in (("own", 1), ("shared", 0)):
        (folder / name).mkdir()
        for file in ("fp32.onnx", "int8.onnx"):
            onnx.save(largest(1, 3, 8, 8), folder / name / file)
        model = openvino.convert_model(folder / name / "fp32.onnx")
        openvino.save_model(model, folder / name / "int8.xml")
        rows.append({"name": name, "folder": name, "products": products})
    record = {"versions": {"anomalib": "2.7.0"}, "peers": rows}
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")


def save_ours(folder: Path) -> list[Graph]:
    """In the place of the preset's, whose export takes a minute."""
    path = folder / "ours.onnx"
    onnx.save(largest(1, 8, 8, 3), path)
    files = {form: path for form in FORMS if form != FREE}
    return [
        Graph(OURS, files, exact=True, alone=True),
        Graph(f"{OURS}, {PRODUCTS} products", files, exact=True, alone=False),
    ]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_both_tables(tmp_path, monkeypatch, capsys):
    write_peers(tmp_path)
    monkeypatch.setattr(peers, "write_ours", lambda _, folder: save_ours(folder))
    monkeypatch.setattr("sys.argv", ["peers", str(tmp_path), "--rounds", "2", "--threads", "1"])
    peers.main()
    said = capsys.readouterr().out
    assert "2 rounds; theirs by anomalib 2.7.0" in said
    rows = {cells(line)[0]: cells(line)[1:] for line in said.splitlines() if line[:2] == "| "}
    one, five = said.split("products, threads", 1)
    assert list(re.findall(r"^\| (own|shared|edge) +\|", one, re.MULTILINE)) == [
        OURS,
        "own",
        "shared",
    ]
    assert len(re.findall(r" \d+\.\d\d \(\d+\.\d\d \.\. \d+\.\d\d\) \|$", one, re.MULTILINE)) == 3
    assert rows["own"][0] == str(PRODUCTS)
    assert rows["shared"][0] == rows[f"{OURS}, {PRODUCTS} products"][0] == "1"
    assert rows["shared"][1] == rows["shared"][3], "one graph for all is the same in both readings"
    assert f"\n| {OURS} " not in five, "ours for a single product serves no five"


def test_ratios_are_of_the_fastest_form_and_count_every_graph():
    def seconds(*each: float) -> np.ndarray:
        return np.array(each)[:, None]

    slow = dict(zip(INT8_FORMS, (seconds(4, 4, 4), seconds(2, 1, 3)), strict=True))
    fast = dict(zip(INT8_FORMS, (seconds(1, 1, 1), seconds(8, 8, 8)), strict=True))
    floats = {form: seconds(9, 9, 9) for form in FORMS if form not in (*INT8_FORMS, FREE)}
    ours = f"{OURS}, {PRODUCTS} products"
    rows = {
        OURS: Row({**floats, **fast}, None),
        ours: Row({**floats, **fast}, seconds(1, 1, 1)),
        "other": Row({**floats, **slow}, seconds(10, 10, 10)),
    }
    line = peers.one_product(rows, [OURS, "other"]).splitlines()[-1]
    milliseconds = ["9000.0", "", "9000.0", "4000.0", "2000.0"]
    assert cells(line) == ["other", *milliseconds, "2.00 (1.50 .. 2.50)"]
    graphs = [Graph(ours, {}, exact=True, alone=False), Graph("other", {}, exact=False, alone=True)]
    line = peers.all_products(rows, graphs).splitlines()[-1]
    twice, ten = "2.00 (2.00 .. 2.00)", "10.00 (10.00 .. 10.00)"
    assert cells(line) == ["other", "5", "2000.0", twice, "10000.0", ten]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_name_says_the_side_that_is_not_the_default(peer):
    assert sum(other.name == peer.name for other in PEERS) == 1
    assert peer.name.endswith(f", {peer.side} px") == (peer.side == 224)
