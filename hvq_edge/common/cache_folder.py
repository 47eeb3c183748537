"""The folder for what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """Return the folder for what can be made again: ``$XDG_CACHE_HOME/hvq-edge``.

    ``~/.cache/hvq-edge`` where the variable is unset or not absolute, as the XDG base directory
    specification says.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "hvq-edge"
