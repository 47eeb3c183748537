"""Tools to edit an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper


def first(model: onnx.ModelProto, op_type: str, module: str = "") -> onnx.NodeProto:
    nodes = (n for n in model.graph.node if n.op_type == op_type and n.name.startswith(module))
    return next(nodes)


def add_constant(model: onnx.ModelProto, value: object, dtype: type = np.float32) -> str:
    name = f"added_{len(model.graph.initializer)}"
    array = np.asarray(value, dtype)
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def insert(model: onnx.ModelProto, before: onnx.NodeProto, index: int, *nodes: tuple) -> None:
    """Put a chain of nodes, each (operator, further inputs, attributes), on an input of a node."""
    name = before.input[index]
    place = list(model.graph.node).index(before)
    for i, (op_type, more, attributes) in enumerate(nodes):
        output = f"inserted_{place}_{i}"
        outputs = [output, *attributes.pop("more_outputs", [])]
        label = f"added/{op_type}_{i}{place}"
        node = helper.make_node(op_type, [name, *more], outputs, label, **attributes)
        model.graph.node.insert(place + i, node)
        name = output
    list(model.graph.node)[place + len(nodes)].input[index] = name


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def change_type(node: onnx.NodeProto, op_type: str) -> None:
    node.name = node.name.replace(f"/{node.op_type}", f"/{op_type}")
    node.op_type = op_type


def value_of(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def set_value(tensor: onnx.TensorProto, change: Callable[[np.ndarray], object]) -> None:
    array = numpy_helper.to_array(tensor).copy()
    changed = np.asarray(change(array), array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))


def weight_above(model: onnx.ModelProto, elements: int) -> tuple[onnx.NodeProto, onnx.TensorProto]:
    """A MatMul with a constant on its right."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and np.prod(weight.dims) > elements:
            return node, weight
    raise AssertionError


def pair(model: onnx.ModelProto, dtype: type = np.int8, scale: object = 0.1) -> list[tuple]:
    more = [add_constant(model, scale), add_constant(model, np.zeros_like(scale), dtype)]
    axis = {"axis": 1} if np.ndim(scale) else {}
    return [("QuantizeLinear", more, dict(axis)), ("DequantizeLinear", more, dict(axis))]
