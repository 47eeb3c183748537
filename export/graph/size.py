"""How large a graph is and how much it computes, counted from the graph itself.

Multiply-adds are those of convolutions and matrix products, for one image: taps that fall on
padding are counted, as every library counts them; biases are not. Not counted at all: element-wise
operators, norms, softmax, pooling, resizing and look-ups, which are bound by memory, and whatever
depends on constants alone, which is computed once, when an engine loads the graph.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import TensorProto

from hvq_edge.bundle.manifest import GraphNumbers
from hvq_edge.errors import HvqEdgeError
from hvq_edge.export.graph.view import GraphView, attributes

_NUMBERS = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT8,
    TensorProto.UINT8,
)
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
# They multiply too, and no graph of ours has them: a count that leaves them out would be wrong.
_NOT_COUNTABLE = frozenset(
    {
        *("Einsum", "ConvTranspose", "DeformConv", "Attention", "LSTM", "GRU", "RNN"),
        *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DFT", "STFT"),
        *("If", "Loop", "Scan"),
    }
)


class GraphSize(NamedTuple):
    """What a graph holds and computes."""

    nodes: int
    weights: int
    """Numbers that are multiplied with or added to what comes from the image.

    Scales and zero points of int8, and integers that say shapes and axes, are no weights."""
    tables: int
    """Numbers in tables that a Gather reads at places that come from the image: for each token its
    code, or the part of the image's category."""
    multiply_adds: int
    """What one image takes; the module says what is counted."""


def graph_size(model: onnx.ModelProto) -> GraphSize:
    """Count what a graph holds and computes.

    Args:
        model: a graph whose only varying dimension is ``batch``; external data need not be there.

    Raises:
        HvqEdgeError: a shape is not known, or an operator multiplies in a way that is not counted.
    """
    graph = GraphView(model)
    tables, scales = _tables(graph), _scales(graph)
    numbers = {
        name: prod(tensor.dims)
        for name, tensor in graph.initialisers.items()
        if tensor.data_type in _NUMBERS and name not in scales
    }
    in_tables = sum(count for name, count in numbers.items() if name in tables)
    return GraphSize(
        nodes=len(graph.nodes),
        weights=sum(numbers.values()) - in_tables,
        tables=in_tables,
        multiply_adds=sum(multiply_adds(node, graph) for node in graph.nodes),
    )


def graph_numbers(path: Path) -> GraphNumbers:
    """Count what is in a graph's file."""
    size = graph_size(onnx.load(path))
    return GraphNumbers(
        nodes=size.nodes,
        weights=size.weights,
        tables=size.tables,
        bytes=path.stat().st_size,
        multiply_adds=size.multiply_adds,
    )


def multiply_adds(node: onnx.NodeProto, graph: GraphView) -> int:
    """Count one node's multiply-adds for one image.

    Raises:
        HvqEdgeError: a shape is not known, or the operator cannot be counted.
    """
    if not any(name in graph.depends_on_input for name in node.input):
        return 0
    if node.op_type in _NOT_COUNTABLE:
        raise HvqEdgeError(
            f"{node.name} is a {node.op_type}, whose multiply-adds cannot be counted.",
            next_step="export the model with hvq-edge export; its graphs have no such operator",
        )
    if node.op_type == "Conv":
        # Weight [out, in / groups, kernel ...]: what one element of the output takes.
        return prod(_shape(node.output[0], graph)) * prod(_shape(node.input[1], graph)[1:])
    if node.op_type == "MatMul":
        return prod(_shape(node.output[0], graph)) * _shape(node.input[0], graph)[-1]
    if node.op_type == "Gemm":
        inner = 0 if attributes(node).get("transA", 0) else 1
        return prod(_shape(node.output[0], graph)) * _shape(node.input[0], graph)[inner]
    return 0


def _shape(name: str, graph: GraphView) -> tuple[int, ...]:
    try:
        value = graph.values(batch=1)[name]
    except onnx.shape_inference.InferenceError as fault:
        raise HvqEdgeError(f"the graph's shapes contradict each other: {fault}.") from fault
    if value.shape is None or not value.is_static:
        raise HvqEdgeError(
            f"the shape of {name} is not known, so its multiply-adds cannot be counted.",
            next_step="see what lint says of the graph",
        )
    return tuple(size or 0 for size in value.shape)


def _tables(graph: GraphView) -> set[str]:
    """Return the constants that a Gather reads at places that come from the image."""
    return {
        _unrounded(node.input[0], graph)
        for node in graph.nodes
        if node.op_type == "Gather" and node.input[1] in graph.depends_on_input
    }


def _scales(graph: GraphView) -> set[str]:
    """Return the scales and zero points of int8."""
    quantisers = (node for node in graph.nodes if node.op_type in _QUANTISERS)
    return {name for node in quantisers for name in node.input[1:]}


def _unrounded(name: str, graph: GraphView) -> str:
    """Follow a table back through its Q/DQ pair to the constant that is stored."""
    while (writer := graph.writers.get(name)) is not None and writer.op_type in _QUANTISERS:
        name = writer.input[0]
    return name
