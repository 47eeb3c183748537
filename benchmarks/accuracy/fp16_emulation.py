"""A float16 graph's numbers on a CPU: computed in float32, rounded to float16 wherever it says so.

CPU engines run float16 files with casts of their own and drop those that only lose precision:
their results are better than a GPU's, and an overflow goes unseen. Here every float16 tensor is
rounded by Casts that stand in the graph itself, in a way that ONNX Runtime keeps. Sums within an
operator are float32, as in tensor cores; a GPU's order of summation and its fused kernels are not
imitated.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hvq_edge.export.graph.view import GraphView

_MOVES = frozenset({"Reshape", "Transpose", "Split", "Squeeze", "Unsqueeze", "Slice", "Identity"})
"""They compute nothing: what was rounded stays so."""
_AXIS = "first_axis"


def emulate_fp16(graph: ModelProto) -> ModelProto:
    """Return a float32 graph that rounds as a float16 graph does; ``graph`` is not changed.

    Args:
        graph: that :func:`hvq_edge.export.fp16.convert.to_fp16` wrote.
    """
    types = GraphView(graph).types
    made = ModelProto()
    made.CopyFrom(graph)
    body = made.graph
    for tensor in body.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    body.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), _AXIS))
    nodes = list(body.node)
    del body.node[:]
    for node in nodes:
        halves = [name for name in node.output if types.get(name) == TensorProto.FLOAT16]
        if node.op_type == "Cast" and types.get(node.input[0]) == TensorProto.FLOAT16:
            body.node.append(helper.make_node("Identity", node.input, node.output, node.name))
        elif node.op_type == "Cast" and halves:
            body.node.extend(_rounding(node.input[0], halves[0], node.name))
        else:
            pairs: list[NodeProto] = []
            if node.op_type not in _MOVES:
                for place, name in enumerate(node.output):
                    if name in halves:
                        node.output[place] = f"{name}_exact"
                        pairs += _rounding(f"{name}_exact", name, node.name)
            body.node.append(node)
            body.node.extend(pairs)
    return made


def _rounding(source: str, target: str, label: str) -> list[NodeProto]:
    """Round a tensor to float16 and hand it on as float32.

    ONNX Runtime removes a Cast down and up again; a dimension added and removed between stops it.
    """
    names = [f"{target}_{step}" for step in ("float16", "deeper", "flat")]
    steps = [
        ("Cast", [source], names[0], {"to": TensorProto.FLOAT16}),
        ("Unsqueeze", [names[0], _AXIS], names[1], {}),
        ("Squeeze", [names[1], _AXIS], names[2], {}),
        ("Cast", [names[2]], target, {"to": TensorProto.FLOAT}),
    ]
    return [
        helper.make_node(operator, inputs, [output], f"{label}_rounding_{i}", **given)
        for i, (operator, inputs, output, given) in enumerate(steps)
    ]
