"""Lint rules: what a graph promises (docs/explanation/architecture.md, "The graph's contract")."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import onnx
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data

from hvq_edge.export.graph.view import BATCH, GraphView, Value
from hvq_edge.export.lint.rule import Hits, rule, type_name
from hvq_edge.run.tiling import FrameShape

MAP_CELL = 16
"""Side of a map's cell in pixels."""
OPSETS = (17, 18)
FP16_PAIR_OPSET = 19
"""The first whose Q/DQ pairs may be float16."""
MAX_IR_VERSION = 10
ONNX_DOMAINS = ("", "ai.onnx")


class TensorSpec(NamedTuple):
    """What an input or output must be."""

    element_type: int
    shape: Callable[[int, int], tuple[int | str | None, ...]]
    """Gives the shape for height and width of a frame, 0 where they are not known. In a shape
    ``None`` stands for any fixed number."""
    needed: bool
    """Whether every graph has it."""


INPUTS = {
    "frames": TensorSpec(
        TensorProto.UINT8, lambda height, width: (BATCH, height or None, width or None, 3), True
    ),
    "category": TensorSpec(TensorProto.INT32, lambda *_: (BATCH,), False),
}
OUTPUTS = {
    "score": TensorSpec(TensorProto.FLOAT, lambda *_: (BATCH,), True),
    "map": TensorSpec(
        TensorProto.FLOAT,
        lambda height, width: (BATCH, height // MAP_CELL, width // MAP_CELL),
        True,
    ),
    "codes": TensorSpec(
        # A token is a cell of the map, or of a tile where frames are cut into several.
        TensorProto.INT32,
        lambda *_: (BATCH, None, None),
        True,
    ),
    "category": TensorSpec(TensorProto.INT32, lambda *_: (BATCH,), False),
    "margin": TensorSpec(TensorProto.FLOAT, lambda *_: (BATCH,), False),
}


@rule(
    "What the checker refuses, engines read each in its own way or not at all (TensorRT-RTX skips "
    "unknown attributes); the other rules rely on a valid graph."
)
def valid_onnx(graph: GraphView) -> Hits:
    """``onnx.checker`` passes, shape inference included."""
    if any(uses_external_data(tensor) for tensor in graph.initialisers.values()):
        return  # a rule of its own; the checker would look for the files in the working folder
    try:
        onnx.checker.check_model(graph.model, full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,  # of a file beyond protobuf's 2 GB
    ) as fault:
        yield "", str(fault).strip()


@rule(
    "The inspector hands the camera's bytes to whatever engine there is; another name, type or "
    "layout is an image read wrong or a failure at the first frame."
)
def inputs(graph: GraphView) -> Hits:
    """Inputs are ``frames`` uint8 NHWC RGB and, in some graphs, ``category`` int32."""
    yield from _check_specs(graph.inputs, INPUTS, graph, "input")
    for side in _frame_shape(graph) or ():
        if side % MAP_CELL:
            yield "frames", f"a side of {side} is no multiple of {MAP_CELL}"


@rule(
    "The engines allocate these before they run, by these types: int64 outputs are 32-bit on some "
    "TensorRT versions and 64-bit on others (since 9.0)."
)
def outputs(graph: GraphView) -> Hits:
    """Outputs are ``score``, ``map``, ``codes``; where it chooses, ``category`` and ``margin``."""
    yield from _check_specs(graph.outputs, OUTPUTS, graph, "output")
    if "category" in graph.outputs and "category" in graph.inputs:
        yield "category", "is an input, so the graph must not choose it"
    if ("category" in graph.outputs) != ("margin" in graph.outputs):
        yield "margin", "goes with category: one says how sure the other is"


@rule(
    "LayerNormalization begins with 17; 19 changes Cast, QuantizeLinear and Resize and is needed "
    "for Q/DQ pairs of float16 alone; later ones no parser that we build with has been tried on."
)
def opset(graph: GraphView) -> Hits:
    """Opset 17 or 18; 19 in files with Q/DQ pairs of float16."""
    allowed = (FP16_PAIR_OPSET,) if _has_fp16_pairs(graph) else OPSETS
    for entry in graph.model.opset_import:
        if entry.domain in ONNX_DOMAINS and entry.version not in allowed:
            yield "", f"opset {entry.version}; allowed are {' and '.join(map(str, allowed))}"


@rule(
    "ONNX Runtime 1.18, the oldest that is supported here, refuses files with a newer IR version "
    "(each release reads up to the one of its own onnx)."
)
def ir_version(graph: GraphView) -> Hits:
    """IR version 10 or older."""
    if graph.model.ir_version > MAX_IR_VERSION:
        yield "", f"IR version {graph.model.ir_version} is newer than {MAX_IR_VERSION}"


@rule(
    "Operators of com.microsoft and other domains exist in one engine only; TensorRT takes them "
    "for plugins that are missing."
)
def domains(graph: GraphView) -> Hits:
    """Operators of the ONNX domain only, and no functions."""
    for node in graph.nodes:
        if node.domain not in ONNX_DOMAINS:
            yield node.name, f"{node.op_type} is of the domain {node.domain}"
    used = {node.domain for node in graph.nodes}
    for entry in graph.model.opset_import:
        if entry.domain not in ONNX_DOMAINS and entry.domain not in used:
            yield "", f"the domain {entry.domain} is imported and never used"
    for function in graph.model.functions:
        yield function.name, "is a function, which engines inline differently"


@rule(
    "Engines plan their memory by shapes: a dimension that is unknown until a frame has come costs "
    "TensorRT its fusions, and a baked batch gives wrong results or none for any other."
)
def static_shapes(graph: GraphView) -> Hits:
    """Every shape is inferred, and nothing but the batch varies."""
    try:
        small, large = graph.values(_SMALL), graph.values(_LARGE)
    except onnx.shape_inference.InferenceError as fault:
        yield "", f"shapes contradict each other: {str(fault).strip()}"
        return
    wrong = {
        name
        for name in small
        if not small[name].is_static
        or not large[name].is_static
        or (name in graph.has_images and not _scales(small[name], large[name]))
    }
    order = [*graph.inputs, *(name for node in graph.nodes for name in node.output)]
    for name in (name for name in order if name in wrong):
        writer = graph.writers.get(name)
        # What follows from an unknown shape is unknown as well: the first of a chain says it all.
        if writer is not None and (
            any(source in wrong for source in writer.input) or writer.domain not in ONNX_DOMAINS
        ):
            continue
        shapes = f"{small[name].shape} for a batch of {_SMALL}, {large[name].shape} for {_LARGE}"
        yield writer.name if writer else name, f"{name} has the shape {shapes}"


# Primes: no product of fixed dimensions is taken for a batch.
_SMALL, _LARGE = 7, 11


def _scales(small: Value, large: Value) -> bool:
    """Whether there are as many elements for each image."""
    return small.elements * _LARGE == large.elements * _SMALL


@rule(
    "The shape of what they give depends on the data, or they run other nodes: TensorRT rebuilds "
    "its plan for them or reads sizes back to the CPU, and no rule here sees into their bodies."
)
def data_dependent(graph: GraphView) -> Hits:
    """No operators that handle shapes at run time, and no control flow."""
    for node in graph.nodes:
        if node.op_type in _DATA_DEPENDENT:
            yield node.name, f"{node.op_type} is left in the graph"


_DATA_DEPENDENT = frozenset(
    {
        *("Shape", "Size", "ConstantOfShape", "Range"),
        *("NonZero", "Unique", "Compress", "NonMaxSuppression"),
        *("If", "Loop", "Scan", "SequenceMap"),
    }
)


def _frame_shape(graph: GraphView) -> FrameShape | None:
    frames = graph.inputs.get("frames")
    dimensions = list(frames.type.tensor_type.shape.dim) if frames else []
    if len(dimensions) != 4:
        return None
    height, width = (one.dim_value for one in dimensions[1:3])
    return (height, width) if height and width else None


def _check_specs(
    found: dict[str, onnx.ValueInfoProto],
    specs: dict[str, TensorSpec],
    graph: GraphView,
    kind: str,
) -> Iterator[tuple[str, str]]:
    for name in specs:
        if specs[name].needed and name not in found:
            yield name, f"there is no {kind} {name}"
    frame_shape = _frame_shape(graph)
    for name, value in found.items():
        if name not in specs:
            yield name, f"is an {kind} that nobody knows; known are {', '.join(specs)}"
            continue
        tensor = value.type.tensor_type
        spec = specs[name]
        if tensor.elem_type != spec.element_type:
            given, due = type_name(tensor.elem_type), type_name(spec.element_type)
            yield name, f"is {given} and should be {due}"
        shape = tuple(d.dim_param or d.dim_value or "?" for d in tensor.shape.dim)
        if frame_shape is None and name != "frames":
            continue
        due_shape = spec.shape(*(frame_shape or (0, 0)))
        fits = len(shape) == len(due_shape) and all(
            isinstance(given, int) if due is None else given == due
            for given, due in zip(shape, due_shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("fixed" if due is None else str(due) for due in due_shape)
            yield name, f"has the shape {list(shape)} and should have [{wanted}]"


def _has_fp16_pairs(graph: GraphView) -> bool:
    types = graph.types
    return any(
        types.get(node.input[1]) == onnx.TensorProto.FLOAT16
        for node in graph.nodes
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    )


RULES = (
    valid_onnx,
    inputs,
    outputs,
    opset,
    ir_version,
    domains,
    static_shapes,
    data_dependent,
)
