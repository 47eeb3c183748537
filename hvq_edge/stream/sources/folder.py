"""A folder of pictures, each once, in natural order."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

from hvq_edge.data.folders import MASK_FOLDER, list_pictures
from hvq_edge.data.pictures import PICTURE_SUFFIXES, read_picture
from hvq_edge.errors import InputError, PictureError
from hvq_edge.stream.sources.source import Frame, arrived, lost


class PictureFolder:
    """The pictures of a folder and of the folders in it, sorted naturally (2 before 10).

    Ground-truth masks are left out. A file that cannot be read is a lost frame with the reason.

    Args:
        path: the folder.

    Raises:
        InputError: there is no picture in it, or it may not be read.
    """

    live = False
    frames_per_second = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = threading.Event()
        below = [file.relative_to(path) for file in list_pictures(path).pictures]
        names = [file.as_posix() for file in below if MASK_FOLDER not in file.parts]
        self._names = sorted(names, key=natural_key)
        if not self._names:
            raise InputError(
                f"there is no picture in the folder {path}.",
                next_step=f"give a folder with {', '.join(sorted(PICTURE_SUFFIXES))} files",
            )

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self._path)

    def __iter__(self) -> Iterator[Frame]:
        """Give one frame a picture file."""
        for index, name in enumerate(self._names):
            if self._closed.is_set():
                return
            try:
                frame = arrived(index, read_picture(self._path / name), name)
            except PictureError as error:
                frame = lost(index, error.cause, name)
            yield frame

    def close(self) -> None:
        """End the iteration after the picture under way."""
        self._closed.set()


def natural_key(text: str) -> tuple[tuple[str, int, str], ...]:
    """Return a sort key under which numbers in names count as numbers: ``a2`` before ``a10``."""
    return tuple(
        (letters.casefold(), int(digits) if digits else -1, letters + digits)
        for letters, digits in re.findall(r"([^0-9]*)([0-9]*)", text)
    )
