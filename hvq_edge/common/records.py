"""Records and settings: the strict models, one reader, and one way to list what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from hvq_edge.common.plain_file import read_plain
from hvq_edge.common.redaction import redacted, redacted_message, redacted_table
from hvq_edge.errors import HvqEdgeError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=BaseModel)

MOST_FAULTS = 5
"""Of a file that a program wrote: nobody mends it by hand."""
LONGEST_SHOWN = 60
"""Characters of a value in a message."""

_SECRETS = ("camera", "host", "password", "secret", "server", "token", "url", "user")
"""Keys with one of these in them may hold credentials: their values are not shown."""
_EXPECTED = {
    r"^https?://[^/\s]+": "must begin with http:// or https://, then name a host",
    r"^opc\.tcp://[^/\s]+": "must begin with opc.tcp://, then name a host",
    r"^[^/@\s]+$": "must be a name or an address, without anything else of a URL",
    r"^[^+#\s]+$": "must have neither spaces nor + nor #",
}


class Strict(BaseModel):
    """A record or a table of settings: frozen, no unknown keys, no NaN and no infinity."""

    # No score is above a threshold of NaN: such a bundle would pass every part. Built when it is
    # used, as most are not: a command loads all models that its modules have.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class StrictTypes(Strict):
    """The same, with nothing converted: ``"3"`` is no number, and 1 is no truth value."""

    model_config = ConfigDict(strict=True)


class Extensible(BaseModel):
    """A frozen record whose later versions may add fields: unknown ones are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class Measured(BaseModel):
    """A frozen result that may be infinite or NaN, which JSON then holds as strings."""

    # JSON has no infinity, and pydantic would write null, which it does not read back.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings", defer_build=True)


def read_record(
    path: Path,
    model: type[Model],
    error: type[HvqEdgeError],
    *,
    kind: str,
    next_step: str,
    again: str = "",
    unread: Callable[[OSError], str] | None = None,
) -> Model:
    """Read a JSON file and check it.

    Args:
        path: JSON, UTF-8.
        model: what it must hold.
        error: raised where it cannot be read, or holds something else.
        kind: what it should be, as in ``a run record``.
        next_step: what to do where it cannot be read.
        again: what to do where it holds something else; default: the same.
        unread: the message where it cannot be read; default: ``PATH cannot be read: WHY``.
    """
    try:
        return model.model_validate_json(read_plain(path).decode("utf-8"))
    except OSError as caught:
        cause = unread(caught) if unread else f"{path} cannot be read: {caught.strerror}"
        raise error(f"{cause}.", next_step=next_step) from caught
    except ValueError as caught:
        if isinstance(caught, ValidationError):
            faults = faults_of(caught, model)
            more = len(faults) - MOST_FAULTS  # of another version's file nearly every line is one
            why = "; ".join(faults[:MOST_FAULTS]) + (f"; and {more} more" if more > 0 else "")
        elif isinstance(caught, UnicodeDecodeError):
            why = f"it is not UTF-8 text ({caught})"
        else:
            why = f"it is no path of a file ({caught})"
        raise error(
            f"{path} is not {kind} that this version reads: {why}.", next_step=again or next_step
        ) from caught


def kept_record(path: Path, model: type[Model]) -> Model | None:
    """Read a JSON file that can be made again; ``None``: not there, or not to be read."""
    try:
        return parsed_record(path, read_plain(path), model)
    except FileNotFoundError:
        return None
    except OSError as error:
        _say_passed_over(path, error)
        return None


def parsed_record(path: Path, content: bytes, model: type[Model]) -> Model | None:
    """Return what a file's content holds; ``None`` where that is something else.

    Args:
        path: of the file, for the log.
        content: JSON, UTF-8.
        model: what it must hold.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:  # of what is no UTF-8 as well
        _say_passed_over(path, error)
        return None


def _say_passed_over(path: Path, error: Exception) -> None:
    why = (isinstance(error, OSError) and error.strerror) or type(error).__name__
    logger.warning("%s cannot be read and is passed over: %s", path, why)


def faults_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return a line for each fault, without those that only follow from others.

    Args:
        error: what pydantic found.
        model: what was checked; near names of unknown keys come from it.
    """
    found = error.errors()
    lines = [_line(fault, model) for fault in found if not _follows(fault, found)]
    return [redacted_message(line) for line in lines]


def _follows(fault: ErrorDetails, found: Sequence[ErrorDetails]) -> bool:
    """Tell whether a list is too short only because pydantic left out its faulty items."""
    place = fault["loc"]
    return fault["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in found
    )


def _line(fault: ErrorDetails, model: type[BaseModel]) -> str:
    place = fault["loc"]
    # Pydantic's name for one of several types that has bounds.
    parts = (str(part).removeprefix("constrained-") for part in place)
    key = ".".join(redacted(part) for part in parts)
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
    text = repr(redacted_table(value))
    return f" (given: {text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + '...'})"


def _unknown(place: Sequence[str | int], model: type[BaseModel]) -> str:
    table = _table_at(place[:-1], model)
    near = get_close_matches(str(place[-1]), table.model_fields if table else (), n=1)
    return f"unknown key (did you mean {near[0]}?)" if near else "unknown key"


def _table_at(place: Sequence[str | int], model: type[BaseModel]) -> type[BaseModel] | None:
    """Return the model of a table; ``None`` where that cannot be told."""
    table: type[BaseModel] | None = model
    for part in place:
        if table is None or isinstance(part, int):  # an index leads to a table of the same kind
            continue
        field = table.model_fields.get(part)
        table = _table_in(field.annotation) if field else None
    return table


def _table_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  # any form of type
    parts = get_args(annotation)
    # dict[str, int] is a type as well to Python 3.10.
    if not parts and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((one for one in map(_table_in, parts) if one is not None), None)
