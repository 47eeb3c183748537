"""The INT8 form of a graph: its ranges measured on calibration pictures, then its Q/DQ pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from hvq_edge.calibration.quantise import activations_of, layers_of, quantise_graph
from hvq_edge.calibration.range_methods import Method
from hvq_edge.calibration.ranges import MeasuredRanges, measure_ranges
from hvq_edge.progress import ProgressCallback, silent

DEFAULT_METHOD: Method = "mse"
"""That whose scores and maps agreed best with float32 (docs/precision.md)."""


def quantise(
    source: Path,
    target: Path,
    frames: Sequence[Path],
    side: int,
    categories: Sequence[int] | None = None,
    on_progress: ProgressCallback = silent,
    *,
    method: Method = DEFAULT_METHOD,
) -> MeasuredRanges:
    """Write the INT8 form of a float32 graph.

    Args:
        source: float32 graph that :func:`hvq_edge.export.onnx_graph.export_graph` wrote.
        target: the file to write.
        frames: calibration pictures, the most different first.
        side: side of the graph's input in pixels.
        categories: category index of each picture, for a graph with a ``category`` input.
        on_progress: called after each batch of pictures.
        method: how ranges are chosen.

    Returns:
        The ranges, and how many pictures they took.

    Raises:
        InputError: no pictures, or a value in the graph is not finite on one.
        PictureError: a calibration picture cannot be read.
    """
    graph = onnx.load(source)
    layers = layers_of(graph)
    measured = measure_ranges(
        source,
        activations_of(graph, layers),
        frames,
        side,
        categories=categories,
        method=method,
        on_progress=on_progress,
    )
    onnx.save(quantise_graph(graph, measured.ranges, layers), target)
    return measured
