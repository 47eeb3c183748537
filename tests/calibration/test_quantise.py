"""Where Q/DQ pairs go, and that they round as they say."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.small_graphs import default_nodes
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hvq_edge.calibration.quantise import (
    QMAX,
    activations_of,
    default_exclusions,
    fp16_scale,
    quantisable_nodes,
    quantise_graph,
)
from hvq_edge.errors import InputError


@pytest.fixture(scope="module")
def graph(small_graphs) -> onnx.ModelProto:
    return onnx.load(small_graphs["auto", "fp32"])


def two_linears(first: np.ndarray, second: np.ndarray) -> onnx.ModelProto:
    """x -> x @ first -> its product with second, and itself to a reader that stays in float."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "a.linear/MatMul"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], "b.linear/MatMul"),
        helper.make_node("Relu", ["h"], ["kept"], "b.norm/Relu"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(first)])]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", second.shape[1]]),
        helper.make_tensor_value_info("kept", TensorProto.FLOAT, ["n", len(second)]),
    ]
    weights = [numpy_helper.from_array(w, n) for w, n in ((first, "w1"), (second, "w2"))]
    body = helper.make_graph(nodes, "two", inputs, outputs, weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, **feed: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


def rounded(x: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    return np.clip(np.rint(x / scale), -128, QMAX).astype(np.float32) * np.float32(scale)


@given(
    seed=st.integers(0, 2**16),
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    magnitude=st.floats(1e-3, 1e3),
    share=st.floats(0.3, 2),
)
@settings(max_examples=25, deadline=None)
def test_a_layer_computes_with_rounded_weights_and_inputs(seed, sizes, magnitude, share):
    rng = np.random.default_rng(seed)
    n, m, k = sizes
    first = rng.normal(size=(n, m)).astype(np.float32)
    second = (magnitude * rng.normal(size=(m, k))).astype(np.float32)
    second[:, 0] = 0  # a dead channel
    x = rng.normal(size=(4, n)).astype(np.float32)
    hidden = x @ first
    ranges = {"h": float(np.abs(hidden).max() * share + 1e-6)}
    made = quantise_graph(two_linears(first, second), ranges, ["b.linear/MatMul"])
    onnx.checker.check_model(made, full_check=True)
    y, kept = run(made, x=x)
    np.testing.assert_allclose(kept, np.maximum(hidden, 0), rtol=1e-5, atol=1e-6)  # not rounded
    largest = np.abs(second).max(0)
    scales = fp16_scale(np.where(largest > 0, largest / QMAX, 1).astype(np.float32))
    weight = rounded(second, scales)
    scale = fp16_scale(np.float32(ranges["h"] / QMAX))
    expected = rounded(hidden, scale) @ weight
    # A value halfway between two steps may go either way.
    step = float(scale) * np.abs(weight).sum(0).max() + 1e-6
    assert np.abs(y - expected).max() <= step * 1.01
    assert (np.abs(y - expected) < 1e-3 * np.abs(expected).max() + 1e-6).mean() > 0.5


def test_only_the_layers_asked_for_are_quantised(graph):
    layers = default_nodes(graph)
    some = layers[::3]
    ranges = dict.fromkeys(activations_of(graph, layers), 1.0)
    made = quantise_graph(graph, ranges, some)
    onnx.checker.check_model(made, full_check=True)
    writers = {name: node for node in made.graph.node for name in node.output}
    for node in made.graph.node:
        if node.name in layers:
            read = {writers[name].op_type if name in writers else "" for name in node.input[:2]}
            assert (read == {"DequantizeLinear"}) == (node.name in some), node.name
    stored = [t for t in made.graph.initializer if t.data_type == TensorProto.INT8 and t.dims]
    constants = {tensor.name for tensor in graph.graph.initializer}
    weighted = [n for n in graph.graph.node if n.name in some and n.input[1] in constants]
    assert 0 < len(weighted) < len(some), "products of two tensors are among them"
    assert len([t for t in stored if not t.name.startswith("zero_point")]) == len(weighted)
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names)


def test_nothing_to_quantise_leaves_the_graph_as_it_is(graph):
    assert quantise_graph(graph, {}, []).SerializeToString() == graph.SerializeToString()


def test_a_tensor_is_rounded_once_for_all_its_readers():
    eye = np.eye(3, dtype=np.float32)
    graph = two_linears(eye, eye)
    second = graph.graph.node.add()
    second.CopyFrom(graph.graph.node[1])
    second.name, second.output[0] = "c.linear/MatMul", "z"
    layers = ["b.linear/MatMul", "c.linear/MatMul"]
    assert activations_of(graph, layers) == ("h",)
    made = quantise_graph(graph, {"h": 1.0}, layers)
    operators = [node.op_type for node in made.graph.node]
    assert operators.count("QuantizeLinear") == 1
    assert operators.count("DequantizeLinear") == 2  # and one of the weight that both read


def test_what_decides_is_never_quantised(graph):
    candidates = quantisable_nodes(graph)
    modules = {name.split("/")[0].split(".")[0] for name in candidates}
    assert modules == {
        "backbone",
        "input_projection",
        "encoder",
        "decoder",
        "output",
        "prototypes",
    }
    # How far prototypes are; neither whitening nor the sums of squares.
    assert [n for n in candidates if n.startswith("prototypes")] == ["prototypes/MatMul"]
    kept = set(candidates) - set(default_nodes(graph))
    assert kept
    assert all("depthwise" in name or ".blocks.0." in name or ".blocks.1." in name for name in kept)


def test_a_backbone_without_bounds_keeps_its_early_layers_in_float():
    layers = [
        "backbone.stem.conv/Conv",
        "backbone.blocks.1.project.conv/Conv",
        "backbone.blocks.3.project.conv/Conv",
        "backbone.blocks.9.expand.conv/Conv",
    ]
    assert list(default_exclusions(layers)) == layers[1:2]
    with_squeeze = [*layers, "backbone.blocks.9.squeeze.reduce/Conv"]
    assert list(default_exclusions(with_squeeze)) == layers[:3]


def test_both_factors_of_a_product_are_rounded():
    """Queries with keys: neither is a constant."""
    node = helper.make_node("MatMul", ["q", "k"], ["y"], "a.attention/MatMul")
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3, 3]) for n in "qk"]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 3])]
    body = helper.make_graph([node], "product", inputs, outputs)
    graph = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert quantisable_nodes(graph) == ("a.attention/MatMul",)
    assert activations_of(graph, quantisable_nodes(graph)) == ("q", "k")
    made = quantise_graph(graph, {"q": 1.27, "k": 12.7}, quantisable_nodes(graph))
    onnx.checker.check_model(made, full_check=True)
    q, k = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
    expected = rounded(q, 0.01) @ rounded(k, 0.1)
    # Steps are rounded up to the next float16.
    np.testing.assert_allclose(run(made, q=q, k=k)[0], expected, atol=0.02)


def test_weights_take_the_int8_values_that_are_given():
    eye = np.eye(3, dtype=np.float32)
    graph = two_linears(eye, 127 * eye)
    given = np.arange(9, dtype=np.int8).reshape(3, 3)
    made = quantise_graph(graph, {"h": 127.0}, ["b.linear/MatMul"], {"b.linear/MatMul": given})
    y, _ = run(made, x=eye)
    np.testing.assert_allclose(y, given, atol=1e-6)


def test_unknown_layers_and_missing_ranges_are_all_named(graph):
    with pytest.raises(InputError, match=r"no layers a/Conv, b/Conv"):
        activations_of(graph, ["b/Conv", "a/Conv"])
    first, second, *_ = tensors = activations_of(graph, default_nodes(graph))
    for faulty in (0.0, -1.0, float("nan"), float("inf")):
        ranges = {**dict.fromkeys(tensors, 1.0), first: faulty}
        del ranges[second]
        with pytest.raises(InputError) as caught:
            quantise_graph(graph, ranges, default_nodes(graph))
        assert first in str(caught.value)
        assert second in str(caught.value)
