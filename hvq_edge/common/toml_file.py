"""Settings files: reading TOML, and saying all that is wrong with what is in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hvq_edge.common.redaction import redacted
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
        unusable = _unusable(content)
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
            f"{file} is not valid TOML: {redacted(str(error))}.",
            next_step="correct the file at that line",
        ) from error
    if unusable is not None:
        place, why, next_step = unusable
        raise SettingsError(f"{place} in {file} {why}.", next_step=next_step)
    return content


_NUL = "has a NUL character, which no path and no name can have", "take \\u0000 out of it"
_TOO_LARGE = "is a number of more than 64 bits", "give a smaller one"


def _unusable(content: object, place: str = "") -> tuple[str, str, str] | None:
    """Return the place of a key or value that nothing can use, why, and what to do."""
    if isinstance(content, str):
        return (place, *_NUL) if "\0" in content else None
    if isinstance(content, int):  # hexadecimal digits make one that Python does not even print
        return None if -(2**63) <= content < 2**63 else (place, *_TOO_LARGE)
    items: Iterable[tuple[object, object]] = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for name, value in items:
        key = str(name).replace("\0", "\\0")
        inner = redacted(f"{place}.{key}" if place else key)
        found = (inner, *_NUL) if "\0" in str(name) else _unusable(value, inner)
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
