"""Bias correction takes the mean error of rounded weights off, exactly."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hvq_edge.calibration.quantise import fp16_scale, quantise_graph
from hvq_edge.calibration.ranges.measure import _image_means
from hvq_edge.calibration.weights.bias_correction import correct_biases


def model_of(nodes, x_shape, y_shape, constants) -> onnx.ModelProto:
    body = helper.make_graph(
        nodes,
        "one layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y_shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def linear(weight: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Identity", ["x"], ["i"], "input/Identity"),
        helper.make_node("MatMul", ["i", "w"], ["h"], "a/MatMul"),
        helper.make_node("Add", ["h", "b"], ["y"], "a/Add"),
    ]
    shapes = ["n", len(weight)], ["n", weight.shape[1]]
    return model_of(nodes, *shapes, {"w": weight, "b": bias})


def convolution(weight: np.ndarray, bias: np.ndarray | None, groups: int) -> onnx.ModelProto:
    constants = {"w": weight} if bias is None else {"w": weight, "b": bias}
    nodes = [
        helper.make_node("Identity", ["x"], ["i"], "input/Identity"),
        helper.make_node("Conv", ["i", *constants], ["y"], "a/Conv", group=groups),
    ]
    channels = weight.shape[1] * groups
    return model_of(nodes, ["n", channels, 5, 5], ["n", len(weight), None, None], constants)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("groups", "biased"), [(0, True), (1, True), (1, False), (2, True), (6, True)]
)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=8, deadline=None)
def test_the_mean_error_of_rounded_weights_is_gone(groups, biased, seed):
    rng = np.random.default_rng(seed)
    bias = rng.normal(size=6).astype(np.float32) if biased else None
    if groups:
        graph = convolution(
            rng.normal(size=(6, 6 // groups, 3, 3)).astype(np.float32), bias, groups
        )
        x = rng.integers(0, 100, (64, 6, 5, 5)).astype(np.float32)
        x[:] = x.mean((2, 3), keepdims=True).round()  # no border effect: each channel is flat
        axes, layer = (0, 2, 3), "a/Conv"
    else:
        graph = linear(rng.normal(size=(5, 6)).astype(np.float32), bias)
        x = rng.integers(0, 100, (256, 5)).astype(np.float32)
        axes, layer = (0,), "a/MatMul"
    # A scale of 1: the integers in x are not rounded, only the weights are.
    quantised = quantise_graph(graph, {"i": 127.0}, [layer])
    truth = run(graph, x)
    before = np.abs((run(quantised, x) - truth).mean(axes)).max()
    corrected = correct_biases(graph, quantised, {"i": _image_means(x).mean(0)}, [layer])
    assert corrected == [layer]
    onnx.checker.check_model(quantised, full_check=True)
    after = np.abs((run(quantised, x) - truth).mean(axes)).max()
    assert after <= 1e-4 * np.abs(truth).max()
    assert after < before
    assert "b" not in {tensor.name for tensor in quantised.graph.initializer}


def test_a_layer_whose_bias_is_computed_is_left_alone():
    weight = np.ones((3, 3), np.float32)
    graph = linear(weight, np.zeros(3, np.float32))
    graph.graph.node[2].input[1] = "h"  # h + h
    quantised = quantise_graph(graph, {"i": 1.0}, ["a/MatMul"])
    untouched = quantised.SerializeToString()
    assert correct_biases(graph, quantised, {"i": [1.0, 1.0, 1.0]}, ["a/MatMul"]) == []
    assert quantised.SerializeToString() == untouched


def test_layers_that_cannot_be_corrected_hinder_no_other():
    """A product, a bias that is computed, outputs read twice or not added, an unknown mean."""
    rng = np.random.default_rng(0)
    layers = [f"{name}/MatMul" for name in ("product", "computed", "twice", "less", "other", "a")]
    nodes = [
        helper.make_node("Identity", ["x"], ["i"], "input/Identity"),
        helper.make_node("Identity", ["x"], ["k"], "input/Identity_2"),
        helper.make_node("MatMul", ["i", "k"], ["p"], layers[0]),
        helper.make_node("MatMul", ["i", "w"], ["c"], layers[1]),
        helper.make_node("Add", ["c", "p"], ["c2"], "computed/Add"),
        helper.make_node("MatMul", ["i", "w"], ["t"], layers[2]),
        helper.make_node("Add", ["t", "b"], ["t2"], "twice/Add"),
        helper.make_node("Add", ["t", "t2"], ["t3"], "twice/Add_2"),
        helper.make_node("MatMul", ["i", "w"], ["l"], layers[3]),
        helper.make_node("Sub", ["l", "b"], ["l2"], "less/Sub"),
        helper.make_node("MatMul", ["k", "w"], ["o"], layers[4]),
        helper.make_node("Add", ["o", "b"], ["o2"], "other/Add"),
        helper.make_node("MatMul", ["i", "w"], ["h"], layers[5]),
        helper.make_node("Add", ["b", "h"], ["h2"], "a/Add"),
        helper.make_node("Sum", ["c2", "t3", "l2", "o2", "h2"], ["y"], "sum/Sum"),
    ]
    constants = {
        "w": rng.normal(size=(3, 3)).astype(np.float32),
        "b": rng.normal(size=3).astype(np.float32),
    }
    graph = model_of(nodes, [3, 3], [3, 3], constants)
    quantised = quantise_graph(graph, {"i": 1.0, "k": 1.0}, layers)
    assert correct_biases(graph, quantised, {"i": [1.0, 2.0, 3.0]}, layers) == ["a/MatMul"]
    onnx.checker.check_model(quantised, full_check=True)
    stored = {t.name: numpy_helper.to_array(t) for t in quantised.graph.initializer}
    rounded = stored["w_quantised"] * stored["w_scale"]
    off = np.array([1.0, 2.0, 3.0]) @ (rounded - constants["w"])
    np.testing.assert_allclose(stored["a.corrected_bias"], constants["b"] - off, rtol=1e-5)
    adders = {node.name: list(node.input) for node in quantised.graph.node if "/Add" in node.name}
    assert adders["a/Add"] == ["a.corrected_bias", "h"]
    assert adders["twice/Add"] == ["t", "b"], "the others keep theirs"
    assert stored["a.corrected_bias"].dtype == np.float32


@given(st.floats(2**-30, 2.0**127, width=32))
@settings(max_examples=200, deadline=None)
def test_scales_are_float16_rounded_up(scale):
    held = fp16_scale(np.float32(scale))
    assert held.dtype == np.float32
    assert held >= scale
    assert held > 0
    if scale <= 65504:
        assert np.float32(np.float16(held)) == held
        assert held <= max(scale * 1.001, scale + 2**-24)
    else:
        assert held == scale
