"""How near a graph's values come to float16's largest, and which nodes must not be in float16."""

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

HEADROOM = 8.0
"""How many times larger than on the calibration images a value may become: a defect, a lamp."""
IMAGES = 32


class Fp16Range(NamedTuple):
    """The largest values of a float16 file."""

    tensor: str
    """That with the largest value; ``""``: no node is in float16."""
    largest: float
    nodes: int
    """In float16."""
    islands: tuple[str, ...]
    """Nodes that stay in float32 for their values."""

    @property
    def headroom(self) -> float:
        """How many times 65504 exceeds the largest value; infinite if there is none."""
        return FP16_MAX / self.largest if self.largest else float("inf")


def find_islands(
    graph: Path,
    frames: Sequence[Path],
    side: int,
    categories: Sequence[int] | None = None,
    on_progress: ProgressCallback = silent,
) -> Fp16Range:
    """Measure every tensor that would be float16 against 65504.

    A node that writes or reads a value within :data:`HEADROOM` of it becomes an island.

    Args:
        graph: the float32 file.
        frames: images, the most different first; :data:`IMAGES` are read.
        side: of the graph's input in pixels.
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
    largest = dict.fromkeys(tensors, 0.0)
    frames = frames[:IMAGES]
    done = 0
    for paths, values in values_on(graph, tensors, frames, side, categories):
        for name, value in zip(tensors, values, strict=True):
            # Not finite in float32: surely not in float16.
            found = np.abs(value).max(initial=0.0) if np.isfinite(value).all() else np.inf
            largest[name] = max(largest[name], float(found))
        done += len(paths)
        on_progress("float16 range", done, len(frames))
    beyond = {name for name, value in largest.items() if value * HEADROOM > FP16_MAX}
    islands = tuple(
        name for name in nodes if beyond.intersection((*by_name[name].input, *by_name[name].output))
    )
    inside = {name: value for name, value in largest.items() if name not in beyond}
    top = max(inside, key=inside.__getitem__, default="")
    return Fp16Range(top, inside.get(top, 0.0), len(nodes) - len(islands), islands)
