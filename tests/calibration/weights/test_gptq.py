"""Weights rounded together: a layer changes less on the inputs they were rounded for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from helpers.small_graphs import SIDE
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hvq_edge.calibration.quantise import (
    QMAX,
    quantisable_nodes,
    round_to_nearest,
    weight_scale,
)
from hvq_edge.calibration.ranges.measure import values_on
from hvq_edge.calibration.weights.gptq import (
    _moments,
    _patches,
    gptq_weights,
    round_compensated,
)


def error(
    weight: np.ndarray, quantised: np.ndarray, scale: np.ndarray, moments: np.ndarray
) -> float:
    """Sum of the squared change of a layer's outputs."""
    off = quantised * scale[..., None] - weight
    return float(np.einsum("goi,gij,goj->", off, moments, off))


@given(
    seed=st.integers(0, 2**16),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 12)),
    rank=st.integers(0, 12),
)
@settings(max_examples=60, deadline=None)
def test_inputs_that_tell_nothing_leave_the_nearest_steps(seed, sizes, rank):
    """No inputs at all, or inputs that move on their own; others stay within int8."""
    groups, outputs, size = sizes
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(groups, outputs, size))
    scale = np.abs(weight).max(2) / 8  # coarse, so that there is an error
    inputs = rng.normal(size=(groups, 50, rank)) @ rng.normal(size=(groups, rank, size))
    moments = np.swapaxes(inputs, 1, 2) @ inputs
    quantised = round_compensated(weight, scale, moments)
    assert quantised.dtype == np.int8
    assert np.abs(quantised.astype(int)).max() <= QMAX
    nearest = np.rint(weight / scale[..., None])
    if not rank:
        np.testing.assert_array_equal(quantised, nearest)
    alone = np.eye(size)[None] * np.linspace(1, 2, size)
    np.testing.assert_array_equal(
        round_compensated(weight, scale, np.broadcast_to(alone, (groups, size, size))), nearest
    )


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_inputs_that_move_together_are_used(rank):
    """The fewer directions the inputs have, the less is left of the error."""
    rng = np.random.default_rng(rank)
    weight = rng.normal(size=(2, 64, 12))
    scale = np.abs(weight).max(2) / 8
    inputs = rng.normal(size=(2, 50, rank)) @ rng.normal(size=(2, rank, 12))
    moments = np.swapaxes(inputs, 1, 2) @ inputs
    quantised = round_compensated(weight, scale, moments)
    nearest = np.rint(weight / scale[..., None])
    left = error(weight, quantised, scale, moments) / error(weight, nearest, scale, moments)
    assert left < {1: 0.3, 3: 0.5, 6: 0.8}[rank]


