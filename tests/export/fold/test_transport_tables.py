"""Transport scores of every level, as tables of the exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.small_graphs import SIDE, save_int8, small_model

from hvq_edge.calibration.quantise import quantisable_nodes
from hvq_edge.export.fold.folded import FoldedHVQTrans
from hvq_edge.export.graph.onnx_graph import export_graph
from hvq_edge.export.lint.check import lint
from hvq_edge.model import HVQTrans
from hvq_edge.run.settings import load_settings
from hvq_edge.runtime.contract import Graph
from hvq_edge.runtime.cpu.onnxruntime_engine import OnnxRuntimeEngine

MORE = {"transport_weight": 300.0, "transport_temperature": 4.0}
"""So heavy that a wrong score shows in the map, whatever else is in it."""


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)


@torch.inference_mode()
def expected_of(model: HVQTrans, frames: np.ndarray) -> dict[str, np.ndarray]:
    found = model(torch.from_numpy(frames), torch.ones(len(frames), dtype=torch.int64))
    return {name: value.numpy() for name, value in found.items()}


@pytest.fixture(scope="module", params=[0, 1, 2])
def scored(request, frames) -> tuple[int, HVQTrans, dict[str, np.ndarray]]:
    """A level, a model that scores it alone, and what it gives for the frames."""
    shares = tuple(float(i == request.param) for i in range(3))
    model = small_model(transport_levels=shares, **MORE)
    expected = expected_of(model, frames)
    without = expected_of(small_model(transport_levels=shares, transport_weight=0.0), frames)
    assert np.abs(without["map"] - expected["map"]).max() > 0.1 * np.abs(expected["map"]).max()
    return request.param, model, expected


@pytest.mark.parametrize(("mode", "megabytes"), [("one", 64.0), ("input", 64.0), ("input", 0.0)])
@torch.inference_mode()
def test_each_levels_score_is_that_of_the_model(scored, mode, megabytes, frames):
    """Looked up with the top code's share, and computed on whole tokens."""
    level, model, expected = scored
    folded = FoldedHVQTrans(model, mode, 1 if mode == "one" else None, max_table_mb=megabytes)
    chosen = {fold.name: fold.chosen for fold in folded.folds if fold.name.startswith("transport")}
    assert chosen == ({f"transport.{level}": megabytes > 0} if level < 2 else {})
    assert [*folded.transport] == [str(level)]  # the others cost nothing
    category = (torch.ones(len(frames), dtype=torch.int32),) if mode == "input" else ()
    score, found, codes = folded(torch.from_numpy(frames), *category)
    np.testing.assert_array_equal(codes, expected["codes"])
    for own, name in ((score, "score"), (found, "map")):
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(own, expected[name], rtol=0, atol=1e-5 * largest)


@pytest.fixture(scope="module")
def model() -> HVQTrans:
    """All that ``paper-ot`` sets but its size; each level has a share of its own."""
    preset = load_settings("paper-ot").model
    assert preset.transport_weight
    assert all(preset.transport_levels)
    sizes = {"backbone", "width", "heads", "feedforward", "layers", "input_side", "codes"}
    return small_model(
        **preset.model_dump(exclude={*sizes, "transport_levels"}),
        backbone="efficientnet_b0",
        transport_levels=(1.0, 0.5, 2.0),
    )


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "one.fp32.onnx"
    export_graph(model, path, "one", 1)
    return path


@pytest.mark.long
def test_the_exported_graph_is_the_model(graph, model, frames):
    engine = OnnxRuntimeEngine(Graph(graph, "fp32", (SIDE, SIDE), ("tile",), "one"))
    found, expected = engine.run(frames, None), expected_of(model, frames)
    engine.close()
    np.testing.assert_array_equal(found["codes"], expected["codes"])
    for name in ("map", "score"):
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5 * largest)


@pytest.mark.long
def test_scores_of_all_levels_stay_in_float_and_the_graph_keeps_the_rules(graph):
    """Squeeze and excitation, SiLU, bilinear taps: other operators than the default net's."""
    proto = onnx.load(graph)
    scored = [node.name for node in proto.graph.node if node.name.startswith("transport.")]
    assert {name.partition("/")[0] for name in scored} == {f"transport.{i}" for i in range(3)}
    assert not {*scored} & {*quantisable_nodes(proto)}
    for file in (graph, save_int8(graph)):
        assert [*map(str, lint(onnx.load(file)))] == []
