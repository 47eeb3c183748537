"""Channels brought to one range compute what they did, until one exceeds its headroom."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper

from benchmarks.accuracy.equalisation import MOST, equalise, factors_of, pairs_of
from benchmarks.speed.layer_times import GROUPS, REST, group_of

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def outputs(graph: ModelProto, *names: str) -> dict[str, np.ndarray]:
    probed = ModelProto()
    probed.CopyFrom(graph)
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(
        probed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = [output.name for output in session.get_outputs()]
    return dict(zip(found, session.run(found, {"frames": FRAMES}), strict=True))


@pytest.fixture(scope="module")
def graph(small_graphs) -> ModelProto:
    return onnx.load(small_graphs["auto", "fp32"])


@pytest.fixture(scope="module")
def largest(graph) -> dict[str, np.ndarray]:
    tensors = [pair.tensor for pair in pairs_of(graph)]
    values = outputs(graph, *tensors)
    found = {}
    for name in tensors:
        value = np.abs(values[name])
        channel = 1 if value.ndim == 4 else value.ndim - 1
        found[name] = value.max(tuple(axis for axis in range(value.ndim) if axis != channel))
    return found


def test_every_relu_between_two_layers_is_found(graph):
    pairs = pairs_of(graph)
    depthwise = [pair for pair in pairs if "depthwise" in pair.second.name]
    feedforward = [pair for pair in pairs if "linear2" in pair.second.name]
    assert len(depthwise) == sum(
        "depthwise" in node.name and node.op_type == "Conv" for node in graph.graph.node
    )
    assert len(feedforward) == 4, "two encoder layers and two decoder layers"
    assert {pair.limit for pair in depthwise} == {6.0}
    assert {pair.limit for pair in feedforward} == {float("inf")}


def test_the_graph_computes_the_same(graph, largest):
    layers = [pair.second.name for pair in pairs_of(graph)]
    made, factors = equalise(graph, largest, layers)
    assert set(factors) == set(largest)
    before, after = outputs(graph, *largest), outputs(made, *largest)
    for name in largest:
        shape = (1, -1, 1, 1) if before[name].ndim == 4 else (1, 1, -1)
        expected = before[name] * factors[name].reshape(shape)
        np.testing.assert_allclose(after[name], expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(after["map"], before["map"], rtol=1e-3, atol=1e-3)
    widest = max(factors.values(), key=np.max)
    assert widest.max() > 2, "or nothing was tested"
    untouched, none = equalise(graph, largest, [])
    assert none == {}
    assert untouched.SerializeToString() == graph.SerializeToString()


def test_without_headroom_a_value_never_seen_clips(graph, largest):
    """What a defect lights up: this is what the benchmark's numbers come from."""
    pair = next(pair for pair in pairs_of(graph) if "depthwise" in pair.second.name)
    smaller = {pair.tensor: largest[pair.tensor] / 3}
    for headroom, same in ((1.0, False), (3.0, True)):
        made, factors = equalise(graph, smaller, [pair.second.name], headroom)
        after = outputs(made, pair.tensor)[pair.tensor] / factors[pair.tensor].reshape(1, -1, 1, 1)
        before = outputs(graph, pair.tensor)[pair.tensor]
        assert np.allclose(after, before, rtol=1e-4, atol=1e-4) == same


def test_factors():
    np.testing.assert_allclose(factors_of(np.array([6.0, 3.0, 0.0, 9.0]), 6.0), [1, 2, MOST, 1])
    np.testing.assert_allclose(factors_of(np.array([4.0, 1.0]), np.inf), [1, 4])
    assert factors_of(np.zeros(3), np.inf) is None
    assert factors_of(np.array([1.0, np.inf]), np.inf) is None


def test_weights_are_divided_where_they_read(graph, largest):
    pair = next(pair for pair in pairs_of(graph) if "linear2" in pair.second.name)
    made, factors = equalise(graph, largest, [pair.second.name])
    old, new = (
        {t.name: numpy_helper.to_array(t) for t in one.graph.initializer}[pair.second.input[1]]
        for one in (graph, made)
    )
    np.testing.assert_allclose(new * factors[pair.tensor][:, None], old, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "group"),
    [
        ("backbone.blocks.2.depthwise.conv/Conv", "GroupConvolution", GROUPS[0][0]),
        ("backbone.blocks.7.depthwise.conv/Conv", "GroupConvolution", GROUPS[1][0]),
        ("backbone.blocks.7.project.conv/Conv", "Convolution", GROUPS[2][0]),
        ("decoder.1.cross_attention/Transpose_4", "Subgraph", GROUPS[3][0]),
        ("decoder.1.cross_attention.out/MatMul", "FullyConnected", GROUPS[4][0]),
        ("codebooks.1/MatMul", "MatMul", GROUPS[5][0]),
        ("prototypes/Add", "Add", GROUPS[6][0]),
        ("MVN_1568", "MVN", REST),
        ("decoder.0/Add_3", "Add", REST),
    ],
)
def test_what_an_operation_is_for(name, kind, group):
    assert group_of(name, kind) == group