def test_an_edge_filter_keeps_its_sum():
    """On constant surfaces an edge filter gives 0, and must after rounding."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(1, 32, 27))
    weight -= weight.mean(2, keepdims=True)
    scale = np.abs(weight).max(2) / QMAX
    surfaces = 128 + rng.normal(size=(400, 27))
    moments = (surfaces.T @ surfaces)[None]
    quantised = round_compensated(weight, scale, moments)
    sums = np.abs((quantised * scale[..., None]).sum(2))
    nearest = np.abs((np.rint(weight / scale[..., None]) * scale[..., None]).sum(2))
    assert sums.max() <= scale.max(), "within a step"
    assert sums.mean() < nearest.mean() / 3


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(6):
        soft = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (SIDE, SIDE))
        cv2.imwrite(str(folder / f"{i}.png"), soft)
    return sorted(folder.iterdir())


def test_layers_of_a_net_change_their_outputs_less(small_graphs, images):
    """Against rounding to nearest, on the images: each layer alone, and by far in sum."""
    path = small_graphs["auto", "fp32"]
    graph = onnx.load(path)
    layers = quantisable_nodes(graph)
    found = gptq_weights(path, layers, images, SIDE)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    nodes = {n.name: n for n in graph.graph.node if n.name in layers and n.input[1] in weights}
    assert set(found) == set(nodes), "products of two tensors have no weight"
    linears = [node for node in nodes.values() if node.op_type == "MatMul"]
    tensors = list(dict.fromkeys(node.input[0] for node in linears))
    values: dict[str, list[np.ndarray]] = {name: [] for name in tensors}
    for _, batch in values_on(path, tensors, images, SIDE, None):
        for name, value in zip(tensors, batch, strict=True):
            values[name].append(value.reshape(-1, value.shape[-1]))
    ours, plain = [], []
    for node in linears:
        weight, x = weights[node.input[1]], np.concatenate(values[node.input[0]])
        scale = weight_scale(weight, "MatMul")
        for quantised, into in (
            (found[node.name], ours),
            (round_to_nearest(weight, scale, "MatMul"), plain),
        ):
            assert quantised.shape == weight.shape
            into.append(np.square(x @ (quantised * scale - weight)).sum())
    assert all(a <= 1.1 * b for a, b in zip(ours, plain, strict=True))
    assert sum(ours) < 0.7 * sum(plain)


def layered_graph(path: Path) -> Path:
    """Convolutions (plain, grouped and 1x1), a linear, and a product of two tensors."""
    rng = np.random.default_rng(1)
    shapes = {"w": (4, 3, 3, 3), "grouped": (6, 2, 3, 2), "point": (5, 6, 1, 1), "linear": (5, 7)}
    constants = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    constants |= {"gains": np.array([1.0, 3.0]).reshape(2, 1, 1, 1), "bias": np.ones(4)}
    shape = {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1], "strides": [2, 1]}
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["gains", "category"], ["gain"]),
        helper.make_node("Mul", ["floats", "gain"], ["gained"]),
        helper.make_node("Transpose", ["gained"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w", "bias"], ["a"], "plain/Conv"),
        helper.make_node("Conv", ["a", "grouped"], ["b"], "grouped/Conv", group=2, **shape),
        helper.make_node("Conv", ["b", "point"], ["c"], "point/Conv"),
        helper.make_node("Flatten", ["c"], ["rows"], axis=2),
        helper.make_node("Reshape", ["rows", "as_planes"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["tokens", "linear"], ["d"], "linear/MatMul"),
        helper.make_node("MatMul", ["flat", "tokens"], ["e"], "product/MatMul"),
    ]
    inputs = [
        helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", 16, 16, 3]),
        helper.make_tensor_value_info("category", TensorProto.INT32, ["n"]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "de"]
    tensors = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in constants.items()]
    tensors.append(numpy_helper.from_array(np.array([-1, 5, 8 * 14]), "as_planes"))
    body = helper.make_graph(nodes, "layers", inputs, outputs, tensors)
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)
    return path


def test_each_layer_is_rounded_for_its_own_inputs_on_all_images(tmp_path, images):
    """Against the same by PyTorch's windows: groups, pads, strides and categories count."""
    from torch.nn.functional import pad, unfold

    path = layered_graph(tmp_path / "g.onnx")
    layers = [f"{name}/Conv" for name in ("plain", "grouped", "point")]
    layers += ["linear/MatMul", "product/MatMul"]
    categories = [0, 1, 1, 0, 1, 0]
    steps: list[tuple] = []
    found = gptq_weights(
        path,
        layers,
        images,
        16,
        categories=categories,
        on_progress=lambda *step: steps.append(step),
    )
    assert list(found) == layers[:-1], "products of two tensors have no weight"
    assert steps == [("INT8 weights", done, 10) for done in (4, 6, 7, 8, 9, 10)]
    assert gptq_weights(path, layers[1:2], images, 16, categories=categories).keys() == {layers[1]}

    read = ["planes", "a", "b", "tokens"]
    batches = [values for _, values in values_on(path, read, images, 16, categories)]
    values = [torch.from_numpy(np.concatenate(every)) for every in zip(*batches, strict=True)]
    windows = {
        "plain/Conv": (unfold(values[0], 3), 1, "w"),
        "grouped/Conv": (unfold(pad(values[1], (0, 1, 1, 2)), (3, 2), stride=(2, 1)), 2, "grouped"),
        "point/Conv": (values[2].flatten(2), 1, "point"),
        "linear/MatMul": (values[3].transpose(1, 2), 1, "linear"),
    }
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    for name, (seen, groups, weight_name) in windows.items():
        weight = tensors[weight_name]
        x = seen.numpy().astype(np.float64).transpose(1, 0, 2)  # [in of all groups, places]
        x = x.reshape(groups, x.shape[0] // groups, -1)
        rows = (weight.T if weight.ndim == 2 else weight).reshape(groups, -1, x.shape[1])
        scale = weight_scale(weight, name.partition("/")[2]).reshape(groups, -1)
        moments = x @ x.transpose(0, 2, 1)
        ours = found[name].T if weight.ndim == 2 else found[name]
        assert found[name].shape == weight.shape
        assert found[name].dtype == np.int8
        ours = ours.reshape(rows.shape)
        expected = round_compensated(rows.astype(np.float64), scale.astype(np.float64), moments)
        assert (ours == expected).mean() > 0.97, name  # a tie may go either way
        assert (ours == np.rint(rows / scale[..., None])).mean() < 0.95, "unlike nearest"


def test_moments_of_a_convolution_without_a_window():
    """Of all channels of a place, and of every place: with a window some are left out."""
    value = np.random.default_rng(0).normal(size=(2, 3, 30, 31)).astype(np.float32)
    flat = value.transpose(0, 2, 3, 1).reshape(-1, 3)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    np.testing.assert_allclose(
        _moments(node, (5, 3, 1, 1), value), [flat.T @ flat], rtol=1e-3, atol=0.1
    )


def test_of_many_places_every_second_or_third_is_read():
    """Rows and columns on their own; up to the bound each is."""
    value = np.arange(2 * 28 * 57, dtype=np.float32).reshape(1, 2, 28, 57)
    seen = _patches(value, (1, 1), (1, 1), (0, 0, 0, 0))
    np.testing.assert_array_equal(seen, value[:, :, :, ::3].reshape(2, -1, 1))
    seen = _patches(value[:, :, :, :29], (1, 1), (1, 1), (1, 0, 0, 0))  # 29 rows, 29 columns
    padded = np.pad(value[0, :, :, :29], ((0, 0), (1, 0), (0, 0)))
    np.testing.assert_array_equal(seen, padded[:, ::2, ::2].reshape(2, -1, 1))


def test_patches_are_what_a_convolution_sees():
    rng = np.random.default_rng(0)
    value = rng.normal(size=(2, 3, 8, 7)).astype(np.float32)
    weight = rng.normal(size=(5, 3, 3, 3)).astype(np.float32)
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.pad(torch.from_numpy(value), (1, 2, 0, 1)),  # left, right, top, bottom
        torch.from_numpy(weight),
        stride=2,
    )
    seen = _patches(value, (3, 3), (2, 2), (0, 1, 1, 2))
    flat = seen.transpose(1, 0, 2).reshape(seen.shape[1], -1)  # a place, its channels and windows
    found = flat @ weight.reshape(5, -1).T
    shape = expected.shape
    found = found.reshape(shape[0], shape[2], shape[3], 5).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
