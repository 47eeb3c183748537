"""What goes into an engine and what comes out, checked in one place for all engines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.errors import BundleError, InputError, SettingsError
from hvq_edge.run.tiling import FrameShape
from hvq_edge.runtime.engine import EngineInfo, EngineOutput, Frames

FRAMES = "frames"
CATEGORY = "category"
MARGIN = "margin"
_OUTPUTS = ("score", "map", "codes")


@dataclass(frozen=True)
class Graph:
    """An exported ONNX graph, and what its bundle says of it."""

    file: Path
    """Where it stands, for messages; it is read where ``content`` is not given."""
    precision: str
    """What it was exported as."""
    frame_shape: FrameShape
    categories: tuple[str, ...]
    """Names in the order of the category index."""
    category_mode: CategoryMode
    content: bytes | None = None
    """Its bytes as they were checked (:meth:`hvq_edge.bundle.opened.Bundle.read`)."""
    sha256: str = ""
    """Of these; empty: nothing that is made of them is kept."""

    def load(self) -> bytes:
        """Return its bytes."""
        return self.file.read_bytes() if self.content is None else self.content

    def info(self, backend: str, device: str) -> EngineInfo:
        """Return what an engine that runs it says of itself."""
        return EngineInfo(
            backend=backend,
            precision=self.precision,
            device=device,
            frame_shape=self.frame_shape,
            categories=self.categories,
            category_mode=self.category_mode,
        )


def graph_inputs(mode: CategoryMode) -> tuple[str, ...]:
    """Return the names of an exported graph's inputs (docs/explanation/architecture.md)."""
    return (FRAMES, CATEGORY) if mode == "input" else (FRAMES,)


def graph_outputs(mode: CategoryMode) -> tuple[str, ...]:
    """Return the names of an exported graph's outputs (docs/explanation/architecture.md)."""
    return (*_OUTPUTS, CATEGORY, MARGIN) if mode == "auto" else _OUTPUTS


def check_graph(
    model_file: Path,
    inputs: Mapping[str, Sequence[object]],
    outputs: Collection[str],
    mode: CategoryMode,
    frame_shape: FrameShape,
) -> None:
    """Check that a loaded graph has the inputs and outputs of its category mode.

    Args:
        model_file: for the message.
        inputs: shape of each input by name; sizes that are not fixed may be anything.
        outputs: names.
        mode: category mode that the bundle says.
        frame_shape: height and width of a frame that the bundle says.

    Raises:
        BundleError: it is another graph than the bundle says.
    """
    for kind, found, wanted in (
        ("inputs", inputs, graph_inputs(mode)),
        ("outputs", outputs, graph_outputs(mode)),
    ):
        if set(found) != set(wanted):
            raise BundleError(
                f"{model_file} is not a graph of category mode {mode}: its {kind} are "
                f"{', '.join(sorted(found)) or 'none'}, expected {', '.join(sorted(wanted))}.",
                next_step="run hvq-edge export again",
            )
    shape = list(inputs[FRAMES])
    height, width = frame_shape
    if shape[1:] != [height, width, 3] or isinstance(shape[0], int):
        raise BundleError(
            f"{model_file} takes frames of {shape}, expected [batch, {height}, {width}, 3].",
            next_step="run hvq-edge export again",
        )


def check_threads(threads: int | None) -> None:
    """Check a number of threads; ``None`` leaves it to the library.

    Raises:
        SettingsError: less than one.
    """
    if threads is not None and threads < 1:
        raise SettingsError(
            f"threads: {threads} is less than 1.", next_step="give 1 or more, or leave it out"
        )


def check_frames(frames: NDArray[Any], info: EngineInfo) -> Frames:
    """Check a batch of frames.

    Args:
        frames: uint8 ``[batch, height, width, 3]``, RGB.
        info: the engine that is to judge them.

    Returns:
        The same frames, C-contiguous (copied only where they were not).

    Raises:
        InputError: not an array, another dtype or shape, or an empty batch.
    """
    height, width = info.frame_shape
    if not isinstance(frames, np.ndarray):
        raise InputError(
            f"frames are a {type(frames).__name__}; expected a numpy array, "
            f"uint8 [batch, {height}, {width}, 3].",
            next_step="stack single frames with numpy.stack",
        )
    if frames.dtype != np.uint8 or frames.shape[1:] != (height, width, 3) or not len(frames):
        raise InputError(
            f"frames are {frames.dtype} {list(frames.shape)}; expected uint8 "
            f"[batch, {height}, {width}, 3] with at least one frame.",
            next_step="resize them, or let hvq_edge.inspect do it: it takes images of any size",
        )
    return np.ascontiguousarray(frames)


