"""Lint rules: nothing superfluous in a file, nothing broken, nothing of who made it."""

from __future__ import annotations

import contextlib
import getpass
import re
import socket
from collections.abc import Iterator
from hashlib import sha256

import numpy as np
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data

from hvq_edge.export.graph.view import GraphView, attributes
from hvq_edge.export.lint.rule import Hits, rule, type_name

LARGEST_FILE = 2**31 - 1
DUPLICATE_BYTES = 1024


@rule(
    "A bundle's hashes cover the files it names; weights in a file beside the graph are lost when "
    "somebody copies the graph alone."
)
def no_external_data(graph: GraphView) -> Hits:
    """Weights are in the graph's own file."""
    for name, tensor in graph.initialisers.items():
        if uses_external_data(tensor):
            yield name, "is kept in another file"


@rule("protobuf reads no message beyond 2 GB.")
def file_size(graph: GraphView) -> Hits:
    """The file is smaller than 2 GB."""
    size = graph.model.ByteSize()
    if size > LARGEST_FILE:
        yield "", f"{size / 1e9:.2f} GB"


@rule(
    "Netron, the engines' profiles and the INT8 plan name layers by these; 'Add_217' says nothing, "
    "and with a name twice an exclusion takes two nodes or the wrong one.",
    "warning",
)
def node_names(graph: GraphView) -> Hits:
    """Every node is named after its module and operator, ``encoder.0.norm1/LayerNormalization``."""
    seen: set[str] = set()
    for node in graph.nodes:
        if not re.fullmatch(rf"\w+(\.\w+)*/{re.escape(node.op_type)}(_\d+)?", node.name):
            yield node.name or node.output[0], f"is a {node.op_type} and not named MODULE/OPERATOR"
        elif node.name in seen:
            yield node.name, "is the name of another node as well"
        seen.add(node.name)


@rule("The same table twice costs its size again on disk and on the device.", "warning")
def duplicate_constants(graph: GraphView) -> Hits:
    """No two constants above 1 kB with the same content."""
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in graph.initialisers.items():
        value = graph.constant(name)
        if value is None or value.nbytes <= DUPLICATE_BYTES:
            continue
        key = (tensor.data_type, value.shape, sha256(value.tobytes()).digest())
        if first.setdefault(key, name) != name:
            yield name, f"has the content of {first[key]}, {value.nbytes / 1e3:.1f} kB"


@rule("Dead weight: it is shipped, hashed and loaded, and no engine reads it.", "warning")
def unused_constants(graph: GraphView) -> Hits:
    """Every constant is read."""
    for name in graph.initialisers:
        if name not in graph.readers and name not in graph.outputs:
            yield name, "is read by no node"


@rule("Dead nodes hide what the graph does; not every engine removes them.", "warning")
def unread_nodes(graph: GraphView) -> Hits:
    """Every node has an output that is read."""
    for node in graph.nodes:
        if not any(name in graph.readers or name in graph.outputs for name in node.output):
            yield node.name, f"{node.op_type} is read by no node"


@rule("Each is a copy in some engine, and stands between operators that would be fused.", "warning")
def idle_nodes(graph: GraphView) -> Hits:
    """No Identity, no Dropout, no Cast to the type that is there already."""
    for node in graph.nodes:
        if node.op_type in ("Identity", "Dropout"):
            yield node.name, f"{node.op_type} does nothing"
        elif node.op_type == "Cast" and graph.types.get(node.input[0]) == attributes(node)["to"]:
            yield node.name, f"{node.input[0]} is {type_name(attributes(node)['to'])} already"


@rule(
    "What depends on weights alone is worked out at export, once, and not by each engine in its "
    "own order; axes, shapes and bounds the parser wants as initialisers, not as a node's output."
)
def folded_constants(graph: GraphView) -> Hits:
    """No node reads constants only, but for the Q/DQ pairs of weights."""
    for node in graph.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") and not any(
            name in graph.depends_on_input for name in node.input
        ):
            yield node.name, f"{node.op_type} reads constants only"


@rule("One NaN or infinity reaches every score; engines differ in what becomes of it.")
def finite_constants(graph: GraphView) -> Hits:
    """No NaN and no infinity in any constant."""
    for name, tensor in graph.initialisers.items():
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            continue
        value = graph.constant(name)
        if value is not None and not np.isfinite(value).all():
            wrong = int(value.size - np.isfinite(value).sum())
            yield name, f"{wrong} of {value.size} elements are NaN or infinite"


@rule(
    "Files go to customers: paths and names of their makers are nobody's business, and make "
    "the same weights export to different bytes."
)
def no_traces(graph: GraphView) -> Hits:
    """No absolute path, user name or machine name in texts and metadata."""
    me = _own_names()
    for where, text in _texts(graph):
        found = _PATH.search(text)
        if found:
            yield where, f"has the path {found.group().strip()}"
        elif me and (name := me.search(text)):
            yield where, f"has this user's or machine's name: {name.group()}"


# An absolute path of two parts or more, not the middle of a relative one or of a web address.
_PATH = re.compile(r"(?<![\w./:])/[\w.@+-]+(?:/[\w.@+-]+)+|\b[A-Za-z]:\\\S+|\\\\\w[\w.-]*\\\S+")


def _own_names() -> re.Pattern[str] | None:
    names = {socket.gethostname()}
    with contextlib.suppress(OSError, KeyError, ImportError):  # a container's nameless user
        names.add(getpass.getuser())
    # Short names and names that every machine has are words of any text.
    told = sorted(re.escape(name) for name in names - {"root", "localhost"} if len(name) > 2)
    return re.compile(rf"(?<!\w)(?:{'|'.join(told)})(?!\w)") if told else None


def _texts(graph: GraphView) -> Iterator[tuple[str, str]]:
    """All free text of a file, with the node or value it belongs to."""
    model = graph.model
    holders = [("", model), ("", model.graph), *((f.name, f) for f in model.functions)]
    holders += [(node.name, node) for node in graph.nodes]
    held = model.graph
    holders += [(v.name, v) for v in (*held.input, *held.output, *held.value_info)]
    holders += [(tensor.name, tensor) for tensor in held.initializer]
    for where, holder in holders:
        yield where, holder.doc_string
        for entry in holder.metadata_props:
            yield where, f"{entry.key}: {entry.value}"
    for text in (model.producer_name, model.producer_version, model.domain, held.name):
        yield "", text
    for node in graph.nodes:
        for attribute in node.attribute:
            yield node.name, attribute.doc_string
            if attribute.type == attribute.STRING:
                yield node.name, attribute.s.decode(errors="replace")


RULES = (
    no_external_data,
    file_size,
    node_names,
    duplicate_constants,
    unused_constants,
    unread_nodes,
    idle_nodes,
    folded_constants,
    finite_constants,
    no_traces,
)
