"""The tables of prototypes in exported graphs: read, and written in every precision alike.

A graph keeps a category's prototypes as initialisers; nothing else in it depends on them. So one
category learns by writing columns of its own slice, and every other category computes with the
very bytes it had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from hvq_edge.calibration.quantise import QMAX, fp16_scale, round_to_nearest, weight_scale
from hvq_edge.errors import BundleError
from hvq_edge.export.graph.view import GraphView, module_of

TABLES = ("prototypes", "fine_prototypes")
"""Modules of :class:`hvq_edge.export.fold.folded.FoldedHVQTrans` that have one."""

Centres = NDArray[np.float32]
"""``[prototypes, channels]``, whitened."""


def tables_of(graph: ModelProto) -> tuple[str, ...]:
    """Name the tables of prototypes that a graph has.

    Raises:
        BundleError: it has none, so there is nothing that could learn.
    """
    names = {tensor.name for tensor in graph.graph.initializer}
    found = tuple(
        table for table in TABLES if {f"{table}.centres", f"{table}.centres_quantised"} & names
    )
    if not found:
        raise BundleError(
            "this bundle's graphs have no prototypes, so no image can join them.",
            next_step="put the images into train/good and train again; presets edge and tiny have "
            "prototypes",
        )
    return found


def read_centres(graph: ModelProto, table: str, category: int | None) -> Centres:
    """Return a category's prototypes out of a float32 graph.

    Args:
        graph: the float32 graph of a bundle.
        table: one of :func:`tables_of`.
        category: its index; ``None``: the graph serves one category.
    """
    (tensor,) = (one for one in graph.graph.initializer if one.name == f"{table}.centres")
    centres = numpy_helper.to_array(tensor)
    own = centres if category is None else centres[category]
    return np.ascontiguousarray(own.T, np.float32)


def write_centres(
    graph: ModelProto, table: str, category: int | None, columns: Sequence[int], centres: Centres
) -> None:
    """Put prototypes in the place of others, in a graph of any precision; it is changed.

    Where the table is looked up by category, the scale of its Q/DQ pair stays. In an INT8 graph of
    one category the table is a weight with a scale for each prototype: a new one has its own.

    Args:
        graph: of any precision.
        table: one of :func:`tables_of`.
        category: its index; ``None``: the graph serves one category.
        columns: places in the table.
        centres: what comes there, ``[columns, channels]``.
    """
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    places = np.asarray(columns)
    weight = np.ascontiguousarray(centres.T)  # [channels, columns]
    bias = -np.square(weight).sum(0) / 2

    def put(name: str, values: NDArray[np.generic]) -> None:
        """Write columns of an initialiser, where the graph has it: the last axis are prototypes."""
        for tensor in (stored.get(name), stored.get(f"{name}_fp16")):
            if tensor is None:
                continue
            whole = numpy_helper.to_array(tensor).copy()
            own = whole if category is None else whole[category]
            own[..., places] = values.astype(whole.dtype)
            tensor.CopyFrom(numpy_helper.from_array(whole, tensor.name))

    put(f"{table}.centres", weight)
    if f"{table}.centres_quantised" in stored:
        scale = weight_scale(weight, "MatMul")
        put(f"{table}.centres_quantised", round_to_nearest(weight, scale, "MatMul"))
        put(f"{table}.centres_scale", fp16_scale(scale))
    for name in (f"{table}.bias", f"{table}.corrected_bias"):
        put(name, bias)


def with_tokens(graph: ModelProto) -> tuple[ModelProto, dict[str, str]]:
    """Return a copy of a float32 graph that gives what meets the prototypes as well.

    Returns:
        The graph, and by table the name of the output: ``[batch, tokens, channels]``, whitened.
    """
    made = ModelProto()
    made.CopyFrom(graph)
    view = GraphView(graph)
    outputs: dict[str, str] = {}
    for table in tables_of(graph):
        outputs[table] = _product(view, table).input[0]
        made.graph.output.append(onnx.helper.make_empty_tensor_value_info(outputs[table]))
    return made, outputs


def clipped(graph: ModelProto, table: str, centres: Centres) -> float:
    """Return the share of values that the INT8 range of a looked-up table does not hold.

    Args:
        graph: of a reduced precision.
        table: one of :func:`tables_of`.
        centres: prototypes that shall be in it.
    """
    view = GraphView(graph)
    for node in view.nodes:
        if node.op_type == "QuantizeLinear" and module_of(node) == table:
            writer = view.writers.get(node.input[0])
            if writer is not None and writer.input[0].startswith(f"{table}.centres"):
                scale = view.constant(node.input[1])
                assert scale is not None  # Q/DQ pairs of ours have constant scales
                return float((np.abs(centres) > (QMAX + 0.5) * float(scale)).mean())
    return 0.0


def _product(view: GraphView, table: str) -> NodeProto:
    """Return the node that multiplies tokens with the prototypes."""
    for node in view.nodes:
        if node.op_type != "MatMul" or module_of(node) != table:
            continue
        looked_up = view.writers.get(node.input[1])
        source = looked_up.input[0] if looked_up is not None else node.input[1]
        if source == f"{table}.centres":
            return node
    raise BundleError(
        f"the float32 graph does not multiply with its {table}: it is of another version.",
        next_step="run hvq-edge export again with this version",
    )
