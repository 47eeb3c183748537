"""A graph of several categories gets one more: every table of categories grows by its rows.

A graph takes what belongs to a category out of tables by index. Longer tables give the other
categories the rows that they had, so nothing else in the graph moves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from hvq_edge.bundle.learnt import CENTRES
from hvq_edge.errors import BundleError
from hvq_edge.export.graph.view import GraphView, attributes, drop_unread, module_of
from hvq_edge.export.learn.tables import tables_of

Rows = Mapping[str, NDArray[np.float32]]
"""By name of a table: what it holds of one category."""
CLASSIFIER = "classifier"
_GIVEN = "category_given"
_OWN = "own"


def grow(graph: ModelProto, categories: int, source: int) -> None:
    """Append a category that is a copy of another one; the graph is changed.

    Args:
        graph: of any precision, that knows several categories or is told which.
        categories: how many it knows.
        source: the one to copy.
    """
    for tensor in _category_tables(graph):
        whole = numpy_helper.to_array(tensor)
        own = np.split(whole, categories)[source]  # a table of codes has a row for each code
        _put(graph, tensor, np.concatenate([whole, own]))
    if (chooses := _chooses(graph)) is not None:
        _replace(graph, chooses, 2, np.array(categories))


def add_centre(graph: ModelProto, centre: NDArray[np.float32], category: int) -> None:
    """Let the classifier know one centre more, in a graph of any precision; it is changed.

    Args:
        graph: that chooses the category itself.
        centre: whitened.
        category: that an image near it is of.
    """
    tensor = next(one for one in graph.graph.initializer if one.name == CENTRES)
    whole = numpy_helper.to_array(tensor)
    _put(graph, tensor, np.concatenate([whole, centre[None].astype(whole.dtype)]))
    chooses = _chooses(graph)
    assert chooses is not None  # a graph with centres has it
    _replace(graph, chooses, 1, np.append(owners(graph), category))
    changed = {
        name for node in graph.graph.node if module_of(node) == CLASSIFIER for name in node.output
    }
    kept = [value for value in graph.graph.value_info if value.name not in changed]
    del graph.graph.value_info[:]  # the others may have shapes of before
    graph.graph.value_info.extend(kept)


def owners(graph: ModelProto) -> NDArray[np.int64]:
    """Return of which category an image is that is nearest to a centre, for each centre."""
    chooses = _chooses(graph)
    assert chooses is not None  # as above
    found = GraphView(graph).constant(chooses.input[1])
    assert found is not None  # an export writes constants
    return found.astype(np.int64)


def write_rows(graph: ModelProto, category: int, rows: Rows) -> None:
    """Put what a category has into its tables, in a graph of any precision; it is changed."""
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    for name, values in rows.items():
        corrected = name.removesuffix("bias") + "corrected_bias" if name.endswith("bias") else name
        for tensor in (stored.get(one) for one in {name, f"{name}_fp16", corrected}):
            if tensor is not None:
                whole = numpy_helper.to_array(tensor).copy()
                whole[category] = values.astype(whole.dtype)
                _put(graph, tensor, whole)


def read_rows(graph: ModelProto, name: str) -> NDArray[np.float32] | None:
    """Return a table of a float32 graph with all its categories; ``None``: it has none."""
    return GraphView(graph).constant(name)


def always(graph: ModelProto, category: int) -> ModelProto:
    """Return a copy of a float32 graph that takes every image, one at a time, for a category."""
    made = ModelProto()
    made.CopyFrom(graph)
    chosen = _reader(GraphView(graph), "map_scale").input[1]
    for node in made.graph.node:
        for place, name in enumerate(node.input):
            if name == chosen:
                node.input[place] = _GIVEN
    given = numpy_helper.from_array(np.array([category], np.int64), _GIVEN)
    made.graph.initializer.append(given)
    return made


def meets(graph: ModelProto) -> dict[str, str]:
    """Return by table of prototypes the value that is whitened there, before it is."""
    view = GraphView(graph)
    found = {}
    for table in tables_of(graph):
        (looked_up,) = _reader(view, f"{table}.whiten.weight").output
        found[table] = view.readers[looked_up][0].input[0]
    return found


def pooled(graph: ModelProto) -> str | None:
    """Return the value that the classifier compares with its centres; ``None``: it has none."""
    view = GraphView(graph)
    if CENTRES not in view.initialisers:
        return None
    (product,) = view.readers["classifier.whitening"]
    return str(product.output[0])


def distances(graph: ModelProto) -> dict[str, str]:
    """Return by table of prototypes the distances, ``[batch, tokens]``."""
    nodes = graph.graph.node
    return {
        table: next(
            str(node.output[0])
            for node in nodes
            if node.op_type == "Sqrt" and module_of(node) == table
        )
        for table in tables_of(graph)
    }


def level(graph: ModelProto) -> str | None:
    """Return an image's own level, as the graph takes it; ``None``: it leaves none out."""
    view = GraphView(graph)
    if "level_limit" not in view.initialisers:
        return None
    (limit,) = _reader(view, "level_limit").output
    (smaller,) = view.readers[limit]
    return next(str(name) for name in smaller.input if name != limit)


def _category_tables(graph: ModelProto) -> list[TensorProto]:
    view = GraphView(graph)
    return [
        tensor
        for tensor in graph.graph.initializer
        if any(
            node.op_type == "Gather"
            and node.input[0] == tensor.name
            and attributes(node).get("axis", 0) == 0
            and node.input[1] in view.has_images
            for node in view.readers[tensor.name]
        )
    ]


def _reader(view: GraphView, table: str) -> NodeProto:
    found = view.readers.get(table, [])
    if len(found) != 1 or found[0].op_type != "Gather":
        raise BundleError(
            f"the float32 graph does not look {table} up by category: it is of another version.",
            next_step="run hvq-edge export again with this version",
        )
    return found[0]


def _chooses(graph: ModelProto) -> NodeProto | None:
    """Return the node that gives the nearest centre's category, and else the last one's."""
    for node in graph.graph.node:
        if node.op_type == "Where" and module_of(node) == CLASSIFIER:
            return node
    return None


def _replace(graph: ModelProto, node: NodeProto, place: int, values: NDArray[np.generic]) -> None:
    """Give a node a constant of its own: the one it has may have other readers."""
    old = GraphView(graph).constant(node.input[place])
    assert old is not None  # it is a constant
    name = f"{CLASSIFIER}.{_OWN}.{place}"
    made = numpy_helper.from_array(values.astype(old.dtype), name)
    kept = [one for one in graph.graph.initializer if one.name != name]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend([*kept, made])
    node.input[place] = name
    drop_unread(graph.graph)


def _put(graph: ModelProto, tensor: TensorProto, values: NDArray[np.generic]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    kept = [value for value in graph.graph.value_info if value.name != tensor.name]
    if len(kept) < len(graph.graph.value_info):  # it may say the shape of before
        del graph.graph.value_info[:]
        graph.graph.value_info.extend(kept)
