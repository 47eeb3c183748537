"""The INT8 form of a graph: ranges and weight steps from calibration images, then Q/DQ pairs."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx

from hvq_edge.calibration.quantise import activations_of, candidates_of, layers_of, quantise_graph
from hvq_edge.calibration.ranges.amax import Method
from hvq_edge.calibration.ranges.measure import MeasuredRanges, measure_ranges
from hvq_edge.calibration.ranges.range_cache import cached_ranges, key_of
from hvq_edge.calibration.weights.bias_correction import correct_biases
from hvq_edge.calibration.weights.gptq import round_weights
from hvq_edge.calibration.weights.relu6_centring import centre_clips
from hvq_edge.common.atomic import sha256_of
from hvq_edge.common.progress import ProgressCallback, silent

DEFAULT_METHOD: Method = "mse"
"""That whose scores and maps agreed best with float32 (docs/precision.md)."""


def measure(
    source: Path,
    frames: Sequence[Path],
    side: int,
    categories: Sequence[int] | None = None,
    on_progress: ProgressCallback = silent,
    *,
    method: Method = DEFAULT_METHOD,
    cache: Path | None = None,
) -> MeasuredRanges:
    """Measure the ranges of every tensor that some plan could round, and round every weight.

    Args:
        source: float32 graph that :func:`hvq_edge.export.graph.onnx_graph.export_graph` wrote.
        frames: calibration images, the most different first.
        side: side of the graph's input in pixels.
        categories: category index of each image, for a graph with a ``category`` input.
        on_progress: called after each batch of images.
        method: how ranges are chosen.
        cache: folder in which measurements are kept; ``None``: nowhere.

    Raises:
        InputError: no images, or a value in the graph is not finite on one.
        ImageError: a calibration image cannot be read.
    """
    graph = onnx.load(source)
    candidates = candidates_of(graph)
    tensors = activations_of(graph, candidates)

    def anew() -> MeasuredRanges:
        with tempfile.TemporaryDirectory() as scratch:
            centred = Path(scratch) / source.name
            onnx.save(centre_clips(graph), centred)
            found = measure_ranges(
                centred,
                tensors,
                frames,
                side,
                categories=categories,
                method=method,
                on_progress=on_progress,
            )
            steps = round_weights(
                centred,
                candidates,
                frames[: found.images],
                side,
                categories=None if categories is None else categories[: found.images],
                on_progress=on_progress,
            )
        return found.model_copy(update={"steps": {name: s.tobytes() for name, s in steps.items()}})

    if cache is None:
        return anew()
    digests = [sha256_of(path) for path in frames if path.is_file()]
    return cached_ranges(cache, key_of(source, tensors, digests, categories, method), anew)


def rounded(
    graph: onnx.ModelProto, measured: MeasuredRanges, layers: Collection[str]
) -> onnx.ModelProto:
    """Return a graph with ``layers`` in int8, their clips centred and their biases corrected.

    Args:
        graph: float32.
        measured: of this very graph, from :func:`measure`.
        layers: names of the nodes to quantise.

    Raises:
        InputError: a layer is not in the graph, or a tensor it reads has no range.
    """
    centred = centre_clips(graph, layers)
    weights = {tensor.name: tensor for tensor in centred.graph.initializer}
    shapes = {
        node.name: tuple(weights[node.input[1]].dims)
        for node in centred.graph.node
        if node.name in measured.steps
    }
    steps = {
        name: np.frombuffer(measured.steps[name], np.int8).reshape(shape)
        for name, shape in shapes.items()
    }
    made = quantise_graph(centred, measured.ranges, layers, steps)
    correct_biases(centred, made, measured.means, layers)
    return made


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
    """Write the INT8 form of a float32 graph, with the layers in int8 that usually bear it.

    Takes and raises what :func:`measure` does; ``target`` is the file to write.

    Returns:
        The ranges, and how many images they took.
    """
    measured = measure(source, frames, side, categories, on_progress, method=method)
    graph = onnx.load(source)
    onnx.save(rounded(graph, measured, layers_of(graph)), target)
    return measured
