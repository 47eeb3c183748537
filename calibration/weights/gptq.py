"""GPTQ: int8 weights whose rounding errors change a layer's output least.

Rounded one by one, the weights of a channel make errors that add up wherever its inputs are alike:
the sum of an edge filter's weights is 0, and must stay so. GPTQ rounds a channel's weights one by
one and lets those that are still to come make each error good, as far as the inputs of the layer
move together on the calibration images (Frantar et al., "GPTQ: Accurate Post-Training Quantization
for Generative Pre-trained Transformers", ICLR 2023, section 3). It is the Optimal Brain Surgeon of
Hassibi and Stork (NeurIPS 1992) with a fixed order of weights.

The scales are those of :func:`hvq_edge.calibration.quantise.weight_scale`; only the rounding
differs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from hvq_edge.calibration.quantise import QMAX, weight_scale
from hvq_edge.calibration.ranges.measure import values_on
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.export.graph.view import attributes
from hvq_edge.run.tiling import FrameSize

DAMPING = 0.01
"""Added to the second moments' diagonal, as a share of its mean (the paper's section 3.3)."""
_MOST_PLACES = 28
"""Of a convolution with a window at most this many rows and columns are read: neighbouring places
see nearly the same, and copies take time."""


def gptq_weights(
    graph: Path,
    layers: Collection[str],
    frames: Sequence[Path],
    size: FrameSize,
    *,
    categories: Sequence[int] | None = None,
    on_progress: ProgressCallback = silent,
) -> dict[str, NDArray[np.int8]]:
    """Quantise the weights of layers.

    Args:
        graph: float32 file.
        layers: names of convolutions and linears in it.
        frames: calibration images.
        size: of the graph's input in pixels.
        categories: category index of each image, for a graph with a ``category`` input.
        on_progress: called after each batch of images and each layer.

    Returns:
        The int8 weight of each layer, of the weight's shape; layers without a constant weight are
        left out.

    Raises:
        InputError: the graph lacks a tensor.
        ImageError: an image cannot be read.
    """
    model = onnx.load(graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.name in layers and n.input[1] in constants]
    weights = {node.name: numpy_helper.to_array(constants[node.input[1]]) for node in nodes}
    tensors = tuple(dict.fromkeys(node.input[0] for node in nodes))
    moments: dict[str, NDArray[np.float64]] = {}
    done = 0
    for paths, values in values_on(graph, tensors, frames, size, categories):
        found = dict(zip(tensors, values, strict=True))
        for node in nodes:
            own = _moments(node, weights[node.name].shape, found[node.input[0]])
            moments[node.name] = moments.get(node.name, 0) + own
        done += len(paths)
        on_progress("INT8 weights", done, len(frames) + len(nodes))
    quantised = {}
    for node in nodes:
        quantised[node.name] = _quantise(node, weights[node.name], moments.pop(node.name))
        done += 1
        on_progress("INT8 weights", done, len(frames) + len(nodes))
    return quantised


def round_compensated(
    weight: NDArray[np.float64], scale: NDArray[np.float64], moments: NDArray[np.float64]
) -> NDArray[np.int8]:
    """Round weights so that the weights after each one make its error good.

    Args:
        weight: ``[groups, out, in]``.
        scale: ``[groups, out]``.
        moments: sums of products of the inputs with one another, ``[groups, in, in]``.

    Returns:
        int8 ``[groups, out, in]``.
    """
    size = weight.shape[2]
    diagonal = np.einsum("gii->gi", moments)
    mean = diagonal.mean(1)
    # Inputs that never occur tell nothing: their weights are rounded one by one.
    damping = np.where(mean > 0, DAMPING * mean, 1.0)
    damped = moments + damping[:, None, None] * np.eye(size)
    order = np.argsort(-diagonal, axis=1)  # what occurs most is rounded first, and made good most
    damped = np.take_along_axis(damped, order[:, :, None], 1)
    damped = np.take_along_axis(damped, order[:, None, :], 2)
    upper = np.swapaxes(np.linalg.cholesky(np.linalg.inv(damped)), 1, 2)
    left = np.take_along_axis(weight, np.broadcast_to(order[:, None], weight.shape), 2)
    quantised = np.empty(weight.shape, np.int8)
    for i in range(size):
        rounded = np.clip(np.rint(left[:, :, i] / scale), -QMAX, QMAX)
        error = (left[:, :, i] - rounded * scale) / upper[:, i, i, None]
        left[:, :, i + 1 :] -= error[:, :, None] * upper[:, i, None, i + 1 :]
        quantised[:, :, i] = rounded
    made: NDArray[np.int8] = np.empty(weight.shape, np.int8)
    np.put_along_axis(made, np.broadcast_to(order[:, None], weight.shape), quantised, 2)
    return made


def _quantise(
    node: NodeProto, weight: NDArray[np.float32], moments: NDArray[np.float64]
) -> NDArray[np.int8]:
    scale = weight_scale(weight, node.op_type).astype(np.float64)
    groups = len(moments)
    if node.op_type == "MatMul":
        flat = weight.T[None].astype(np.float64)
        transposed: NDArray[np.int8] = round_compensated(flat, scale[None], moments)[0].T
        return transposed
    flat = weight.reshape(groups, len(weight) // groups, -1).astype(np.float64)
    return round_compensated(flat, scale.reshape(groups, -1), moments).reshape(weight.shape)


def _moments(
    node: NodeProto, shape: Sequence[int], value: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the sums of products of a layer's inputs on some images, ``[groups, in, in]``."""
    if node.op_type == "MatMul":
        flat = value.reshape(1, -1, value.shape[-1])
    elif shape[1:] == (value.shape[1], 1, 1):  # every channel of a place, and nothing else
        places = value.reshape(*value.shape[:2], -1)  # [images, in, places]
        alone = np.matmul(places, places.transpose(0, 2, 1)).astype(np.float64)  # an image
        together: NDArray[np.float64] = alone.sum(0, keepdims=True)
        return together
    else:
        given = attributes(node)
        flat = _patches(value, shape[2:], given.get("strides", (1, 1)), given.get("pads", (0,) * 4))
        channels, seen, window = flat.shape
        groups = given.get("group", 1)
        # [channels, images * places, window] -> [groups, images * places, in]
        flat = flat.reshape(groups, channels // groups, seen, window).transpose(0, 2, 1, 3)
        flat = flat.reshape(groups, seen, -1)
    product: NDArray[np.float64] = (np.swapaxes(flat, 1, 2) @ flat).astype(np.float64)
    return product


def _patches(
    value: NDArray[np.float32], window: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> NDArray[np.float32]:
    """Return what places of a convolution see: ``[b, c, h, w]`` -> ``[c, b * places, window]``.

    Above :data:`_MOST_PLACES` rows or columns only every second, third, ... of them is read.
    """
    above, before, below, behind = pads
    padded = np.pad(value, ((0, 0), (0, 0), (above, below), (before, behind)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, tuple(window), axis=(2, 3))
    seen = seen[:, :, :: strides[0], :: strides[1]]  # [b, c, h', w', kh, kw]
    down, across = (-(-size // _MOST_PLACES) for size in seen.shape[2:4])
    seen = seen[:, :, ::down, ::across]
    by_channel = seen.transpose(1, 0, 2, 3, 4, 5)
    flat: NDArray[np.float32] = by_channel.reshape(value.shape[1], -1, window[0] * window[1])
    return flat
