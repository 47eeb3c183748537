"""Images told apart by their content: hashes, and a share of them that stays put.

A file's name says nothing about its content, and factories copy files, also into another format.
So which image is kept for testing or thresholds follows from the content alone: copies go together,
renaming or reordering changes nothing, and a new image moves next to none of the others.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.data.images import decode_levels, read_file, rgb_of
from hvq_edge.errors import ImageError

SKETCH_SIDE = 16
_MOST_THREADS = 8
_SAMPLED = 64
_LARGE = 1024
_MOST_KEPT = 1 << 14
"""Images whose content is remembered, some 1.5 kB each."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class ImageContent:
    """What is kept of an image file that was decoded once."""

    sha256: str
    """Of the file, 64 hexadecimal digits."""
    pixels: str = ""
    """Hash of the decoded pixels; empty: they cannot be decoded."""
    size: tuple[int, int] | None = None
    """Width and height, likewise ``None``."""
    bits: int = 0
    """That a level of the file has, 8 or 16."""
    highest: int = 0
    """Level in the file, of any channel."""
    two_levels: bool = False
    """Whether no channel has more than two levels, as masks and empty exposures."""
    sketch: NDArray[np.float32] | None = None
    """Grey ``[16, 16]``: the mean level of each part of the image."""
    fault: ImageError | None = None
    """Why it cannot be decoded."""


def hash_image(path: Path) -> str:
    """Return the SHA-256 of an image file as 64 hexadecimal digits.

    Raises:
        ImageError: the file cannot be read.
    """
    return hashlib.sha256(read_file(path)).hexdigest()


def read_content(path: Path) -> ImageContent:
    """Read an image file and keep what tells it from others.

    A file that has not changed since is not decoded again: the plain layout looks for copies before
    the split does.

    Raises:
        ImageError: the file cannot be read; one that cannot be decoded has its ``fault``.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return _read_content.__wrapped__(path)  # which says why it cannot be read
    # No program can set the time of the last change of an inode: it tells of any other content.
    return _read_content(path, status.st_ino, status.st_size, status.st_ctime_ns)


@lru_cache(maxsize=_MOST_KEPT)
def _read_content(path: Path, *_state: int) -> ImageContent:
    data = read_file(path)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        levels = decode_levels(data, path)
    except ImageError as error:
        return ImageContent(sha256, fault=error)
    rgb = rgb_of(levels)
    height, width = rgb.shape[:2]
    shape = b"%dx%d" % (height, width)
    return ImageContent(
        sha256=sha256,
        pixels=hashlib.blake2b(rgb.data, digest_size=16, person=shape).hexdigest(),
        size=(width, height),
        bits=8 * levels.itemsize,
        highest=int(levels.max()),
        two_levels=has_few_levels(levels, 2),
        sketch=sketch_of(rgb, SKETCH_SIDE),
    )


def sketch_of(rgb: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Return the mean grey level of each part of an image, ``[side, side]``."""
    height, width = rgb.shape[:2]
    # Shrunk in float, so that a difference of less than a level is seen; large ones in two steps.
    grey = cv2.resize(rgb, (min(width, _LARGE), min(height, _LARGE)), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(grey, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def has_few_levels(levels: NDArray[np.generic], most: int) -> bool:
    """Tell whether each channel of an image has at most so many different levels."""
    sampled = levels[:: max(levels.shape[0] // _SAMPLED, 1), :: max(levels.shape[1] // _SAMPLED, 1)]
    for part in (sampled, levels):  # most images are told by a few of their pixels
        for channel in np.atleast_3d(part).transpose(2, 0, 1):
            if len(np.unique(channel)) > most:
                return False
    return True


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield the result of each item in order; decoding and hashing run outside Python's lock."""
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for thousands of images


def choose_share(hashes: Sequence[str], share: float, key: str, *, leave: int) -> frozenset[str]:
    """Choose a share of images by their content.

    Contents are put in the order of a keyed hash and taken, all copies together, while they fit
    the wanted number. With no copies among ``n`` images exactly ``round(share * n)`` are chosen,
    and one more image changes the side of at most one of the others.

    Args:
        hashes: one content hash an image; copies appear as often as there are files.
        share: wanted share of the images, 0 to 1.
        key: another key gives another choice.
        leave: images that must remain.

    Returns:
        The chosen hashes: at least one where ``leave`` images can remain, otherwise none.
    """
    copies = Counter(hashes)
    most = len(hashes) - leave
    wanted = min(max(int(share * len(hashes) + 0.5), 1), most)
    order = sorted(copies, key=lambda content: _rank(content, key))
    chosen: set[str] = set()
    taken = 0
    for content in order:
        if taken + copies[content] <= wanted:
            chosen.add(content)
            taken += copies[content]
    if not chosen and order:
        fewest = min(order, key=lambda content: copies[content])
        if copies[fewest] <= most:
            chosen.add(fewest)
    return frozenset(chosen)


def _rank(content: str, key: str) -> bytes:
    return hashlib.sha256(f"{key}:{content}".encode()).digest()
