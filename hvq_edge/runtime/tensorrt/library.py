"""TensorRT's two libraries: which module each is, and how to get it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from hvq_edge.common.extras import pip_install
from hvq_edge.errors import MissingCapability
from hvq_edge.runtime.tensorrt.engine_file import EngineBackend

MODULES: Mapping[EngineBackend, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""The module that a backend imports."""

INSTALL: Mapping[EngineBackend, str] = {
    "tensorrt": "on a Jetson sudo apt install python3-libnvinfer, in a virtual environment made "
    f"with --system-site-packages; elsewhere {pip_install('tensorrt')}",
    "tensorrt-rtx": pip_install("rtx"),
}
"""How to get each."""


def load_backend(backend: EngineBackend) -> Any:  # noqa: ANN401
    """Import a backend's library.

    Raises:
        MissingCapability: it is not installed, or a library of its own is missing.
    """
    try:
        return importlib.import_module(MODULES[backend])
    except (ImportError, OSError) as error:
        raise MissingCapability(
            f"{MODULES[backend]} cannot be imported: {error}.", next_step=INSTALL[backend]
        ) from error
