"""A numbered or matched series of image files: ``img_%04d.png`` or ``img_*.png``."""

from __future__ import annotations

import re
from pathlib import Path

from hvq_edge.common.redaction import redacted
from hvq_edge.data.images import IMAGE_SUFFIXES
from hvq_edge.errors import InputError
from hvq_edge.stream.sources.folder import ImageFiles, natural_key

LONGEST = 10**6
"""Numbers in a series; each that is missing is a frame on record."""

_NUMBER = re.compile(r"%(0?)([0-9]*)d")


def is_sequence(name: str) -> bool:
    """Tell a pattern from a plain file name: it has ``%d``, ``%04d``, ``*``, ``?`` or ``[``."""
    return _NUMBER.search(name) is not None or any(mark in name for mark in "*?[")


def open_sequence(pattern: Path) -> ImageFiles:
    """Open the files that a pattern names; only its last part may hold the pattern.

    With a number (``%04d``) they go from the lowest number there is to the highest, and one that
    is missing between them is a lost frame. With ``*``, ``?`` and ``[...]`` they are sorted
    naturally.

    Raises:
        InputError: no image file matches, two numbers are in it, or it cannot be looked for.
    """
    folder, name = pattern.parent, pattern.name
    shown = redacted(str(pattern))  # it may be a mistyped address
    numbers = list(_NUMBER.finditer(name))
    if len(numbers) > 1 or is_sequence(str(folder)):
        raise InputError(
            f"{shown} has a pattern in a folder's name, or more than one number.",
            next_step="keep one pattern, in the file's name: folder/img_%04d.png",
        )
    try:
        if numbers:
            names = _numbered(folder, name, numbers[0])
        else:
            found = (path.name for path in folder.glob(name) if path.is_file())
            images = (one for one in found if Path(one).suffix.lower() in IMAGE_SUFFIXES)
            names = sorted(images, key=natural_key)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot look for {shown}: {error}.") from error
    if not names:
        raise InputError(
            f"no image file matches {shown}.",
            next_step=f"check the pattern; images end in {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    return ImageFiles(folder, names, str(pattern))


def _numbered(folder: Path, name: str, number: re.Match[str]) -> list[str]:
    before, after = name[: number.start()], name[number.end() :]
    width, padding = int(number[2] or 0), "0" if number[1] else " "

    def name_of(value: int) -> str:
        return before + str(value).rjust(width, padding) + after

    there = []
    for path in folder.iterdir():
        digits = path.name[len(before) : len(path.name) - len(after)].strip()
        if re.fullmatch("[0-9]{1,9}", digits) and path.name == name_of(int(digits)):
            there.append(int(digits))
    if there and max(there) - min(there) > LONGEST:
        raise InputError(
            f"{folder / name} goes from {min(there)} to {max(there)}: too far for one series.",
            next_step="move the files apart that do not belong to it, or use * in place of %d",
        )
    return [name_of(value) for value in range(min(there), max(there) + 1)] if there else []
