"""Islands: the nodes that must stay in float32, because their values come near 65504."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto

from hvq_edge.calibration.ranges.measure import values_on
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.export.fp16.convert import fp16_nodes
from hvq_edge.export.graph.view import GraphView
from hvq_edge.export.lint.precision import FP16_MAX
from hvq_edge.run.tiling import FrameSize

HEADROOM = 8.0
"""A value may become this many times larger than on the calibration images: a defect, a lamp."""
MOST_IMAGES = 32


class Fp16Range(NamedTuple):
    """Which nodes can be in float16, and the largest value among them."""

    tensor: str
    """The float16 tensor with the largest absolute value; ``""``: no node is in float16."""
    amax: float
    """The absolute value itself."""
    nodes: int
    """How many nodes are in float16."""
    islands: tuple[str, ...]
    """Nodes that stay in float32 because of their values."""


def find_islands(
    graph: Path,
    frames: Sequence[Path],
    size: FrameSize,
    categories: Sequence[int] | None = None,
    on_progress: ProgressCallback = silent,
) -> Fp16Range:
    """Measure every tensor that would be float16 against 65504.

    A node that writes or reads a value within :data:`HEADROOM` of it becomes an island.

    Args:
        graph: the float32 file.
        frames: images, the most different first; :data:`MOST_IMAGES` are read.
        size: of the graph's input in pixels.
        categories: category index of each image, for a graph with a ``category`` input.
        on_progress: called after each batch.

    Raises:
        ImageError: an image cannot be read.
    """
    model = onnx.load(graph)
    view = GraphView(model)
    nodes = fp16_nodes(model)
    by_name = {node.name: node for node in view.nodes}
    tensors = list(
        dict.fromkeys(
            tensor
            for name in nodes
            for tensor in (*by_name[name].input, *by_name[name].output)
            if tensor in view.writers and view.types.get(tensor) == TensorProto.FLOAT
        )
    )
    amax = dict.fromkeys(tensors, 0.0)
    frames = frames[:MOST_IMAGES]
    done = 0
    for paths, values in values_on(graph, tensors, frames, size, categories):
        for name, value in zip(tensors, values, strict=True):
            # Not finite in float32: surely not in float16.
            found = np.abs(value).max(initial=0.0) if np.isfinite(value).all() else np.inf
            amax[name] = max(amax[name], float(found))
        done += len(paths)
        on_progress("float16 range", done, len(frames))
    beyond = {name for name, value in amax.items() if value * HEADROOM > FP16_MAX}
    islands = tuple(
        name for name in nodes if beyond.intersection((*by_name[name].input, *by_name[name].output))
    )
    inside = {name: value for name, value in amax.items() if name not in beyond}
    top = max(inside, key=inside.__getitem__, default="")
    return Fp16Range(top, inside.get(top, 0.0), len(nodes) - len(islands), islands)
