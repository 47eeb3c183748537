"""The INT8 form of a graph: ranges and int8 weights from calibration images, then Q/DQ pairs."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx

from hvq_edge.calibration.quantise import activations_of, quantisable_nodes, quantise_graph
from hvq_edge.calibration.ranges.amax import RangeMethod
from hvq_edge.calibration.ranges.measure import (
    MeasuredRanges,
    cached_ranges,
    measure_ranges,
    ranges_key,
)
from hvq_edge.calibration.weights.bias_correction import correct_biases
from hvq_edge.calibration.weights.gptq import gptq_weights
from hvq_edge.calibration.weights.relu6_centring import centre_relu6
from hvq_edge.common.atomic import sha256_of
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.run.tiling import FrameSize

DEFAULT_METHOD: RangeMethod = "mse"
"""Its scores and maps agreed best with float32 (docs/explanation/precision.md)."""


def calibrate_graph(
    source: Path,
    frames: Sequence[Path],
    size: FrameSize,
    categories: Sequence[int] | None = None,
    on_progress: ProgressCallback = silent,
    *,
    method: RangeMethod = DEFAULT_METHOD,
    cache: Path | None = None,
) -> MeasuredRanges:
    """Measure the range of every tensor that int8 could take, and quantise every weight.

    Args:
        source: float32 graph that :func:`hvq_edge.export.graph.onnx_graph.export_graph` wrote.
        frames: calibration images, the most different first.
        size: of the graph's input in pixels.
        categories: category index of each image, for a graph with a ``category`` input.
        on_progress: called after each batch of images.
        method: how ranges are chosen.
        cache: folder in which measurements are kept; ``None``: nowhere.

    Raises:
        InputError: no images, or a value in the graph is not finite on one.
        ImageError: a calibration image cannot be read.
    """
    graph = onnx.load(source)
    candidates = quantisable_nodes(graph)
    tensors = activations_of(graph, candidates)

    def measure() -> MeasuredRanges:
        with tempfile.TemporaryDirectory() as scratch:
            centred = Path(scratch) / source.name
            onnx.save(centre_relu6(graph), centred)
            found = measure_ranges(
                centred,
                tensors,
                frames,
                size,
                categories=categories,
                method=method,
                on_progress=on_progress,
            )
            weights = gptq_weights(
                centred,
                candidates,
                frames[: found.images],
                size,
                categories=None if categories is None else categories[: found.images],
                on_progress=on_progress,
            )
        stored = {name: weight.tobytes() for name, weight in weights.items()}
        return found.model_copy(update={"quantised_weights": stored})

    if cache is None:
        return measure()
    digests = [sha256_of(path) for path in frames if path.is_file()]
    return cached_ranges(cache, ranges_key(source, tensors, digests, categories, method), measure)


def to_int8(
    graph: onnx.ModelProto, measured: MeasuredRanges, layers: Collection[str]
) -> onnx.ModelProto:
    """Return a graph with layers in int8, their ReLU6 centred and their biases corrected.

    Args:
        graph: the float32 graph; it is not changed.
        measured: what :func:`calibrate_graph` measured on this very graph.
        layers: names of the nodes to quantise.

    Raises:
        InputError: a layer is not in the graph, or a tensor it reads has no range.
    """
    centred = centre_relu6(graph, layers)
    constants = {tensor.name: tensor for tensor in centred.graph.initializer}
    stored = measured.quantised_weights
    weights = {
        node.name: np.frombuffer(stored[node.name], np.int8).reshape(constants[node.input[1]].dims)
        for node in centred.graph.node
        if node.name in stored
    }
    made = quantise_graph(centred, measured.ranges, layers, weights)
    correct_biases(centred, made, measured.means, layers)
    return made
