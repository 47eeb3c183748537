"""Which nodes of an exported graph are quantised, and which change a type."""

from __future__ import annotations

import onnx

_PRODUCTS = ("Conv", "MatMul", "Gemm")
_CASTS = ("Cast", "QuantizeLinear", "DequantizeLinear")


def quantised_products(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the convolutions and products whose two factors come from Q/DQ pairs."""
    dequantised = {
        name
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for name in node.output
    }
    return frozenset(
        node.name
        for node in model.graph.node
        if node.op_type in _PRODUCTS and dequantised.issuperset(node.input[:2])
    )


def products(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of all convolutions and products."""
    return frozenset(node.name for node in model.graph.node if node.op_type in _PRODUCTS)


def type_changes(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the nodes that change a type."""
    return frozenset(node.name for node in model.graph.node if node.op_type in _CASTS)
