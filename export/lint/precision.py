"""Lint rules: int8, float16 and float32, each where it belongs (docs/explanation/precision.md)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from hvq_edge.export.graph.view import GraphView, attributes, module_of
from hvq_edge.export.lint.rule import Hits, rule, type_name

FP16_MAX = 65504.0
FP16_SMALLEST = 2.0**-24

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
FLOAT_MODULES = (
    "classifier",
    "codebooks",
    "fine_prototypes",
    "prototypes",
    "transport",
    "whitening",
)
"""Where a rounding error changes a decision: which code or category is nearest, and how far."""
FLOAT_OPERATORS = ("LayerNormalization", "Softmax")
_MAY_BE_INT8 = ("prototypes/MatMul", "fine_prototypes/MatMul")
"""The exception among the float modules: the map needs the distance to the nearest prototype, not
which one it is."""

_KNOWN_TYPES = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.BOOL,
    }
)


@rule(
    "TensorRT clamps float64 to float32 without a word, OpenVINO and ONNX Runtime compute it as "
    "it stands, several times slower; bfloat16 and eight-bit floats exist on some engines only."
)
def element_types(graph: GraphView) -> Hits:
    """No float64 and no types that only some engines have."""
    for name, value in graph.types.items():
        if value and value not in _KNOWN_TYPES:
            writer = graph.writers.get(name)
            yield writer.name if writer else name, f"{name} is {type_name(value)}"


@rule(
    "onnx-tensorrt's support matrix has no uint8 here, up to 10.15 (TensorRT-RTX 1.7 takes it); "
    "without a zero point ONNX means uint8. ONNX Runtime would be faster with it on x86, but "
    "OpenVINO runs int8 as fast."
)
def quantised_to_int8(graph: GraphView) -> Hits:
    """QuantizeLinear and DequantizeLinear use int8."""
    types = graph.types
    for node in graph.nodes:
        value = {QUANTISE: [*node.output], DEQUANTISE: [*node.input]}.get(node.op_type)
        if not value or types.get(value[0]) in (TensorProto.INT8, None):
            continue
        if types[value[0]] != TensorProto.INT32:  # a bias: a rule of its own
            yield node.name, f"{value[0]} is {type_name(types[value[0]])}"


@rule("TensorRT refuses DequantizeLinear of int32, which ONNX Runtime's quantiser gives to biases.")
def float_biases(graph: GraphView) -> Hits:
    """No DequantizeLinear of int32: biases stay in float."""
    types = graph.types
    for node in graph.nodes:
        if node.op_type == DEQUANTISE and types.get(node.input[0]) == TensorProto.INT32:
            yield node.name, f"{node.input[0]} is int32"


@rule("TensorRT's int8 is symmetric: its parser refuses any other zero point.")
def zero_points(graph: GraphView) -> Hits:
    """All zero points are constants and 0."""
    for node in _quantisers(graph):
        if len(node.input) < 3 or not node.input[2]:
            continue
        value = graph.constant(node.input[2])
        if value is None:
            yield node.name, f"the zero point {node.input[2]} is not a constant"
        elif value.any():
            yield node.name, f"the zero point reaches {int(np.abs(value.astype(int)).max())}"


@rule(
    "The parser refuses a scale of 0 (a channel that never fires), which divides by zero; TensorRT "
    "wants scales at build time, and documents several for weights only."
)
def scales(graph: GraphView) -> Hits:
    """Scales are constants, positive and finite; an activation has one, a weight may have many."""
    for node in _quantisers(graph):
        value = graph.constant(node.input[1])
        if value is None:
            yield node.name, f"the scale {node.input[1]} is not a constant"
            continue
        if not (np.isfinite(value) & (value > 0)).all():
            yield node.name, f"the scale has {value.min():g}"
        if value.size > 1 and not _is_weight(graph, node.input[0]):
            yield node.name, f"{value.size} scales for an activation"


@rule(
    "TensorRT reads a pair as 'compute the neighbours in int8' and documents int8 for nothing "
    "else: what becomes of another operator in between is nowhere promised."
)
def quantised_pairs(graph: GraphView) -> Hits:
    """int8 values, constants too, are read by DequantizeLinear and by nothing else."""
    for name, value in graph.types.items():
        if value != TensorProto.INT8:
            continue
        for node in graph.readers[name]:
            is_zero_point = node.op_type in (QUANTISE, DEQUANTISE) and name == [*node.input][-1]
            if node.op_type != DEQUANTISE and not is_zero_point:
                yield node.name, f"{node.op_type} reads {name}, which is int8"


@rule(
    "An epsilon below float16's smallest step, 6e-8, is zero there and a constant token becomes "
    "0/0; sums of squares in float16 overflow (TensorRT's most reported LayerNormalization fault); "
    "the parser knows the first output only."
)
def layer_normalisation(graph: GraphView) -> Hits:
    """LayerNormalization sums in float32, with an epsilon that float16 can hold, and one output."""
    for node in graph.nodes:
        if node.op_type != "LayerNormalization":
            continue
        given = attributes(node)
        epsilon = given.get("epsilon", 1e-5)
        if not FP16_SMALLEST <= epsilon <= FP16_MAX:
            yield node.name, f"epsilon is {epsilon:g}"
        if given.get("stash_type", 1) != TensorProto.FLOAT:
            yield node.name, f"stash_type is {type_name(given['stash_type'])}"
        if any(node.output[1:]):
            yield node.name, "gives mean or deviation as well"


@rule(
    "Which code, prototype or category is nearest is a comparison of near equals, and norms and "
    "softmax sum squares and exponentials: rounded to int8 or float16 they change decisions."
)
def decisions_in_float(graph: GraphView) -> Hits:
    """Distances, classifier, transport score, LayerNormalization and Softmax are in float32.

    Of distances, those to prototypes may be int8.
    """
    types = graph.types
    for node in graph.nodes:
        belongs = module_of(node).partition(".")[0] in FLOAT_MODULES
        if not belongs and node.op_type not in FLOAT_OPERATORS:
            continue
        if node.op_type in ("Cast", QUANTISE, DEQUANTISE):  # may stand at a module's edge
            continue
        for name in node.input:
            writer = graph.writers.get(name)
            if writer is not None and writer.op_type == DEQUANTISE:
                if node.name in _MAY_BE_INT8:
                    continue
                yield node.name, f"reads {name}, which was rounded to int8"
            elif types.get(name) == TensorProto.FLOAT16:
                yield node.name, f"reads {name}, which is float16"


@rule(
    "What is beyond 65504 is infinite in float16, and builders before TensorRT 11 may run a "
    "float32 operator in float16 where they find it faster.",
    "warning",
)
def fp16_range(graph: GraphView) -> Hits:
    """In files with float16, no float32 constant beyond 65504, but for bounds of Clip."""
    types = graph.types
    if TensorProto.FLOAT16 not in types.values():
        return
    for name in graph.initialisers:
        value = graph.constant(name)
        if value is None or value.dtype != np.float32 or not value.size:
            continue
        largest = float(np.abs(value[np.isfinite(value)]).max(initial=0))
        bounds_only = all(node.op_type == "Clip" for node in graph.readers[name])
        if largest > FP16_MAX and not bounds_only:
            yield name, f"holds {largest:g}"


def _quantisers(graph: GraphView) -> Iterator[onnx.NodeProto]:
    return (node for node in graph.nodes if node.op_type in (QUANTISE, DEQUANTISE))


def _is_weight(graph: GraphView, name: str) -> bool:
    """Whether a value is a constant, or one that the graph itself quantises."""
    writer = graph.writers.get(name)
    if writer is not None and writer.op_type == QUANTISE:
        name = writer.input[0]
    return graph.is_constant(name)


RULES = (
    element_types,
    quantised_to_int8,
    float_biases,
    zero_points,
    scales,
    quantised_pairs,
    layer_normalisation,
    decisions_in_float,
    fp16_range,
)
