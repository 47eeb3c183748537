"""hvq-edge: from a folder of good product photos to an INT8 engine watching a camera.

The whole public API is here; everything else may change without notice. Names load what they need
on first use, so ``import hvq_edge`` itself costs nothing.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from hvq_edge.errors import HvqEdgeError

if TYPE_CHECKING:
    from hvq_edge.evaluation.evaluate_target import evaluate_target as evaluate
    from hvq_edge.export.export_bundle import export_bundle
    from hvq_edge.model.checkpoint import load_model
    from hvq_edge.predict.predictor import Predictor, load
    from hvq_edge.predict.result import Result
    from hvq_edge.runtime.open_engine import open_engine
    from hvq_edge.stream.inspection import inspect
    from hvq_edge.training.train import train
    from hvq_edge.verdict.decision import Decision

    __version__: str

# OpenCV and its FFmpeg write complaints straight to standard error, beside our own message and
# across the live display, and read the level once, as they load: every module passes here before.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# Both engines report their use to their makers unless told otherwise, OpenVINO as it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if not installed

__all__ = [
    "Decision",
    "HvqEdgeError",
    "Predictor",
    "Result",
    "__version__",
    "evaluate",
    "export_bundle",
    "inspect",
    "load",
    "load_model",
    "open_engine",
    "train",
]

_HOMES = {
    "Decision": "hvq_edge.verdict.decision.Decision",
    "Predictor": "hvq_edge.predict.predictor.Predictor",
    "Result": "hvq_edge.predict.result.Result",
    "evaluate": "hvq_edge.evaluation.evaluate_target.evaluate_target",
    "export_bundle": "hvq_edge.export.export_bundle.export_bundle",
    "inspect": "hvq_edge.stream.inspection.inspect",
    "load": "hvq_edge.predict.predictor.load",
    "load_model": "hvq_edge.model.checkpoint.load_model",
    "open_engine": "hvq_edge.runtime.open_engine.open_engine",
    "train": "hvq_edge.training.train.train",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name == "__version__":
        from importlib.metadata import version

        return version("hvq-edge")
    if name in _HOMES:
        from importlib import import_module

        home, _, own_name = _HOMES[name].rpartition(".")
        return getattr(import_module(home), own_name)
    raise AttributeError(f"module 'hvq_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
