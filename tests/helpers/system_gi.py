"""Debian's PyGObject for a Python that does not see the system's packages, and for nothing else.

A virtual environment made with ``--system-site-packages`` has it; that of the tests has not. All of
the system's packages would hide newer ones: a folder with ``gi`` alone is put in front.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_SYSTEM = Path("/usr/lib/python3/dist-packages/gi")


def _folder() -> str:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    if _SYSTEM.is_dir():
        (Path(folder) / "gi").symlink_to(_SYSTEM)
    return folder


FOLDER = _folder()
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(filter(None, (FOLDER, os.environ.get("PYTHONPATH"))))}
"""For a command that is to see it."""


def lacks(package: str, name: str, version: str) -> str:
    """Why a library cannot be used in tests; empty where it can."""
    code = f"import gi; gi.require_version({name!r}, {version!r}); from gi.repository import {name}"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    if done.returncode:
        return f"python3-gi of this Python's version, or {package}, is not installed"
    return ""


def seen(monkeypatch) -> None:
    """Let this process see it until the test ends; what is loaded stays loaded."""
    monkeypatch.syspath_prepend(FOLDER)