def check_category(category: NDArray[Any], batch: int, info: EngineInfo) -> NDArray[np.int32]:
    """Check the category index of each frame of a batch.

    Args:
        category: any integer dtype, ``[batch]``, each from 0 to the number of categories - 1.
        batch: number of frames.
        info: the engine that is to judge them.

    Returns:
        int32 ``[batch]``, C-contiguous.

    Raises:
        InputError: not an integer array of this shape, or an index out of range.
    """
    if (
        not isinstance(category, np.ndarray)
        or not np.issubdtype(category.dtype, np.integer)
        or category.shape != (batch,)
    ):
        got = (
            f"{category.dtype} {list(category.shape)}"
            if isinstance(category, np.ndarray)
            else f"a {type(category).__name__}"
        )
        raise InputError(f"category is {got}; expected int32 [{batch}], one index a frame.")
    known = len(info.categories)
    wrong = category[(category < 0) | (category >= known)]
    if wrong.size:
        names = ", ".join(f"{index} {name}" for index, name in enumerate(info.categories))
        raise InputError(
            f"category index {wrong[0]} is out of range: the model has {known} "
            f"{'categories' if known > 1 else 'category'}.",
            next_step=f"use one of: {names}",
        )
    return np.ascontiguousarray(category, dtype=np.int32)


def graph_feed(
    frames: NDArray[Any], category: NDArray[Any] | None, info: EngineInfo
) -> dict[str, NDArray[Any]]:
    """Check a batch and return it under the input names of an exported graph.

    Raises:
        InputError: see :func:`check_frames` and :func:`check_category`; or a category is missing
            with mode ``input``, or given to a graph that has no such input.
    """
    checked = check_frames(frames, info)
    if info.category_mode == "input":
        if category is None:
            raise InputError(
                "this graph needs the category of each frame (category mode input).",
                next_step="pass category=, or open the engine with category=NAME",
            )
        return {FRAMES: checked, CATEGORY: check_category(category, len(checked), info)}
    if category is not None:
        fixed = "serves one category" if info.category_mode == "one" else "chooses it itself"
        raise InputError(
            f"a category was given, but this graph {fixed} (category mode {info.category_mode}).",
            next_step="leave it out, or run hvq-edge export --category input",
        )
    return {FRAMES: checked}


def graph_result(
    results: Mapping[str, NDArray[Any]], feed: Mapping[str, NDArray[Any]], info: EngineInfo
) -> EngineOutput:
    """Complete a graph's outputs to the arrays that every engine returns.

    Args:
        results: outputs by name; not referenced afterwards by the runtime.
        feed: what :func:`graph_feed` gave.
        info: the engine.
    """
    margin = np.full(len(feed[FRAMES]), np.inf, dtype=np.float32)
    if info.category_mode == "auto":
        category, margin = results[CATEGORY], results[MARGIN]
    elif info.category_mode == "input":
        category = feed[CATEGORY].copy()  # the caller may reuse the array it gave
    else:
        category = np.zeros(len(feed[FRAMES]), dtype=np.int32)
    return EngineOutput(
        score=results["score"],
        map=results["map"],
        codes=results["codes"],
        category=category,
        margin=margin,
    )


def closed_error() -> InputError:
    """Return the error for a run on a closed engine."""
    return InputError("the engine is closed.", next_step="open it again")


def run_error(info: EngineInfo, error: Exception) -> BundleError:
    """Return the error for a graph that loads and then fails on a batch."""
    why = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return BundleError(
        f"the {info.precision} graph fails while it runs on {info.device}: {why}.",
        next_step="try another engine with --backend; if that fails too, run hvq-edge export again",
    )
