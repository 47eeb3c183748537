"""Cross-layer equalisation: channels of one tensor brought to one range. Measured, and not used.

A tensor has one int8 scale, so a channel whose values are a tenth of the largest one's has a tenth
of the steps. Where one layer's channels reach the next through nothing but a ReLU, a channel may be
multiplied by a constant behind the first layer's weights and divided by it in the second's (Nagel
et al., "Data-Free Quantization through Weight Equalization and Bias Correction", ICCV 2019, section
4.1; here by ranges measured on the calibration images).

A ReLU6 does not commute with a factor, but a factor of 1 or more only lowers where it clips: at
``6 / factor`` in the channel's own units. With a headroom of 1 that is the largest value seen on
good images, where int8 would clip as well. But a defect may well exceed it, and that is what an
image is judged by: ``benchmarks/accuracy/int8.py`` shows what it costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

MOST = 8.0
"""Largest factor: a channel that good images hardly use may be what a defect lights up."""


class Pair(NamedTuple):
    """Two layers with only a ReLU between them."""

    first: NodeProto
    bias: str
    """Constant that is added to the first one's output."""
    tensor: str
    """What the second one reads."""
    second: NodeProto
    limit: float
    """At which the activation clips; infinite: it does not."""


def equalise(
    graph: ModelProto,
    largest: Mapping[str, Sequence[float] | NDArray[np.float64]],
    layers: Collection[str],
    headroom: float = 1.0,
) -> tuple[ModelProto, dict[str, NDArray[np.float64]]]:
    """Bring channels to one range before tensors that int8 layers read.

    Args:
        graph: the float32 graph; not changed.
        largest: largest magnitude of each channel of a tensor, by tensor.
        layers: names of the nodes that will read rounded tensors.
        headroom: by what factor a channel may exceed ``largest`` before it clips.

    Returns:
        A new graph, which computes the same while no channel exceeds ``headroom`` times
        ``largest``; and each changed tensor's factors ``[channels]``, by tensor.
    """
    made = ModelProto()
    made.CopyFrom(graph)
    constants = {tensor.name: tensor for tensor in made.graph.initializer}
    factors: dict[str, NDArray[np.float64]] = {}
    for pair in pairs_of(made):
        if pair.second.name not in layers or pair.tensor not in largest:
            continue
        factor = factors_of(headroom * np.asarray(largest[pair.tensor], np.float64), pair.limit)
        if factor is None:
            continue
        out_axis, in_axis = (0, 1) if pair.first.op_type == "Conv" else (1, 0)
        _multiply(constants[pair.first.input[1]], factor, out_axis)
        _multiply(constants[pair.bias], factor, -1)
        if pair.second.op_type == "Conv":
            in_axis = 0 if _group(pair.second) > 1 else 1  # depthwise: a channel has its own filter
        _multiply(constants[pair.second.input[1]], 1 / factor, in_axis)
        factors[pair.tensor] = factor
    return made, factors


def factors_of(largest: NDArray[np.float64], limit: float) -> NDArray[np.float64] | None:
    """Return what each channel is multiplied by, 1 or more; ``None``: nothing to gain.

    Args:
        largest: of each channel.
        limit: at which the activation clips.
    """
    whole = limit if np.isfinite(limit) else largest.max()
    if not 0 < whole < np.inf:
        return None
    factor: NDArray[np.float64] = whole / np.clip(largest, whole / MOST, whole)
    return factor


def pairs_of(graph: ModelProto) -> list[Pair]:
    """Find layers whose output another one reads alone, through a ReLU or ReLU6."""
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.graph.node:
        for name in node.input:
            readers[name].append(node)
    for output in graph.graph.output:
        readers[output.name].append(NodeProto())

    def only_reader(name: str) -> NodeProto | None:
        found = readers[name]
        return found[0] if len(found) == 1 else None

    def own(name: str) -> bool:
        return name in constants and len(readers[name]) == 1

    pairs = []
    for first in graph.graph.node:
        if first.op_type not in ("Conv", "MatMul") or not own(first.input[1]):
            continue
        output = first.output[0]
        if first.op_type == "Conv":
            bias = first.input[2] if len(first.input) > 2 else ""
        else:
            adder = only_reader(output)
            if adder is None or adder.op_type != "Add":
                continue
            bias = next((name for name in adder.input if name != output), "")
            output = adder.output[0]
        activation = only_reader(output)
        if activation is None or not own(bias):
            continue
        limit = _limit(activation, constants)
        second = only_reader(activation.output[0])
        if limit is None or second is None or second.op_type != first.op_type:
            continue
        if second.input[0] != activation.output[0] or not own(second.input[1]):
            continue
        channels = constants[bias].dims[-1]
        if second.op_type == "Conv" and _group(second) not in (1, channels):
            continue
        pairs.append(Pair(first, bias, activation.output[0], second, limit))
    return pairs


def _limit(activation: NodeProto, constants: Mapping[str, TensorProto]) -> float | None:
    """Where an activation clips from above; ``None``: it does not commute with a factor."""
    if activation.op_type == "Relu":
        return float("inf")
    if activation.op_type != "Clip" or len(activation.input) < 3:
        return None
    if not all(name in constants for name in activation.input[1:3]):
        return None
    low, high = (float(numpy_helper.to_array(constants[n])) for n in activation.input[1:3])
    return high if low == 0 < high else None


def _group(node: NodeProto) -> int:
    return next((entry.i for entry in node.attribute if entry.name == "group"), 1)


def _multiply(tensor: TensorProto, factor: NDArray[np.float64], axis: int) -> None:
    """Multiply the slices of a constant along an axis, in place."""
    value = numpy_helper.to_array(tensor).astype(np.float64)
    shape = [1] * value.ndim
    shape[axis] = len(factor)
    scaled = (value * factor.reshape(shape)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
