"""INT8 as NVIDIA's parser takes it: symmetric Q/DQ pairs around convolutions, linears and products.

Zero point 0 everywhere, int8 weights per output channel, no quantised bias. A tensor is rounded
once, and only for the layers that are quantised: norms, code distances, residual additions and the
classifier read the float tensor itself (ONNX Runtime's own quantiser hands the rounded one to every
reader). Of a product without a constant weight, such as queries with keys, both factors are
rounded, each with one scale.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hvq_edge.errors import InputError
from hvq_edge.export.graph.view import drop_unread

QMAX = 127
"""Symmetric int8 goes from -QMAX to QMAX; only pixels less their mean reach -128."""
_FP16_MAX = float(np.finfo(np.float16).max)

# That is where a rounding error changes a decision. Prototype distances bear it: not the nearest
# prototype but how far it is goes into the map (docs/explanation/precision.md has measurements).
_FLOAT_MODULES = re.compile(
    r"^((codebooks|transport|whitening|classifier|top)(\.|/)|(fine_)?prototypes(?!/MatMul$))"
)
# The channels of a depthwise convolution differ in range by far more than one scale for all of them
# holds, and in INT8 it saves no time.
_DEPTHWISE = re.compile(r"^backbone\..*\bdepthwise\b")
_FIRST_BLOCKS = re.compile(r"^backbone\.blocks\.[01]\.")
_EARLY = re.compile(r"^backbone\.(stem|blocks\.[0-3])(\.|/)")
_SQUEEZE = re.compile(r"^backbone\..*\bsqueeze\b")
_CHANNEL_AXIS = {"Conv": 0, "MatMul": 1}
"""The axis of the output channels in a weight."""


def default_exclusions(candidates: Collection[str]) -> dict[str, str]:
    """Say which layers stay in float where no plan says otherwise, and why.

    These are the backbone's depthwise convolutions and its first two blocks. A backbone with
    squeeze-and-excitation has activations without a bound: there the stem and the first four
    blocks stay in float.

    Args:
        candidates: names, from :func:`quantisable_nodes`.

    Returns:
        The reason for each layer, by name.
    """
    unbounded = any(_SQUEEZE.match(name) for name in candidates)
    early = _EARLY if unbounded else _FIRST_BLOCKS
    kept = {}
    for name in candidates:
        if _DEPTHWISE.match(name):
            kept[name] = "depthwise: its channels differ in range by more than one scale holds"
        elif early.match(name):
            kept[name] = "early: its rounding error reaches every layer behind it"
    return kept


def quantisable_nodes(graph: ModelProto) -> tuple[str, ...]:
    """Name the nodes that could be quantised, in the graph's order.

    These are convolutions, linears, the products of attention, and products with a weight or with
    prototypes that are looked up for the category. Code distances, whitening, the transport score,
    the category classifier and the score's windows are never quantised.
    """
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.graph.initializer}
    return tuple(
        node.name
        for node in graph.graph.node
        if (node.op_type == "Conv" and node.input[1] in ranks)
        or (
            node.op_type == "MatMul"
            and node.input[0] not in ranks
            and ranks.get(node.input[1], 2) == 2
        )
        if not _FLOAT_MODULES.match(node.name)
    )


def activations_of(graph: ModelProto, layers: Collection[str]) -> tuple[str, ...]:
    """Name the float tensors that layers read, each once, in the graph's order.

    Raises:
        InputError: a layer is not in the graph.
    """
    _check_known(graph, layers)
    constants = {tensor.name for tensor in graph.graph.initializer}
    read = (
        name
        for node in graph.graph.node
        if node.name in layers
        for name in node.input[:2]
        if name not in constants
    )
    return tuple(dict.fromkeys(read))


def quantise_graph(
    graph: ModelProto,
    ranges: Mapping[str, float],
    layers: Collection[str],
    quantised_weights: Mapping[str, NDArray[np.int8]] | None = None,
) -> ModelProto:
    """Put Q/DQ pairs around layers.

    Args:
        graph: float32, as :func:`hvq_edge.export.graph.onnx_graph.export_graph`
            wrote it; not changed.
        ranges: amax of each tensor of :func:`activations_of`.
        layers: names of the nodes to quantise, from :func:`quantisable_nodes`.
        quantised_weights: int8 weights by layer, in units of :func:`weight_scale`; the weights of
            layers that are not named are rounded to nearest.

    Returns:
        A new model.

    Raises:
        InputError: a layer is not in the graph, or a tensor has no range above 0.
    """
    activations = activations_of(graph, layers)
    _check_ranges(ranges, activations)
    quantised = ModelProto()
    quantised.CopyFrom(graph)
    body = quantised.graph
    constants = {tensor.name: tensor for tensor in body.initializer}
    pairs = _Pairs(body)
    given = quantised_weights or {}
    nodes = list(body.node)
    del body.node[:]
    writers = {name: node.name for node in nodes for name in node.output}
    dequantised: dict[str, str] = {}  # float tensor -> output of its DequantizeLinear
    for node in nodes:
        if node.name in layers:
            for place, source in enumerate(node.input[:2]):
                if source not in dequantised and source in constants:
                    tensor = numpy_helper.to_array(constants[source])
                    scale = weight_scale(tensor, node.op_type)
                    own = given.get(node.name)
                    if own is None:
                        own = round_to_nearest(tensor, scale, node.op_type)
                    axis = _CHANNEL_AXIS[node.op_type]
                    dequantised[source] = pairs.weight(source, own, scale, axis, node.name)
                elif source not in dequantised:
                    module = writers.get(source, node.name)
                    scale = fp16_scale(np.float32(ranges[source] / QMAX))
                    dequantised[source] = pairs.activation(source, scale, module)
                node.input[place] = dequantised[source]
        body.node.append(node)
    drop_unread(body)
    return quantised


def weight_scale(weight: NDArray[np.float32], operator: str) -> NDArray[np.float32]:
    """Return the scale of each output channel of a ``Conv`` or ``MatMul`` weight, ``[out]``."""
    amax = np.abs(weight).max(_others(weight, operator))
    # A channel of zeros: any scale will do.
    return fp16_scale(np.where(amax > 0, amax / QMAX, 1).astype(np.float32))


def round_to_nearest(
    weight: NDArray[np.float32], scale: NDArray[np.float32], operator: str
) -> NDArray[np.int8]:
    """Round each weight to the nearest multiple of its channel's scale; same shape."""
    quantised = np.rint(weight / np.expand_dims(scale, _others(weight, operator)))
    return np.clip(quantised, -QMAX, QMAX).astype(np.int8)


