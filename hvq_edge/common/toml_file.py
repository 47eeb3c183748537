"""Settings files: reading TOML, and saying all that is wrong with what is in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hvq_edge.common.wording import counted
from hvq_edge.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10, JetPack 6
    import tomli as tomllib


def read_toml(file: Path, flag: str, kind: str = "settings file") -> dict[str, Any]:
    """Read a file of settings.

    Args:
        file: TOML, UTF-8.
        flag: the option that names it, for the message.
        kind: what it is, likewise.

    Raises:
        SettingsError: it cannot be read, or is not TOML.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        place = _with_nul(content)
    except OSError as error:
        raise SettingsError(
            f"cannot read the {kind} {file}: {error.strerror}.",
            next_step=f"check the path given with {flag}",
        ) from error
    except RecursionError as error:
        raise SettingsError(
            f"{file} cannot be read: its values are nested too deeply.",
            next_step="write each table under its own [heading]",
        ) from error
    except ValueError as error:  # no TOML, no UTF-8, a number of thousands of digits, a NUL in file
        raise SettingsError(
            f"{file} is not valid TOML: {error}.", next_step="correct the file at that line"
        ) from error
    if place is not None:
        raise SettingsError(
            f"{place} in {file} has a NUL character, which no path and no name can have.",
            next_step="take \\u0000 out of the value",
        )
    return content


def _with_nul(content: object, place: str = "") -> str | None:
    """Return the place of a key or text with a NUL character."""
    if isinstance(content, str):
        return place if "\0" in content else None
    items: Iterable[tuple[object, object]] = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for name, value in items:
        key = str(name).replace("\0", "\\0")
        inner = f"{place}.{key}" if place else key
        found = inner if key != str(name) else _with_nul(value, inner)
        if found is not None:
            return found
    return None


def all_wrong(faults: Sequence[str], where: str, next_step: str) -> SettingsError:
    """Return the error that lists every fault.

    Args:
        faults: one line each, at least one.
        where: they were found, as in `` in stream.toml``; may be empty.
        next_step: what to do.
    """
    wrong = f"{counted(len(faults), 'setting')} {'is' if len(faults) == 1 else 'are'} wrong"
    lines = "\n".join(f"  - {fault}" for fault in faults)
    return SettingsError(f"{wrong}{where}:\n{lines}", next_step=next_step)
