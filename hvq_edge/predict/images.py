"""From what somebody names to images: files, folders, patterns, addresses, arrays, PIL images."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from hvq_edge.data.images import decode_levels, read_image, rgb_of
from hvq_edge.errors import ImageError, InputError
from hvq_edge.stream.sources.folder import ImageFiles, open_folder
from hvq_edge.stream.sources.sequence import is_sequence, open_sequence
from hvq_edge.stream.sources.source import Image

URL_SECONDS = 20.0
"""How long a server may be silent."""
MOST_URL_BYTES = 256 << 20
STDIN = "-"
VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4"})


@dataclass(frozen=True)
class NamedImage:
    """An image that is read when its turn comes."""

    name: str
    """A path, an address without credentials and query, or empty."""
    place: str
    """The path below the folder that was named; of a single image its file name. What is kept of
    its result is called so."""
    read: Callable[[], Image]
    """Gives uint8 ``[height, width, 3]``, RGB; raises ImageError."""
    alone: bool = False
    """It was named itself, not a folder or a pattern that it is one of."""


def find_images(where: str | Path, stdin: Callable[[], bytes] | None = None) -> list[NamedImage]:
    """Find the images that a path, a pattern or an address names.

    Args:
        where: an image file, a folder (with those below it, masks left out), a pattern as
            ``part_*.png`` or ``img_%04d.png``, an ``http://`` or ``https://`` address, or ``-``.
        stdin: gives the bytes of the image that ``-`` stands for.

    Returns:
        At least one; a single file is not opened yet.

    Raises:
        InputError: there is nothing of that name, or it holds no image.
    """
    text = str(where)
    if not text.strip():  # as of a variable that is not set: it must not be the folder here
        raise InputError("an empty name is no image.", next_step="name a file, a folder or . here")
    if isinstance(where, str):
        if where == STDIN and stdin is not None:
            return [NamedImage("stdin", "stdin", lambda: image_of(stdin(), "stdin"), True)]
        if where.lower().startswith(("http://", "https://")):
            return [_at_address(where)]
    path = Path(text)
    try:
        if path.is_dir():
            return _below(path, open_folder(path))
        there = path.exists()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise InputError(f"cannot look for {text!r}: {error}.") from error
    if not there and is_sequence(path.name):
        return _below(path.parent, open_sequence(path))
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(
            f"{text} is a video, not an image.",
            next_step=f"judge its frames with hvq-edge stream --camera {text}",
        )
    return [NamedImage(text, path.name, lambda: read_image(path), True)]


def image_of(data: bytes, name: str) -> Image:
    """Decode the bytes of an image file.

    Args:
        data: the whole file.
        name: what messages call it.

    Returns:
        uint8 ``[height, width, 3]``, RGB.

    Raises:
        ImageError: as :func:`hvq_edge.data.images.read_image`.
    """
    return rgb_of(decode_levels(data, name))


def _below(folder: Path, files: ImageFiles) -> list[NamedImage]:
    def named(name: str) -> NamedImage:
        path = folder / name
        return NamedImage(path.as_posix(), name, lambda: read_image(path))

    return [named(name) for name in files.names]


def _at_address(address: str) -> NamedImage:
    try:
        parts = urlsplit(address)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    except ValueError:
        host = None  # of its message nothing is passed on: it could quote a password
    if not host:
        raise InputError(
            "the address of an image names no host.", next_step="give https://HOST/IMAGE.png"
        )
    if parts.username or parts.password:
        raise InputError(
            f"the address of an image on {host} holds a user or a password.",
            next_step="fetch it with another program, and pipe it to hvq-edge predict -",
        )
    name = f"{parts.scheme.lower()}://{host}{parts.path}"  # a query may hold a key
    place = PurePosixPath(parts.path).name or "image"
    return NamedImage(name, place, lambda: image_of(_fetched(address, name), name), True)


def _fetched(address: str, name: str) -> bytes:
    try:
        # urllib follows redirections to http, https and ftp alone, never to a file.
        with urllib.request.urlopen(address, timeout=URL_SECONDS) as answer:  # noqa: S310
            content: bytes = answer.read(MOST_URL_BYTES + 1)
    except urllib.error.HTTPError as error:
        why = f"the server answers {error.code} {error.reason}"
    except urllib.error.URLError as error:
        why = str(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
    else:
        if len(content) <= MOST_URL_BYTES:
            return content
        why = f"it has more than {MOST_URL_BYTES >> 20} MiB"
    raise ImageError(
        f"{name} cannot be fetched: {why}.", next_step="check the address, or download the image"
    )
