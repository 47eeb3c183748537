"""What magnitudes the tensors of a graph take on calibration images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from hvq_edge.calibration.ranges.range_methods import Magnitudes, Method, reach
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.records import Measured
from hvq_edge.data.images import read_frame
from hvq_edge.errors import InputError

CONVERGED = 0.01
"""Ranges that move by less than this share, on average over the tensors, from one step to the
next, have converged."""
STEP = 16
"""Images between two looks at the ranges."""
LEAST = 32
"""Images that are read in any case."""
_AT_ONCE = 4


class MeasuredRanges(Measured):
    """Ranges of tensors, and on what they rest."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    method: Method
    ranges: dict[str, float]
    """Largest magnitude that int8 shall represent, by tensor."""
    images: int
    """That were read."""
    means: dict[str, tuple[float, ...]] = Field(default={})
    """Mean of each channel, by tensor: axis 1 of ``[b, c, h, w]``, else the last one."""
    steps: dict[str, bytes] = Field(default={})
    """Weights in int8 steps, by layer, in the weight's order of axes
    (:mod:`hvq_edge.calibration.weights.gptq`)."""
    moved: float
    """Mean relative move of the ranges over the last step; infinite after a single step."""

    @property
    def converged(self) -> bool:
        """Whether more images would hardly move them."""
        return self.moved < CONVERGED


def measure_ranges(
    graph: Path,
    tensors: Sequence[str],
    frames: Sequence[Path],
    side: int,
    *,
    categories: Sequence[int] | None = None,
    method: Method = "minmax",
    on_progress: ProgressCallback = silent,
) -> MeasuredRanges:
    """Run a float32 graph on images until the ranges of its tensors have converged.

    Args:
        graph: the file.
        tensors: names of float32 tensors in it.
        frames: images, in the order in which they are used; the earlier, the more they should
            differ from one another.
        side: of the graph's input in pixels.
        categories: category index of each image, for a graph with a ``category`` input.
        method: see :func:`hvq_edge.calibration.ranges.range_methods.reach`.
        on_progress: called after each batch.

    Raises:
        InputError: no images, a tensor that the graph lacks, or a value that is not finite.
        ImageError: an image cannot be read.
    """
    if not frames:
        raise InputError("INT8 ranges need at least one good image.")
    magnitudes = {name: Magnitudes() for name in tensors}
    sums: dict[str, NDArray[np.float64]] = {}
    before: dict[str, float] = {}
    moved, done = float("inf"), 0
    for paths, values in values_on(graph, tensors, frames, side, categories):
        for name, value in zip(tensors, values, strict=True):
            if not np.isfinite(value).all():
                named = ", ".join(str(path) for path in paths)
                raise InputError(
                    f"the tensor {name} of {graph.name} has values that are not finite on {named}.",
                    next_step="train again; if it stays so, report it as a bug",
                )
            magnitudes[name].add(value)
            sums[name] = sums.get(name, 0) + _image_means(value).sum(0)
        done += len(paths)
        on_progress("INT8 ranges", done, len(frames))
        if done % STEP == 0 or done == len(frames):
            found = {name: reach(one, method) for name, one in magnitudes.items()}
            if before:
                moves = [abs(found[name] - old) / found[name] for name, old in before.items()]
                moved = float(np.mean(moves)) if moves else 0.0
            before = found
            if done >= LEAST and moved < CONVERGED:
                on_progress("INT8 ranges", len(frames), len(frames), f"{done} images are enough")
                break
    means = {name: tuple(float(x) for x in total / done) for name, total in sums.items()}
    return MeasuredRanges(method=method, ranges=before, images=done, means=means, moved=moved)


def _image_means(value: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean of each image's channels, ``[images, channels]``."""
    if value.ndim < 2:
        return np.zeros((len(value), 1))
    channel = 1 if value.ndim == 4 else value.ndim - 1
    others = tuple(axis for axis in range(1, value.ndim) if axis != channel)
    mean: NDArray[np.float64] = value.mean(others, dtype=np.float64)
    return mean


def values_on(
    graph: Path,
    tensors: Sequence[str],
    frames: Sequence[Path],
    side: int,
    categories: Sequence[int] | None,
) -> Iterator[tuple[Sequence[Path], list[NDArray[np.float32]]]]:
    """Yield batches of images and the values that a graph's tensors take on them.

    Raises:
        InputError: the graph lacks a tensor.
        ImageError: an image cannot be read.
    """
    import onnxruntime

    model = onnx.load(graph)
    missing = sorted(set(tensors) - {name for node in model.graph.node for name in node.output})
    if missing:
        raise InputError(f"{graph.name} has no tensors {', '.join(missing)}.")
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for start in range(0, len(frames), _AT_ONCE):
        paths = frames[start : start + _AT_ONCE]
        feed = {"frames": np.stack([read_frame(path, side) for path in paths])}
        if categories is not None:
            feed["category"] = np.array(categories[start : start + _AT_ONCE], np.int32)
        yield paths, session.run(list(tensors), feed)