def _others(weight: NDArray[np.float32], operator: str) -> tuple[int, ...]:
    """Return the axes of a weight that are not its output channels."""
    return tuple(i for i in range(weight.ndim) if i != _CHANNEL_AXIS[operator])


def fp16_scale(scale: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """Round scales up to the next float16, as float32, of the same shape.

    The int8 file with float16 around then holds the very same int8 values as the one with float32
    around; scales go up, so that nothing more is clipped. A scale beyond float16 stays as it is.
    """
    exact = np.asarray(scale, np.float32)
    with np.errstate(over="ignore"):
        near = exact.astype(np.float16)
        above = np.nextafter(near, np.float16(np.inf))
    up = np.where(near.astype(np.float32) < exact, above, near)
    held: NDArray[np.float32] = np.where(exact > _FP16_MAX, exact, up.astype(np.float32))
    return held


class _Pairs:
    """Appends Q/DQ nodes and their constants to a graph."""

    def __init__(self, body: onnx.GraphProto) -> None:
        self.body = body
        self.seen: Counter[str] = Counter()
        self.zeros: dict[tuple[int, ...], str] = {}

    def activation(self, source: str, scale: NDArray[np.float32], writer: str) -> str:
        """Put a pair behind a tensor; returns the name of the dequantised one."""
        inputs = [self._scale(source, scale), self._zero(())]
        self._append("QuantizeLinear", writer, [source, *inputs], f"{source}_quantised")
        return self._append(
            "DequantizeLinear", writer, [f"{source}_quantised", *inputs], f"{source}_rounded"
        )

    def weight(
        self,
        name: str,
        weight: NDArray[np.int8],
        scale: NDArray[np.float32],
        axis: int,
        reader: str,
    ) -> str:
        """Store a weight as int8 with a scale for each output channel; returns its float name."""
        self.body.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(weight), f"{name}_quantised")
        )
        inputs = [f"{name}_quantised", self._scale(name, scale), self._zero(scale.shape)]
        return self._append("DequantizeLinear", reader, inputs, f"{name}_rounded", axis=axis)

    def _scale(self, name: str, scale: NDArray[np.float32]) -> str:
        self.body.initializer.append(numpy_helper.from_array(np.asarray(scale), f"{name}_scale"))
        return f"{name}_scale"

    def _zero(self, shape: tuple[int, ...]) -> str:
        """Return the name of the zero points of this shape; the graph stores each shape once."""
        if shape not in self.zeros:
            self.zeros[shape] = "_".join(("zero_point", *map(str, shape)))
            zeros = numpy_helper.from_array(np.zeros(shape, np.int8), self.zeros[shape])
            self.body.initializer.append(zeros)
        return self.zeros[shape]

    def _append(
        self, operator: str, neighbour: str, inputs: list[str], output: str, **attributes: int
    ) -> str:
        """Append a node, named after the module that writes the tensor or reads the weight."""
        name = f"{neighbour.partition('/')[0]}/{operator}"
        self.seen[name] += 1
        if self.seen[name] > 1:
            name = f"{name}_{self.seen[name]}"
        self.body.node.append(helper.make_node(operator, inputs, [output], name, **attributes))
        return output


def _check_known(graph: ModelProto, layers: Collection[str]) -> None:
    known: dict[str, NodeProto] = {node.name: node for node in graph.graph.node}
    unknown = sorted(set(layers) - set(known))
    if unknown:
        raise InputError(
            f"the graph has no layers {', '.join(unknown)}.",
            next_step="use the names that hvq-edge export writes, for this very model",
        )


def _check_ranges(ranges: Mapping[str, float], activations: Collection[str]) -> None:
    faulty = [name for name in activations if not 0 < ranges.get(name, 0.0) < np.inf]
    if faulty:
        raise InputError(
            f"no range above 0 for the tensors {', '.join(faulty)}.",
            next_step="measure ranges of this very graph",
        )
