"""Images told apart by their content: hashes, and a share of them that stays put.

A file's name says nothing about its content, and factories copy files. So which image is kept
for testing or thresholds follows from the bytes alone: copies go together, renaming or reordering
changes nothing, and a new image moves next to none of the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hvq_edge.common.atomic import sha256_of
from hvq_edge.errors import ImageError


def hash_image(path: Path) -> str:
    """Return the SHA-256 of an image file as 64 hexadecimal digits.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read: {error.strerror}.",
            next_step="check that the file is still there and that you may read it",
        ) from error


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
