"""The ranges of a graph's tensors on calibration images, measured once and kept beside the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from hvq_edge.calibration.ranges.amax import HistogramCollector, RangeMethod, choose_amax
from hvq_edge.common.atomic import sha256_of, write_text
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.records import Measured, kept_record
from hvq_edge.data.images import read_frame
from hvq_edge.errors import InputError
from hvq_edge.run.tiling import FrameSize

CONVERGED = 0.01
"""Ranges have converged when they move by less than this share, on average over the tensors, from
one look to the next."""
LOOK_EVERY = 16
"""Images between two looks at the ranges."""
LEAST = 32
"""This many images are read in any case, as far as there are."""
_AT_ONCE = 4
CACHE_FOLDER = "int8-ranges"
"""The folder below a run's folder in which its ranges are kept."""
_VERSION = 3
"""Raised whenever the same images and graph would give other ranges."""


class MeasuredRanges(Measured):
    """The ranges of a graph's tensors, and the images that they rest on."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    method: RangeMethod
    ranges: dict[str, float]
    """The amax of each tensor: the absolute value that int8 represents as 127."""
    images: int
    """How many images were read."""
    means: dict[str, tuple[float, ...]] = Field(default={})
    """Mean of each channel, by tensor: axis 1 of ``[b, c, h, w]``, else the last one."""
    quantised_weights: dict[str, bytes] = Field(default={})
    """The int8 weights of each layer, in the weight's order of axes
    (:mod:`hvq_edge.calibration.weights.gptq`)."""
    moved: float
    """How far the ranges moved between the last two looks at them, relative and as a mean over the
    tensors; infinite after a single look."""

    @property
    def converged(self) -> bool:
        """Whether more images would hardly move them."""
        return self.moved < CONVERGED


def measure_ranges(
    graph: Path,
    tensors: Sequence[str],
    frames: Sequence[Path],
    size: FrameSize,
    *,
    categories: Sequence[int] | None = None,
    method: RangeMethod = "minmax",
    on_progress: ProgressCallback = silent,
) -> MeasuredRanges:
    """Run a float32 graph on images until the ranges of its tensors have converged.

    Args:
        graph: the file.
        tensors: names of float32 tensors in it.
        frames: images, in the order in which they are used; the earlier, the more they should
            differ from one another.
        size: of the graph's input in pixels.
        categories: category index of each image, for a graph with a ``category`` input.
        method: see :func:`hvq_edge.calibration.ranges.amax.choose_amax`.
        on_progress: called after each batch.

    Raises:
        InputError: no images, a tensor that the graph lacks, or a value that is not finite.
        ImageError: an image cannot be read.
    """
    if not frames:
        raise InputError("INT8 ranges need at least one good image.")
    histograms = {name: HistogramCollector() for name in tensors}
    sums: dict[str, NDArray[np.float64]] = {}
    before: dict[str, float] = {}
    moved, done = float("inf"), 0
    for paths, values in values_on(graph, tensors, frames, size, categories):
        for name, value in zip(tensors, values, strict=True):
            if not np.isfinite(value).all():
                named = ", ".join(str(path) for path in paths)
                raise InputError(
                    f"the tensor {name} of {graph.name} has values that are not finite on {named}.",
                    next_step="train again; if it stays so, report it as a bug",
                )
            histograms[name].add(value)
            sums[name] = sums.get(name, 0) + _image_means(value).sum(0)
        done += len(paths)
        on_progress("INT8 ranges", done, len(frames))
        if done % LOOK_EVERY == 0 or done == len(frames):
            found = {name: choose_amax(one, method) for name, one in histograms.items()}
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
    """Return the mean of each image's channels, ``[images, channels]``."""
    channel = 1 if value.ndim == 4 else value.ndim - 1
    others = tuple(axis for axis in range(1, value.ndim) if axis != channel)
    mean: NDArray[np.float64] = value.mean(others, dtype=np.float64)
    return mean


def values_on(
    graph: Path,
    tensors: Sequence[str],
    frames: Sequence[Path],
    size: FrameSize,
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
        feed = {"frames": np.stack([read_frame(path, size) for path in paths])}
        if categories is not None:
            feed["category"] = np.array(categories[start : start + _AT_ONCE], np.int32)
        yield paths, session.run(list(tensors), feed)


def ranges_key(
    graph: Path,
    tensors: Sequence[str],
    images: Sequence[str],
    categories: Sequence[int] | None,
    method: RangeMethod,
) -> str:
    """Return the name of a measurement: 64 hexadecimal digits.

    A changed weight changes the graph's hash, and so never meets ranges of another one
    (TensorRT's calibration caches do not know what they were measured on).

    Args:
        graph: the float32 ONNX file.
        tensors: names of the measured tensors.
        images: SHA-256 of each image, in order: the order decides which ones are read.
        categories: category index of each image, for a graph with a ``category`` input.
        method: how ranges are chosen.
    """
    parts = [_VERSION, sha256_of(graph), list(tensors), list(images), categories, method]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def cached_ranges(folder: Path, key: str, measure: Callable[[], MeasuredRanges]) -> MeasuredRanges:
    """Return the ranges that were kept, or measure them and keep them.

    Args:
        folder: folder in which ranges are kept.
        key: from :func:`ranges_key`.
        measure: called where nothing is kept, or what is kept cannot be read.

    Raises:
        OutputError: they cannot be written.
    """
    path = folder / f"{key}.json"
    if (kept := kept_record(path, MeasuredRanges)) is not None:
        return kept
    found = measure()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, found.model_dump_json() + "\n")
    return found
