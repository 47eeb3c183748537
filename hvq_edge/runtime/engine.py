"""The engine protocol: something that maps a batch of frames to maps and scores.

Everything downstream of a model (inspector, evaluation, thresholds) sees only this.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.run.tiling import FrameShape

Frames = NDArray[np.uint8]
"""uint8 ``[batch, height, width, 3]``, RGB, as :func:`hvq_edge.data.images.fit_image` gives."""


class EngineOutput(TypedDict):
    """What every engine returns, numpy arrays: docs/explanation/architecture.md, the contract."""

    score: NDArray[np.float32]
    """``[batch]``; larger is more anomalous."""
    map: NDArray[np.float32]
    """``[batch, height / 16, width / 16]``."""
    codes: NDArray[np.int32]
    """``[batch, levels, tokens]``; level i quantises encoder output i, the last the top."""
    category: NDArray[np.int32]
    """``[batch]``: the category index each frame was judged as, given or chosen."""
    margin: NDArray[np.float32]
    """``[batch]``: the out-of-distribution margin: 1 for a frame at its category's centre, 0 as far
    off as a part of it may be, below 0 for a frame that shows none of the categories; infinite
    where the category was given."""


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is."""

    backend: str
    """``openvino``, ``onnxruntime``, ``torch``, ..."""
    precision: str
    device: str
    """The processor or GPU and the library's version, in words for reports."""
    frame_shape: FrameShape
    categories: tuple[str, ...]
    category_mode: CategoryMode
    plan_sha256: str = ""
    """Of the engine's file, or of the kept compiled graph; empty where the bundle's graph was
    loaded."""


class Engine(Protocol):
    """Maps frames to maps and scores."""

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        ...

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch.

        Args:
            frames: uint8 ``[batch, height, width, 3]``, RGB.
            category: int32 ``[batch]``, needed with category mode ``input`` only.

        Raises:
            InputError: frames of another shape or dtype, or ``category`` missing or out of range.
        """
        ...

    def close(self) -> None:
        """Free the engine's memory; calling it twice is fine."""
        ...

    def __enter__(self) -> Engine:
        """Give the engine; it is closed at the end of the ``with`` block."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
