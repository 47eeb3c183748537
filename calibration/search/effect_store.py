"""Measured effects kept on disk, so that a search that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hvq_edge.calibration.search.evidence import Effect
from hvq_edge.common.atomic import write_text

STORE_FOLDER = "int8-search"
"""Below a run's folder."""
_EFFECTS = TypeAdapter(dict[str, Effect])


class EffectStore:
    """Remembers the effect of each set of layers.

    Args:
        folder: where the file stands; made if missing.
        key: names the graph, its ranges, the evidence and the engine.
        measure: called for a set that is not known; it is never asked about the same set twice.
    """

    def __init__(
        self, folder: Path, key: str, measure: Callable[[Collection[str]], Effect]
    ) -> None:
        self._path = folder / f"{key}.json"
        self._measure = measure
        self._known: dict[str, Effect] = {}
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._known = _EFFECTS.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            self._known = {}  # not there, or torn by something else than us: measured again

    def __call__(self, layers: Collection[str]) -> Effect:
        """Return what rounding these layers changes.

        Raises:
            OutputError: the file cannot be written.
        """
        name = hashlib.sha256("\n".join(sorted(layers)).encode()).hexdigest()
        if name not in self._known:
            self._known[name] = self._measure(layers)
            write_text(self._path, _EFFECTS.dump_json(self._known, indent=1).decode() + "\n")
        return self._known[name]


def key_of(*parts: str) -> str:
    """Return a name for what effects were measured on: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
