"""ReLU6 moved to the middle of int8's range: ``0 .. 6`` becomes ``-3 .. 3``, at no cost.

Symmetric int8 has 127 steps for values that are never negative and 254 for values on both sides of
zero. A ReLU6 between two convolutions can be moved: half its bound is taken off the first one's
bias, and what that takes off every input of the second one goes into the second one's bias. In real
arithmetic the result is the same. The second convolution must not pad: its border would need a
bias of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from hvq_edge.export.graph.view import GraphView, attributes, drop_unread


class _Site(NamedTuple):
    """A ReLU6 (Clip at 0 and a bound) between two convolutions, with no other reader."""

    first: NodeProto
    clip: NodeProto
    second: NodeProto
    bound: float


def centre_relu6(graph: ModelProto, layers: Collection[str] | None = None) -> ModelProto:
    """Return a graph whose ReLU6 before unpadded convolutions are centred; ``graph`` is kept.

    Args:
        graph: float32, without Q/DQ pairs.
        layers: names of the second convolutions whose input may be moved; ``None``: all.
    """
    made = ModelProto()
    made.CopyFrom(graph)
    body = made.graph
    constants = {tensor.name: tensor for tensor in body.initializer}

    def value(name: str) -> NDArray[np.float32]:
        return np.asarray(numpy_helper.to_array(constants[name]), np.float32)

    def stored(name: str, array: NDArray[Any] | float) -> str:
        if name not in constants:
            constants[name] = numpy_helper.from_array(np.asarray(array, np.float32), name)
            body.initializer.append(constants[name])
        return name

    for site in list(_sites(GraphView(made))):
        if layers is not None and site.second.name not in layers:
            continue
        first, clip, second, bound = site
        module = clip.name.partition("/")[0]
        total = value(second.input[1]).astype(np.float64).sum((1, 2, 3))
        before = value(second.input[2]) if len(second.input) > 2 else 0.0
        first.input[2] = stored(f"{module}.moved_bias", value(first.input[2]) - bound / 2)
        clip.input[1] = stored(f"clip_at.{-bound / 2:g}", -bound / 2)
        clip.input[2] = stored(f"clip_at.{bound / 2:g}", bound / 2)
        del second.input[2:]
        name = second.name.partition("/")[0]
        second.input.append(stored(f"{name}.moved_bias_back", before + total * (bound / 2)))
    drop_unread(body)
    return made


def _sites(graph: GraphView) -> Iterator[_Site]:
    constants = graph.initialisers
    for clip in graph.nodes:
        if clip.op_type != "Clip" or len(clip.input) != 3:
            continue
        first, following = graph.writers.get(clip.input[0]), graph.readers[clip.output[0]]
        between = (clip.input[0], clip.output[0])
        alone = all(len(graph.readers[name]) == 1 and name not in graph.outputs for name in between)
        if first is None or not alone or not all(name in constants for name in clip.input[1:]):
            continue
        low, high = (float(numpy_helper.to_array(constants[name])) for name in clip.input[1:])
        has_bias = first.op_type == "Conv" and len(first.input) > 2 and first.input[2] in constants
        if has_bias and _can_take(following[0], constants) and low == 0 and np.isfinite(high):
            yield _Site(first, clip, following[0], high)


def _can_take(node: NodeProto, constants: Collection[str]) -> bool:
    """Whether a node is a convolution without padding whose weight and bias are constants."""
    if node.op_type != "Conv" or not all(name in constants for name in node.input[1:]):
        return False
    given = attributes(node)
    padded = given.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return not padded and not any(given.get("pads", ()))
