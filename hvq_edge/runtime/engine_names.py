"""The names of backends and precisions, as users give them."""

from __future__ import annotations

from typing import Literal, get_args

from hvq_edge.bundle.precision import PRECISIONS, Precision
from hvq_edge.errors import SettingsError
from hvq_edge.runtime.choice.measured_choice import GraphBackend
from hvq_edge.runtime.tensorrt.engine_file import EngineBackend

Backend = Literal[GraphBackend, "torch", EngineBackend]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
AUTO = "auto"


def known_precisions(name: str) -> tuple[Precision, ...]:
    """Return the one precision of a name; none for ``auto``.

    Raises:
        SettingsError: an unknown one.
    """
    return () if name == AUTO else (known_precision(name),)


def known_precision(name: str) -> Precision:
    """Return the precision of a name.

    Raises:
        SettingsError: an unknown one.
    """
    for precision in PRECISIONS:
        if name == precision:
            return precision
    raise SettingsError(
        f"precision {name!r} is none of {', '.join((AUTO, *PRECISIONS))}.",
        next_step="use one of these names",
    )


def unknown_backend(backend: str) -> SettingsError:
    """Return the error for a backend of another name."""
    return SettingsError(
        f"backend {backend!r} is none of {', '.join((AUTO, *BACKENDS))}.",
        next_step="use one of these names",
    )
