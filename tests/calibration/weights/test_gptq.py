"""Weights rounded together: a layer changes less on the inputs they were rounded for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from helpers.small_graphs import SIDE, save_float
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

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


def test_layers_of_a_net_change_their_outputs_less(tmp_path, images):
    """Against rounding to nearest, on the images: each layer alone, and by far in sum."""
    path = save_float(tmp_path, "one")
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


def test_moments_of_a_convolution_without_a_window():
    """Of all channels of a place."""
    value = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    flat = value.transpose(0, 2, 3, 1).reshape(-1, 3)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    np.testing.assert_allclose(_moments(node, (5, 3, 1, 1), value), [flat.T @ flat], rtol=1e-4)


def test_patches_are_what_a_convolution_sees():
    rng = np.random.default_rng(0)
    value = rng.normal(size=(2, 3, 8, 7)).astype(np.float32)
    weight = rng.normal(size=(5, 3, 3, 3)).astype(np.float32)
    import torch

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
