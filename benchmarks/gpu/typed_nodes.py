"""In which type an exported graph computes its products, and which nodes change a type."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from hvq_edge.export.graph.view import GraphView

_PRODUCTS = ("Conv", "MatMul", "Gemm")
_CASTS = ("Cast", "QuantizeLinear", "DequantizeLinear")
_NAMES = {TensorProto.FLOAT: "Float", TensorProto.FLOAT16: "Half", TensorProto.BFLOAT16: "BFloat16"}


def factor_types(model: onnx.ModelProto) -> dict[str, str]:
    """Return the type of what each convolution and matrix product multiplies, by node name.

    ``Int8`` where both factors come from a DequantizeLinear, else their float type; named as
    TensorRT names them.
    """
    graph = GraphView(model)
    types = graph.types
    found = {}
    for node in graph.nodes:
        if node.op_type not in _PRODUCTS:
            continue
        writers = [graph.writers.get(name) for name in node.input[:2]]
        if all(writer is not None and writer.op_type == "DequantizeLinear" for writer in writers):
            found[node.name] = "Int8"
        else:
            found[node.name] = _NAMES.get(types.get(node.input[0], 0), "unknown")
    return found


def type_changes(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the nodes that change a type."""
    return frozenset(node.name for node in model.graph.node if node.op_type in _CASTS)
