"""An ONNX graph, indexed: who writes a value, who reads it, what type and shape it has.

Flat graphs only: the bodies of If, Loop and Scan are not looked into. Lint refuses those operators.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from math import prod
from typing import Any, NamedTuple, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

BATCH = "batch"
"""Name of the one dimension that may vary."""

_SHAPES_ARE_SMALLER = 1024
"""Constants with more elements hold no shape and need no copy for shape inference."""


class Value(NamedTuple):
    """What shape inference says of one value."""

    element_type: int
    """An ``onnx.TensorProto.DataType``; 0: not known."""
    shape: tuple[int | None, ...] | None
    """``None``: rank not known; a dimension ``None``: not known."""

    @property
    def is_static(self) -> bool:
        """Whether every dimension is known."""
        return self.shape is not None and None not in self.shape

    @property
    def elements(self) -> int:
        """How many, where every dimension is known."""
        return prod(cast("tuple[int, ...]", self.shape))


class GraphView:
    """A model's main graph, indexed. The model must not change while it is looked at."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {value.name: value for value in model.graph.input}
        self.outputs = {value.name: value for value in model.graph.output}
        self.writers: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            self.writers.update((name, node) for name in node.output if name)
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self._inferred: dict[int, dict[str, Value]] = {}

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a constant's value; ``None``: no constant, or kept in another file."""
        tensor = self.tensor(name)
        if tensor is None or uses_external_data(tensor):
            return None
        return numpy_helper.to_array(tensor)  # type: ignore[no-any-return]

    def tensor(self, name: str) -> onnx.TensorProto | None:
        """Return the initialiser, or what a Constant node holds; ``None``: no constant."""
        if name in self.initialisers:
            return self.initialisers[name]
        writer = self.writers.get(name)
        if writer is None or writer.op_type != "Constant":
            return None
        value = attributes(writer)
        if "value" in value:
            return value["value"]
        held = next(
            (value[kind] for kind in ("value_float", "value_floats") if kind in value), None
        )
        if held is not None:
            return numpy_helper.from_array(np.asarray(held, np.float32), name)
        held = next((value[kind] for kind in ("value_int", "value_ints") if kind in value), None)
        return None if held is None else numpy_helper.from_array(np.asarray(held, np.int64), name)

    def is_constant(self, name: str) -> bool:
        """Whether a value is the same for every image, as far as the graph says so itself."""
        return self.tensor(name) is not None

    @cached_property
    def depends_on_input(self) -> frozenset[str]:
        """The values that are computed from an input of the graph, its shape included."""
        return self._reached_from_inputs()

    @cached_property
    def has_images(self) -> frozenset[str]:
        """The values that are computed from an input's content, so each image has its part."""
        return self._reached_from_inputs(not_through=("Shape", "Size"))

    def _reached_from_inputs(self, not_through: tuple[str, ...] = ()) -> frozenset[str]:
        reached = set(self.inputs) - set(self.initialisers)
        for node in self.nodes:  # ONNX orders nodes so that writers come first
            if node.op_type not in not_through and any(name in reached for name in node.input):
                reached.update(name for name in node.output if name)
        return frozenset(reached)

    def values(self, batch: int = 1) -> dict[str, Value]:
        """Return types and shapes of all values, constants too, for a batch of this size.

        They are inferred from the nodes and the inputs alone: what the file says of intermediate
        values is not believed.

        Raises:
            onnx.shape_inference.InferenceError: types or shapes contradict each other.
        """
        if batch not in self._inferred:
            self._inferred[batch] = self._infer(batch)
        return self._inferred[batch]

    @cached_property
    def types(self) -> dict[str, int]:
        """The element type of each value; what the file says, where types contradict each other."""
        try:
            return {name: value.element_type for name, value in self.values().items()}
        except onnx.shape_inference.InferenceError:
            given = (*self.inputs.values(), *self.outputs.values(), *self.model.graph.value_info)
            noted = {value.name: value.type.tensor_type.elem_type for value in given}
            return noted | {name: tensor.data_type for name, tensor in self.initialisers.items()}

    def _infer(self, batch: int) -> dict[str, Value]:
        # Large constants become inputs: inference needs their shape alone, and copies the model.
        bare = onnx.ModelProto(
            ir_version=self.model.ir_version,
            opset_import=self.model.opset_import,
            functions=self.model.functions,
        )
        bare.graph.name = self.model.graph.name
        bare.graph.node.extend(self.nodes)
        for value in self.inputs.values():
            added = bare.graph.input.add()
            added.CopyFrom(value)
            for dimension in added.type.tensor_type.shape.dim:
                if dimension.dim_param == BATCH:
                    dimension.dim_value = batch
        for value in self.outputs.values():
            added = bare.graph.output.add()
            added.CopyFrom(value)
            added.type.tensor_type.ClearField("shape")
        for tensor in self.model.graph.initializer:
            elements = prod(tensor.dims)
            if elements < _SHAPES_ARE_SMALLER and not uses_external_data(tensor):
                bare.graph.initializer.add().CopyFrom(tensor)
            elif tensor.name not in self.inputs:
                bare.graph.input.append(
                    onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                )
        inferred = onnx.shape_inference.infer_shapes(
            bare, check_type=True, strict_mode=True, data_prop=True
        )
        found = {
            tensor.name: Value(tensor.data_type, tuple(tensor.dims))
            for tensor in self.model.graph.initializer
        }
        graph = inferred.graph
        for value in (*graph.input, *graph.output, *graph.value_info):
            found[value.name] = _value_of(value)
        for name in self.writers:
            found.setdefault(name, Value(0, None))
        return found


def _value_of(value: onnx.ValueInfoProto) -> Value:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return Value(tensor.elem_type, None)
    return Value(
        tensor.elem_type,
        tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim),
    )


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values; strings as ``str``."""
    found = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    return {
        name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()
    }


def module_of(node: onnx.NodeProto) -> str:
    """Return the module that a node is named after: ``encoder.0`` of ``encoder.0/MatMul``."""
    return str(node.name).partition("/")[0]


def drop_unread(body: onnx.GraphProto) -> None:
    """Remove constants that no node reads any more, such as float weights that became int8."""
    read = {name for node in body.node for name in node.input}
    read |= {output.name for output in body.output}
    kept = [tensor for tensor in body.initializer if tensor.name in read]
    del body.initializer[:]
    body.initializer.extend(kept)
