"""Libraries of the system that PyGObject (``gi``) makes Python's: Aravis and GStreamer.

No wheel on PyPI brings them; Debian, Ubuntu and JetPack do, and a virtual environment sees them
when it is made with ``--system-site-packages``.
"""

from __future__ import annotations

import importlib
from typing import Any

from hvq_edge.errors import MissingCapability

_VENV = "a virtual environment sees it when made with python3 -m venv --system-site-packages"


def system_library(name: str, version: str, package: str) -> Any:  # noqa: ANN401  # without types
    """Import a library.

    Args:
        name: of its namespace, as in ``gi.repository``.
        version: of its interface.
        package: of Debian and Ubuntu that brings it.

    Raises:
        MissingCapability: PyGObject or the library is not there.
    """
    try:
        gi = importlib.import_module("gi")
        gi.require_version(name, version)
        return importlib.import_module(f"gi.repository.{name}")
    except ImportError as error:
        lacking = f"PyGObject, which this Python lacks ({error})"
    except ValueError as error:  # how require_version says that there is no such library
        lacking = f"a library that this system lacks ({error})"
    raise MissingCapability(
        f"{name} is read through {lacking}.",
        next_step=f"sudo apt install python3-gi {package}; {_VENV}",
    )
