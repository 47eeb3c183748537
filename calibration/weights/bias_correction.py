"""Bias correction: the mean error that rounded weights add to a layer, taken off its bias.

A channel's weights do not round to a mean error of zero, and inputs behind a ReLU do not have a
mean of zero either, so each output channel is off by ``E[x] · (W_rounded - W)`` on average. That is
a constant, and goes into the bias exactly (Nagel et al., "Data-Free Quantization through Weight
Equalization and Bias Correction", ICCV 2019, section 4.2; here ``E[x]`` is measured on the
calibration images). Cross-layer equalisation, the other half of that paper, is not done: it did
not raise agreement (docs/explanation/precision.md, benchmarks/accuracy/equalisation.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from hvq_edge.export.graph.view import GraphView, drop_unread


def correct_biases(
    graph: ModelProto,
    quantised: ModelProto,
    means: Mapping[str, Sequence[float]],
    layers: Collection[str],
) -> list[str]:
    """Take the mean error off the biases of quantised layers.

    Args:
        graph: the float32 graph.
        quantised: what :func:`hvq_edge.calibration.quantise.quantise_graph` made of it; it is
            changed.
        means: mean of each input channel of the tensors that ``layers`` read, from
            :func:`hvq_edge.calibration.ranges.measure.measure_ranges`.
        layers: names of the quantised nodes.

    Returns:
        Names of the layers that were corrected: convolutions, with or without a bias, and linears
        whose bias is a constant.
    """
    floats = {tensor.name: tensor for tensor in graph.graph.initializer}
    body = quantised.graph
    stored = {tensor.name: tensor for tensor in body.initializer}
    sources = {node.name: node for node in graph.graph.node}
    readers = GraphView(quantised).readers
    corrected = []
    for node in body.node:
        if node.name not in layers:
            continue
        source = sources[node.name]
        if source.input[1] not in floats:  # a product of two tensors
            continue
        holder = _bias_holder(node, readers, stored)
        if holder is None or source.input[0] not in means:
            continue
        adder, name = holder
        weight = numpy_helper.to_array(floats[source.input[1]]).astype(np.float64)
        quantised_weight = numpy_helper.to_array(stored[f"{source.input[1]}_quantised"])
        scale = numpy_helper.to_array(stored[f"{source.input[1]}_scale"]).astype(np.float64)
        error = _error(node, weight, quantised_weight, scale, np.asarray(means[source.input[0]]))
        bias = (numpy_helper.to_array(stored[name]) if name else 0.0) - error
        own = f"{node.name.partition('/')[0]}.corrected_bias"
        body.initializer.append(numpy_helper.from_array(bias.astype(np.float32), own))
        if name:
            adder.input[list(adder.input).index(name)] = own
        else:
            adder.input.append(own)
        corrected.append(node.name)
    drop_unread(quantised.graph)
    return corrected


def _bias_holder(
    node: NodeProto, readers: Mapping[str, list[NodeProto]], stored: Collection[str]
) -> tuple[NodeProto, str] | None:
    """Return the node that adds a layer's bias, and the bias's name; ``None``: no constant bias.

    A convolution can add a bias even if it has none yet (no name then). TensorRT-RTX needs it:
    without, it leaves the scale of a convolution in INT8 to the next kernel, in float32.
    """
    if node.op_type == "Conv":
        name = node.input[2] if len(node.input) > 2 else ""
        return (node, name) if not name or name in stored else None
    following = readers[node.output[0]]
    if len(following) != 1 or following[0].op_type != "Add":
        return None
    other = [name for name in following[0].input if name != node.output[0]]
    return (following[0], other[0]) if len(other) == 1 and other[0] in stored else None


def _error(
    node: NodeProto,
    weight: NDArray[np.float64],
    quantised_weight: NDArray[np.int8],
    scale: NDArray[np.float64],
    mean: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the mean error of each output channel, ``[out]``.

    A convolution's padding is not considered: it is a border of zeros on few cells.
    """
    if node.op_type == "MatMul":
        return np.asarray(mean @ (quantised_weight * scale - weight))
    off = (quantised_weight * scale[:, None, None, None] - weight).sum((2, 3))  # [out, in / groups]
    groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
    split = mean.reshape(groups, 1, -1)  # [groups, 1, in / groups]
    return np.asarray((off.reshape(groups, -1, off.shape[1]) * split).sum(2).ravel())
