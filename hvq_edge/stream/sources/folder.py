"""A folder of images, each once, in natural order."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from hvq_edge.common.wording import counted
from hvq_edge.data.images import IMAGE_SUFFIXES, read_image
from hvq_edge.data.layouts.folders import list_images
from hvq_edge.errors import ImageError, InputError
from hvq_edge.stream.sources.source import Frame, arrived, lost

_LOG = logging.getLogger(__name__)
_UNREAD = {".arw", ".avif", ".cr2", ".dng", ".gif", ".jp2", ".jxl", ".nef", ".pdf", ".psd"}
"""Of pictures that are not read: they are not passed over silently."""


class ImageFiles:
    """Image files, each once, in the order given.

    A file that cannot be read is a lost frame with the reason.

    Args:
        folder: what the names are relative to.
        names: of the files, with forward slashes.
        name: what the source is called.
    """

    live = False
    frames_per_second = None

    def __init__(self, folder: Path, names: Sequence[str], name: str) -> None:
        self._folder = folder
        self.names = names
        """Of the files, relative to their folder."""
        self._name = name
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        """Where the images are."""
        return self._name

    def __iter__(self) -> Iterator[Frame]:
        """Give one frame an image file."""
        for index, name in enumerate(self.names):
            if self._closed.is_set():
                return
            yield read_file(self._folder, name, index)

    def close(self) -> None:
        """End the iteration after the image under way."""
        self._closed.set()


def open_folder(path: Path) -> ImageFiles:
    """Open the images of a folder and of the folders in it, sorted naturally (2 before 10).

    Ground-truth masks are left out.

    Raises:
        InputError: there is no image in it, or it may not be read.
    """
    found = list_images(path)
    names = [file.relative_to(path).as_posix() for file in found.images]
    unread = [file for file in found.others if file.suffix.lower() in _UNREAD]
    if unread:
        kinds = ", ".join(sorted({file.suffix.lower() for file in unread}))
        _LOG.warning(
            "%s in %s passed over: %s is not read. Next: save them as PNG",
            counted(len(unread), "picture"),
            path,
            kinds,
        )
    if not names:
        raise InputError(
            f"there is no image in the folder {path}.",
            next_step=f"give a folder with {', '.join(sorted(IMAGE_SUFFIXES))} files",
        )
    return ImageFiles(path, sorted(names, key=natural_key), str(path))


def read_file(folder: Path, name: str, index: int) -> Frame:
    """Read an image file as a frame; one that cannot be read is a lost frame with the reason."""
    try:
        return arrived(index, read_image(folder / name), name)
    except ImageError as error:
        return lost(index, error.cause, name)


def natural_key(text: str) -> tuple[tuple[str, int, str], ...]:
    """Return a sort key under which numbers in names count as numbers: ``a2`` before ``a10``."""
    return tuple(
        (letters.casefold(), int(digits) if digits else -1, letters + digits)
        for letters, digits in re.findall(r"([^0-9]*)([0-9]*)", text)
    )
