"""Every lint rule is broken by a small edit of a real graph, and nothing else notices."""

from __future__ import annotations

import copy
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
from helpers.broken_graphs import (
    FLOAT_EDITS,
    INT8_EDITS,
    identity,
    newer_ir,
    odd_side,
    one_nan,
    second_varying_dimension,
    uint8_transpose,
)
from helpers.graph_edits import first
from onnx import TensorProto, helper, numpy_helper

from hvq_edge.errors import BundleError, GateFailed
from hvq_edge.export.graph.view import GraphView
from hvq_edge.export.lint.check import RULES, check_graph_file, lint
from hvq_edge.export.lint.engines import TENSORRT_10_3

MODES = ("auto", "input", "one")
PRECISIONS = ("fp32", "int8")
CASES = [
    pytest.param(precision, rule, edit, id=f"{rule}-{edit.__name__}")
    for precision, edits in (("fp32", FLOAT_EDITS), ("int8", INT8_EDITS))
    for rule, breaking in edits.items()
    for edit in breaking
]


@pytest.fixture(scope="module")
def models(small_graphs) -> dict[str, onnx.ModelProto]:
    return {precision: onnx.load(small_graphs["auto", precision]) for precision in PRECISIONS}


@pytest.mark.parametrize(("precision", "rule", "edit"), CASES)
def test_an_edit_breaks_its_rule_alone(precision, rule, edit, models, monkeypatch):
    model = copy.deepcopy(models[precision])
    monkeypatch.setattr("getpass.getuser", lambda: "factory-user-7")
    if rule == "file-size":
        monkeypatch.setattr("hvq_edge.export.lint.form.LARGEST_FILE", 1000)
    else:
        edit(model)
    findings = lint(model)
    assert {finding.rule for finding in findings} == {rule}, [*map(str, findings)]
    assert all(finding.message for finding in findings)
    severity = next(r.severity for r in RULES if r.name == rule)
    assert {finding.severity for finding in findings} == {severity}


def test_every_rule_is_broken_by_a_case():
    assert {*FLOAT_EDITS, *INT8_EDITS} == {rule.name for rule in RULES}
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_says_what_and_why(rule):
    assert rule.summary.endswith(".")
    assert rule.reason.endswith((".", ")"))
    assert len(rule.reason.split()) > 5


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", MODES)
def test_exported_graphs_are_clean(mode, precision, small_graphs):
    assert [*map(str, lint(onnx.load(small_graphs[mode, precision])))] == []
    assert check_graph_file(small_graphs[mode, precision]) == []


# --- findings ---


def test_findings_name_the_node(models):
    model = copy.deepcopy(models["fp32"])
    uint8_transpose(model)
    (finding,) = lint(model)
    assert finding.node.startswith("added/Transpose")
    assert "reads frames, which is uint8" in finding.message
    assert str(finding).endswith("[uint8-only-cast]")


def test_only_the_root_of_an_unknown_shape_is_named(models):
    model = copy.deepcopy(models["fp32"])
    second_varying_dimension(model)
    found = {finding.rule: finding for finding in lint(model)}
    assert set(found) == {"inputs", "static-shapes"}
    assert found["static-shapes"].node == "frames"


def test_a_side_that_no_cell_divides(models):
    model = copy.deepcopy(models["fp32"])
    odd_side(model)
    assert any("63 is no multiple of 16" in finding.message for finding in lint(model))


def test_check_lists_all_findings_at_once(models, tmp_path):
    model = copy.deepcopy(models["fp32"])
    for edit in (newer_ir, identity, one_nan):
        edit(model)
    path = tmp_path / "broken.onnx"
    onnx.save(model, path)
    with pytest.raises(GateFailed, match=r"broken\.onnx breaks 2 of the rules") as raised:
        check_graph_file(path)
    for rule in ("ir-version", "idle-nodes", "finite-constants"):
        assert f"[{rule}]" in str(raised.value)
    assert raised.value.next_step


def test_check_returns_warnings(models, tmp_path):
    model = copy.deepcopy(models["fp32"])
    identity(model)
    onnx.save(model, tmp_path / "slow.onnx")
    assert [finding.rule for finding in check_graph_file(tmp_path / "slow.onnx")] == ["idle-nodes"]


@pytest.mark.parametrize("content", [None, b"not a graph", b"\x08"])
def test_check_of_what_is_no_graph(content, tmp_path):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        check_graph_file(path)


def test_operators_are_onnx_operators():
    for name in TENSORRT_10_3:
        assert not onnx.defs.get_schema(name, 18).deprecated, name


# --- the view of a graph that rules share ---


def test_view_gives_constants_of_nodes_and_of_initialisers():
    nodes = [
        helper.make_node("Constant", [], ["floats"], value_floats=[1.0, 2.0]),
        helper.make_node("Constant", [], ["integer"], value_int=3),
        helper.make_node("Constant", [], ["tensor"], value=numpy_helper.from_array(np.eye(2), "t")),
    ]
    kept = numpy_helper.from_array(np.float32(4), "kept")
    view = GraphView(helper.make_model(helper.make_graph(nodes, "g", [], [], [kept])))
    assert view.constant("floats").tolist() == [1, 2]
    assert view.constant("integer") == 3
    assert view.constant("tensor").tolist() == [[1, 0], [0, 1]]
    assert view.constant("kept") == 4
    assert view.constant("unknown") is None


def test_view_believes_nodes_and_not_the_files_notes(models):
    model = copy.deepcopy(models["fp32"])
    name = first(model, "Softmax").output[0]
    right = GraphView(model).values(3)[name].shape
    del model.graph.value_info[:]
    wrong = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 3])
    model.graph.value_info.append(wrong)
    assert GraphView(model).values(3)[name].shape == right
    assert right[0] == 3


# --- NVIDIA's own linter ---


@pytest.mark.skipif(
    find_spec("polygraphy") is None or find_spec("onnx_graphsurgeon") is None,
    reason="polygraphy check lint needs polygraphy and onnx-graphsurgeon",
)
def test_polygraphy_finds_no_fault(small_graphs):
    """All in one process: its start takes most of the time."""
    code = """if True:
        import sys
        from polygraphy.tools import main
        for tool in (["check", "lint"], ["inspect", "model"]):
            for graph in sys.argv[1:]:
                ended = main([*tool, graph])
                print("[ended]", *tool, graph, ended, flush=True)
                if ended:
                    sys.exit(1)
    """
    graphs = [small_graphs["auto", precision] for precision in PRECISIONS]
    command = [sys.executable, "-c", code, *map(str, graphs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("[ended]") == 4, done.stdout
    assert "[E]" not in done.stdout + done.stderr, done.stdout + done.stderr
