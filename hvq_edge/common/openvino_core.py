"""OpenVINO's core, which engines and the training's feature pass share."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def openvino_core() -> Any:  # noqa: ANN401  # OpenVINO is untyped
    """Return OpenVINO's core: one for the whole process.

    The CPU plugin of a core gives the calling thread a signal stack, and at its end puts back the
    one before. Cores that end in another order than last-first leave the thread with memory that
    is freed already, and the next signal, Ctrl-C included, is a segmentation fault.
    """
    import openvino

    return openvino.Core()
