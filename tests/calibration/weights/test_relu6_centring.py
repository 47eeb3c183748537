"""ReLU6 in the middle of int8's range: the same result, and only where nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hvq_edge.calibration.weights.relu6_centring import centre_relu6

CHANNELS = 3


def two_convolutions(seed: int, *, bias: bool = True, **second: object) -> onnx.ModelProto:
    """x -> Conv -> Clip(0, 6) -> Conv 1x1, with weights large enough that both bounds are met."""
    rng = np.random.default_rng(seed)
    window = second.pop("window", 1)
    constants = {
        "w1": 4 * rng.normal(size=(CHANNELS, 2, 3, 3)),
        "b1": rng.normal(size=CHANNELS),
        "low": np.array(second.pop("low", 0.0)),
        "high": np.array(6.0),
        "w2": rng.normal(size=(4, CHANNELS, window, window)),
        "b2": rng.normal(size=4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "m.first/Conv", pads=[1] * 4),
        helper.make_node("Clip", ["a", "low", "high"], ["c"], "m/Clip"),
        helper.make_node("Conv", ["c", "w2", *(["b2"] if bias else [])], ["y"], "m.second/Conv"),
    ]
    if "pads" in second:
        nodes[-1].attribute.append(helper.make_attribute("pads", second.pop("pads")))
    if second.pop("read_twice", False):
        nodes.append(helper.make_node("Relu", ["c"], ["other"], "n/Relu"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 7, 7])]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list("abcd"))
        for node in nodes[2:]
        for name in node.output
    ]
    tensors = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in constants.items()]
    if not bias:
        tensors = [tensor for tensor in tensors if tensor.name != "b2"]
    body = helper.make_graph(nodes, "two", inputs, outputs, tensors)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, output: str, x: np.ndarray) -> np.ndarray:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    if output not in {o.name for o in model.graph.output}:
        model.graph.output.append(onnx.ValueInfoProto(name=output))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run([output], {session.get_inputs()[0].name: x})[0]


@given(seed=st.integers(0, 2**16), bias=st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_result_is_the_same_and_the_range_is_halved(seed, bias):
    graph = two_convolutions(seed, bias=bias)
    before = graph.SerializeToString()
    made = centre_relu6(graph)
    assert graph.SerializeToString() == before
    onnx.checker.check_model(made, full_check=True)
    x = np.random.default_rng(seed).normal(size=(1, 2, 7, 7)).astype(np.float32)
    np.testing.assert_allclose(run(made, "y", x), run(graph, "y", x), rtol=1e-4, atol=1e-4)
    between = run(made, "c", x)
    assert between.min() == pytest.approx(-3, abs=1e-5)
    assert between.max() == pytest.approx(3, abs=1e-5)


@pytest.mark.parametrize(
    "other",
    [{"pads": [1] * 4, "window": 3}, {"read_twice": True}, {"low": -1.0}],
    ids=["padded", "read by another", "not from 0"],
)
def test_what_would_change_is_left_as_it_is(other):
    graph = two_convolutions(0, **other)
    assert centre_relu6(graph).SerializeToString() == graph.SerializeToString()


def test_only_before_the_layers_that_are_named():
    graph = two_convolutions(0)
    assert centre_relu6(graph, []).SerializeToString() == graph.SerializeToString()
    assert centre_relu6(graph, ["m.second/Conv"]) == centre_relu6(graph)


def test_one_that_must_stay_hinders_no_later_one():
    """Two in a row: of those named, those that can be moved are."""
    rng = np.random.default_rng(0)
    constants = {
        **{f"w{i}": rng.normal(size=(CHANNELS, CHANNELS, 1, 1)) for i in range(4)},
        **{f"b{i}": rng.normal(size=CHANNELS) for i in range(3)},
        "low": np.array(0.0),
        "high": np.array(6.0),
        "endless": np.array(np.inf),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], "zero/Conv"),
        helper.make_node("Clip", ["a", "low", "endless"], ["b"], "relu/Clip"),
        helper.make_node("Conv", ["b", "w1", "b1"], ["c"], "one/Conv"),
        helper.make_node("Clip", ["c", "low", "high"], ["d"], "m/Clip"),
        helper.make_node("Conv", ["d", "w2", "b2"], ["e"], "two/Conv"),
        helper.make_node("Clip", ["e", "low", "high"], ["f"], "n/Clip"),
        helper.make_node("Conv", ["f", "w3"], ["y"], "three/Conv"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, CHANNELS, 5, 5]) for n in "xy"]
    tensors = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in constants.items()]
    body = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    graph = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = 9 * rng.normal(size=(1, CHANNELS, 5, 5)).astype(np.float32)
    for layers, moved in ((None, {"m/Clip", "n/Clip"}), (["three/Conv"], {"n/Clip"})):
        made = centre_relu6(graph, layers)
        onnx.checker.check_model(made, full_check=True)
        clips = {node.name: node for node in made.graph.node if node.op_type == "Clip"}
        assert {name for name, node in clips.items() if node.input[1] != "low"} == moved
        np.testing.assert_allclose(run(made, "y", x), run(graph, "y", x), rtol=1e-3, atol=1e-3)
        names = [tensor.name for tensor in made.graph.initializer]
        assert len(names) == len(set(names)), "bounds are stored once"


def test_every_projection_of_a_backbone(small_graphs):
    """On the export of a net: each ReLU6 that a 1x1 convolution reads, and nothing else."""
    graph = onnx.load(small_graphs["auto", "fp32"])
    made = centre_relu6(graph)
    moved = {t.name for t in made.graph.initializer} - {t.name for t in graph.graph.initializer}
    back = sorted(name for name in moved if name.endswith("moved_bias_back"))
    projections = [n.name for n in graph.graph.node if n.name.endswith("project.conv/Conv")]
    assert back == sorted(f"{name.partition('/')[0]}.moved_bias_back" for name in projections)
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(run(made, "map", frames), run(graph, "map", frames), rtol=1e-3)
    assert (run(made, "codes", frames) == run(graph, "codes", frames)).mean() > 0.99
