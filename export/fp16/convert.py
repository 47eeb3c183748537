"""float16 files: convolutions, linears and attention in float16, what decides in float32.

Strongly typed engines compute as the file says, so the file says it: a Cast stands wherever
float16 and float32 meet. In float32 stay distances, classifier, whitening, transport score and map,
LayerNormalization with the residual sums that feed it, Softmax, and every node named as an island
because its values come near float16's largest (:mod:`hvq_edge.export.fp16.islands`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hvq_edge.export.graph.view import GraphView, drop_unread, module_of
from hvq_edge.export.lint.contract import FP16_PAIR_OPSET
from hvq_edge.export.lint.precision import DEQUANTISE, FLOAT_MODULES, FP16_MAX, QUANTISE

_COMPUTE = frozenset({"Conv", "MatMul", "Add", "Mul", "Relu", "Clip", "Sigmoid", "HardSwish"})
# They move values and compute nothing: in float16 where what they move is.
_FOLLOW = frozenset({"Reshape", "Transpose", "Split", "Squeeze", "Unsqueeze", "Slice", "Identity"})
_FLOAT_TOPS = frozenset({*FLOAT_MODULES, "top", "lower_codes"})
_RESIDUAL = re.compile(r"^(encoder|decoder)\.\d+/Add(_\d+)?$")


def fp16_nodes(graph: ModelProto, islands: Collection[str] = ()) -> tuple[str, ...]:
    """Name the nodes that compute in float16, in the graph's order.

    Args:
        graph: a float32 graph, with or without Q/DQ pairs.
        islands: names of nodes that stay in float32 whatever they are.
    """
    view = GraphView(graph)
    chosen: set[str] = set()
    for node in view.nodes:
        if node.name in islands or any(name in view.outputs for name in node.output):
            continue
        if node.op_type in _FOLLOW:
            writer = view.writers.get(node.input[0])
            follows = writer is not None and writer.name in chosen
        else:
            follows = _computes_in_fp16(view, node)
        if follows:
            chosen.add(node.name)
    # Each node of a Q/DQ pair takes the type of its float side.
    for node in view.nodes:
        if node.op_type == DEQUANTISE:
            readers = view.readers[node.output[0]]
            if readers and all(reader.name in chosen for reader in readers):
                chosen.add(node.name)
        elif node.op_type == QUANTISE:
            writer = view.writers.get(node.input[0])
            if writer is not None and writer.name in chosen:
                chosen.add(node.name)
    return tuple(node.name for node in view.nodes if node.name in chosen)


def to_fp16(graph: ModelProto, islands: Collection[str] = ()) -> ModelProto:
    """Return a graph with the nodes of :func:`fp16_nodes` in float16; ``graph`` is not changed.

    Inputs and outputs keep their types.

    Args:
        graph: a float32 graph, with or without Q/DQ pairs.
        islands: see :func:`fp16_nodes`.
    """
    chosen = frozenset(fp16_nodes(graph, islands))
    view = GraphView(graph)
    types = view.types
    made = ModelProto()
    made.CopyFrom(graph)
    body = made.graph
    nodes = list(body.node)
    del body.node[:]
    del body.value_info[:]  # the types in it hold no longer
    casts = _Casts(body, nodes)
    is_fp16: set[str] = set()  # float values that are float16 now
    for node in nodes:
        wants_fp16 = node.name in chosen
        for place, name in enumerate(node.input):
            if types.get(name) != TensorProto.FLOAT:
                continue
            if name in view.initialisers:
                if wants_fp16:
                    node.input[place] = casts.constant(name)
            elif (name in is_fp16) != wants_fp16:
                node.input[place] = casts.cast(name, node, fp16=wants_fp16)
        body.node.append(node)
        if wants_fp16:
            is_fp16.update(name for name in node.output if types.get(name) == TensorProto.FLOAT)
    drop_unread(body)
    if any(node.name in chosen and node.op_type in (QUANTISE, DEQUANTISE) for node in nodes):
        for entry in made.opset_import:
            if entry.domain == "":
                entry.version = max(entry.version, FP16_PAIR_OPSET)
    return made


def _computes_in_fp16(view: GraphView, node: NodeProto) -> bool:
    top = module_of(node).partition(".")[0]
    if top in _FLOAT_TOPS or _RESIDUAL.match(node.name):
        return False
    if node.op_type == "Gather":  # a table of codes or weights, where that is what it looks up
        return node.input[0] in view.initialisers and _is_float(view, node.output[0])
    if node.op_type not in _COMPUTE:
        return False
    floats = (*filter(None, node.input), *node.output)
    return all(_is_float(view, name) for name in floats) and all(
        _fits(view, name) or node.op_type == "Clip" for name in node.input
    )


def _is_float(view: GraphView, name: str) -> bool:
    return bool(view.types.get(name) == TensorProto.FLOAT)


def _fits(view: GraphView, name: str) -> bool:
    value = view.constant(name) if name in view.initialisers else None
    return value is None or not value.size or float(np.abs(value).max()) <= FP16_MAX


class _Casts:
    """Adds Cast nodes and float16 constants, each once."""

    def __init__(self, body: onnx.GraphProto, nodes: Collection[NodeProto]) -> None:
        self.body = body
        self.constants = {tensor.name: tensor for tensor in body.initializer}
        self.known: dict[str, str] = {}
        self.seen = Counter(f"{module_of(node)}/Cast" for node in nodes if "/Cast" in node.name)

    def constant(self, name: str) -> str:
        """Store a constant in float16 as well; returns the copy's name."""
        stored = f"{name}_fp16"
        if stored not in self.constants:
            value = numpy_helper.to_array(self.constants[name])
            value = np.clip(value, -FP16_MAX, FP16_MAX).astype(np.float16)
            self.constants[stored] = numpy_helper.from_array(value, stored)
            self.body.initializer.append(self.constants[stored])
        return stored

    def cast(self, name: str, reader: NodeProto, *, fp16: bool) -> str:
        """Cast a value for a reader and all that come after; returns the new value's name."""
        kind = TensorProto.FLOAT16 if fp16 else TensorProto.FLOAT
        made = f"{name}_{'fp16' if fp16 else 'fp32'}"
        if made not in self.known:
            label = f"{module_of(reader)}/Cast"
            self.seen[label] += 1
            if self.seen[label] > 1:
                label = f"{label}_{self.seen[f'{module_of(reader)}/Cast']}"
            self.body.node.append(helper.make_node("Cast", [name], [made], label, to=kind))
            self.known[made] = label
        return made
