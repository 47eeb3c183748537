"""How large a graph is and how much it computes, counted from the graph itself.

Multiply-adds are those of convolutions and matrix products, for one image: taps that fall on
padding are counted, as every library counts them; biases are not. Not counted at all: element-wise
operators, norms, softmax, pooling, resizing and look-ups, which are bound by memory, and whatever
depends on constants alone, which is computed once, when an engine loads the graph.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto
from pydantic import BaseModel, ConfigDict

from hvq_edge.bundle.manifest import GraphNumbers
from hvq_edge.errors import HvqEdgeError
from hvq_edge.export.graph.view import GraphView, attributes, module_of

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


class GraphSize(BaseModel):
    """What a graph holds and computes."""

    model_config = ConfigDict(frozen=True)

    nodes: int
    operators: dict[str, int]
    """Number of nodes of each operator, the most frequent first."""
    weights: int
    """Numbers that are multiplied with or added to what comes from the image.

    Scales and zero points of int8, and integers that say shapes and axes, are no weights."""
    code_tables: int
    """Numbers in tables that a Gather reads row by row, several rows an image: a code a token."""
    category_tables: int
    """Numbers in tables of which a Gather reads one part an image, that of its category."""
    code_table_bytes: int
    category_table_bytes: int
    constant_bytes: int
    """Size of all constants, scales and shapes included."""
    multiply_adds: int
    """What one image takes; the module says what is counted."""
    multiply_adds_of: dict[str, int]
    """The same for each part of the model (``backbone``, ``encoder``, ...), the largest first.

    ``top`` is what belongs to no part."""

    @property
    def parameters(self) -> int:
        """Weights and tables."""
        return self.weights + self.code_tables + self.category_tables


def graph_size(model: onnx.ModelProto) -> GraphSize:
    """Count what a graph holds and computes.

    Args:
        model: a graph whose only varying dimension is ``batch``; external data need not be there.

    Raises:
        HvqEdgeError: a shape is not known, or an operator multiplies in a way that is not counted.
    """
    graph = GraphView(model)
    sums: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    kinds = _kinds(graph)
    for name, tensor in graph.initialisers.items():
        elements = prod(tensor.dims)
        size = elements * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        sizes["all"] += size
        sizes[kinds.get(name, "weight")] += size
        if tensor.data_type in _NUMBERS:
            sums[kinds.get(name, "weight")] += elements

    work: Counter[str] = Counter()
    for node in graph.nodes:
        work[module_of(node).partition(".")[0]] += multiply_adds(node, graph)
    return GraphSize(
        nodes=len(graph.nodes),
        operators=dict(Counter(node.op_type for node in graph.nodes).most_common()),
        weights=sums["weight"],
        code_tables=sums["code"],
        category_tables=sums["category"],
        code_table_bytes=sizes["code"],
        category_table_bytes=sizes["category"],
        constant_bytes=sizes["all"],
        multiply_adds=work.total(),
        multiply_adds_of={part: count for part, count in work.most_common() if count},
    )


def graph_numbers(path: Path) -> GraphNumbers:
    """Count what is in a graph's file."""
    size = graph_size(onnx.load(path))
    return GraphNumbers(
        nodes=size.nodes,
        weights=size.weights,
        tables=size.code_tables + size.category_tables,
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


def _kinds(graph: GraphView) -> dict[str, str]:
    """Say which constants are no weights but a ``code`` or ``category`` table or a ``scale``.

    A table is what a Gather reads at places that come from the image: one place an image is its
    category, more are codes.
    """
    kinds: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type in _QUANTISERS:
            kinds.update((name, "scale") for name in node.input[1:])
        elif node.op_type == "Gather" and node.input[1] in graph.depends_on_input:
            places = prod(_shape(node.input[1], graph))
            kinds[_unrounded(node.input[0], graph)] = "code" if places > 1 else "category"
    return kinds


def _unrounded(name: str, graph: GraphView) -> str:
    """Follow a table back through its Q/DQ pair to the constant that is stored."""
    while (writer := graph.writers.get(name)) is not None and writer.op_type in _QUANTISERS:
        name = writer.input[0]
    return name
