"""hvq-edge: from a folder of good product photos to an INT8 engine watching a camera.

The whole public API is here; everything else may change without notice. Names load what they need
on first use, so ``import hvq_edge`` itself costs nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hvq_edge.errors import HvqEdgeError

if TYPE_CHECKING:
    from hvq_edge.model.checkpoint import load_model
    from hvq_edge.predict.predictor import Predictor, load
    from hvq_edge.predict.result import Result
    from hvq_edge.runtime.open_engine import open_engine
    from hvq_edge.stream.inspection import inspect
    from hvq_edge.verdict.decision import Decision

    __version__: str

# OpenCV and its FFmpeg write complaints straight to standard error, beside our own message and
# across the live display, and read the level once, as they load: every module passes here before.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

__all__ = [
    "Decision",
    "HvqEdgeError",
    "Predictor",
    "Result",
    "__version__",
    "inspect",
    "load",
    "load_model",
    "open_engine",
]

_HOMES = {
    "Decision": "hvq_edge.verdict.decision",
    "Predictor": "hvq_edge.predict.predictor",
    "Result": "hvq_edge.predict.result",
    "inspect": "hvq_edge.stream.inspection",
    "load": "hvq_edge.predict.predictor",
    "load_model": "hvq_edge.model.checkpoint",
    "open_engine": "hvq_edge.runtime.open_engine",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name == "__version__":
        from importlib.metadata import version

        return version("hvq-edge")
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hvq_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
