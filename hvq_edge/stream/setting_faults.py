"""What is wrong with a stream's settings, in words for whoever wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LONGEST_SHOWN = 60
"""Characters of a value in a message."""

_SECRETS = ("camera", "password", "secret", "server", "token", "url", "user")
"""Keys with one of these in them may hold credentials: their values are not shown."""
_EXPECTED = {
    r"^https?://[^/\s]+": "must begin with http:// or https://, then name a host",
    r"^opc\.tcp://[^/\s]+": "must begin with opc.tcp://, then name a host",
    r"^[^+#\s]+$": "must have neither spaces nor + nor #",
}


def faults_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return a line for each fault, without those that only follow from others.

    Args:
        error: what pydantic found.
        model: the settings that were checked; near names of unknown keys come from it.
    """
    found = error.errors()
    return [_line(fault, model) for fault in found if not _follows(fault, found)]


def _follows(fault: ErrorDetails, found: Sequence[ErrorDetails]) -> bool:
    """Tell whether a list is too short only because pydantic left out its faulty items."""
    place = fault["loc"]
    return fault["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in found
    )


def _line(fault: ErrorDetails, model: type[BaseModel]) -> str:
    place = fault["loc"]
    key = ".".join(str(part) for part in place)
    if fault["type"] == "extra_forbidden":
        return f"{key}: {_unknown(place, model)}"
    if fault["type"] == "missing":
        return f"{key}: is missing"
    if fault["type"] == "value_error":  # a sentence of our own
        message = fault["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    message = fault["msg"].replace("Input should be", "must be")
    if fault["type"] == "string_pattern_mismatch":
        message = _EXPECTED.get(fault.get("ctx", {}).get("pattern", ""), message)
    return f"{key}: {message}{_given(place, fault['input'])}"


def _given(place: Sequence[str | int], value: object) -> str:
    """Return the value in brackets; nothing where it may hold a secret, or is a whole table."""
    names = [part for part in place if isinstance(part, str) and part != "cameras"]
    if any(secret in name.lower() for name in names for secret in _SECRETS):
        return ""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, (str, int, float)) for one in values):
        return ""
    text = repr(value)
    return f" (given: {text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + '...'})"


def _unknown(place: Sequence[str | int], model: type[BaseModel]) -> str:
    table = _table_at(place[:-1], model)
    near = get_close_matches(str(place[-1]), table.model_fields if table else (), n=1)
    return f"unknown key (did you mean {near[0]}?)" if near else "unknown key"


def _table_at(place: Sequence[str | int], model: type[BaseModel]) -> type[BaseModel] | None:
    """Return the settings of a table; ``None`` where that cannot be told."""
    table: type[BaseModel] | None = model
    for part in place:
        if table is None or isinstance(part, int):  # an index leads to a table of the same kind
            continue
        field = table.model_fields.get(part)
        table = _table_in(field.annotation) if field else None
    return table


def _table_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  # any form of type
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((one for one in map(_table_in, get_args(annotation)) if one is not None), None)
