"""Exemplars: the good training images' cells that lie nearest to each code, as a file.

A code is a point in a space of features, which nobody can look at. What it stands for can be seen
in cells of good images that choose it: of each code the nearest few are kept, one an image, as
places in small images, with how many cells choose the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.atomic import atomic_file
from hvq_edge.common.heat_map import CELL
from hvq_edge.errors import BundleError
from hvq_edge.run.tiling import FrameShape
from hvq_edge.runtime.known_answers import BROKEN_ARCHIVE, unpacked

EXEMPLARS_FOLDER = "exemplars"
"""In a run and in a bundle; one file a category."""
OF_A_CODE = 3
"""Exemplars that are kept of each code."""
MOST_BYTES = 256 << 20
"""That a file may unpack to."""
PATCH = 3 * CELL
"""Pixels of a side of what is shown of a cell: with its neighbours, of which its features know."""
_FORMAT = "hvq-edge-exemplars/1"


class Exemplar(NamedTuple):
    """A cell of a good training image."""

    image: int
    """Index in :attr:`Exemplars.images`."""
    token: int
    """Index of the cell, row-major."""
    distance: float
    """To the code."""


class Patch(NamedTuple):
    """A square of :data:`PATCH` pixels around a cell, in pixels of the model's input."""

    left: int
    top: int
    cell_left: int
    """Of the cell, within the patch."""
    cell_top: int


@dataclass(frozen=True, eq=False)
class CodebookUse:
    """How good images use one codebook, and the exemplars of its codes."""

    name: str
    """``level 0`` and so on, ``top``, ``prototypes``."""
    usage: NDArray[np.int64]
    """``[codes]``: cells that choose the code."""
    usual: NDArray[np.float32]
    """``[codes]``: median distance of these cells; 0 without any."""
    image: NDArray[np.int32]
    """``[codes, exemplars]``, the nearest first; -1: there is none."""
    token: NDArray[np.int32]
    distance: NDArray[np.float32]

    @property
    def dead(self) -> int:
        """Codes that no cell of these images chooses."""
        return int((self.usage == 0).sum())

    @property
    def perplexity(self) -> float:
        """How many codes are in use, were all used alike: e to the entropy of their shares."""
        share = self.usage[self.usage > 0] / max(int(self.usage.sum()), 1)
        return float(np.exp(-(share * np.log(share)).sum()))

    def share(self, code: int) -> float:
        """Share of the cells that choose a code."""
        return float(self.usage[code] / max(int(self.usage.sum()), 1))

    def of(self, code: int) -> list[Exemplar]:
        """Return a code's exemplars, the nearest first."""
        rows = zip(self.image[code], self.token[code], self.distance[code], strict=True)
        return [Exemplar(int(i), int(t), float(d)) for i, t, d in rows if i >= 0]


@dataclass(frozen=True, eq=False)
class Exemplars:
    """All that is kept of one category."""

    category: str
    checkpoint_sha256: str
    """Of the weights that chose."""
    looked_at: int
    """Good training images that were looked at."""
    shape: FrameShape
    """Of an image: that of the model's input."""
    images: tuple[bytes, ...]
    """JPEG, of that shape: those with an exemplar in them."""
    sha256: tuple[str, ...]
    """Of their files."""
    codebooks: tuple[CodebookUse, ...]
    """The levels, level 0 first and the top last, then the prototypes if there are any."""

    def pixels(self, image: int) -> NDArray[np.uint8]:
        """Return one of the images, uint8 ``[height, width, 3]``, RGB."""
        decoded = cv2.imdecode(np.frombuffer(self.images[image], np.uint8), cv2.IMREAD_COLOR)
        rgb: NDArray[np.uint8] = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return rgb


class Cells(NamedTuple):
    """What is known of each cell of an image's map."""

    parts: Mapping[str, NDArray[np.float64]]
    """By name ``[rows, columns]``: they add up to the float32 model's map. Empty: not known."""
    codes: Mapping[str, NDArray[np.integer[Any]]]
    """Nearest code of each cell, ``[cells]``, row-major, by codebook."""
    distances: Mapping[str, NDArray[np.float32]]
    """To that; empty: not known."""


def exemplars_name(category: int) -> str:
    """Return the name of a category's file, in the run or in the bundle."""
    return f"{EXEMPLARS_FOLDER}/{category}.npz"


def choose_exemplars(
    name: str,
    codes: int,
    index: NDArray[np.int64],
    distance: NDArray[np.float32],
    most: int = OF_A_CODE,
) -> CodebookUse:
    """Choose the exemplars of each code: of the cells that choose it the nearest, one an image.

    Args:
        name: of the codebook.
        codes: how many it has.
        index: ``[images, cells]``: the nearest code of each cell.
        distance: ``[images, cells]``: to that.
        most: exemplars of a code.
    """
    kept = [np.full((codes, most), -1, np.int32) for _ in range(2)]
    distances = np.zeros((codes, most), np.float32)
    usual = np.zeros(codes, np.float32)
    order = np.lexsort((distance.ravel(), index.ravel()))
    usage = np.bincount(index.ravel(), minlength=codes).astype(np.int64)
    for code, cells in enumerate(np.split(order, np.cumsum(usage)[:-1])):
        if not len(cells):
            continue
        usual[code] = np.median(distance.ravel()[cells])
        images, tokens = np.divmod(cells, index.shape[1])
        _, first = np.unique(images, return_index=True)  # the nearest cell of each image
        for place, nearest in enumerate(np.sort(first)[:most]):
            kept[0][code, place], kept[1][code, place] = images[nearest], tokens[nearest]
            distances[code, place] = distance.ravel()[cells[nearest]]
    return CodebookUse(name, usage, usual, kept[0], kept[1], distances)


def write_exemplars(path: Path, exemplars: Exemplars) -> None:
    """Write exemplars atomically.

    Raises:
        OutputError: they cannot be written.
    """
    arrays: dict[str, Any] = {
        "format": _FORMAT,
        "category": exemplars.category,
        "checkpoint": exemplars.checkpoint_sha256,
        "looked_at": exemplars.looked_at,
        "side": np.array(exemplars.shape),
        "sha256": np.array(exemplars.sha256, "<U64"),
        "ends": np.cumsum([len(one) for one in exemplars.images], dtype=np.int64),
        "jpeg": np.frombuffer(b"".join(exemplars.images), np.uint8),
        "codebooks": np.array([book.name for book in exemplars.codebooks]),
    }
    for number, book in enumerate(exemplars.codebooks):
        for field in ("usage", "usual", "image", "token", "distance"):
            arrays[f"{number}.{field}"] = getattr(book, field)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_exemplars(content: bytes) -> Exemplars:
    """Read what :func:`write_exemplars` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        return _exemplars(unpacked(content, MOST_BYTES))
    except BROKEN_ARCHIVE as error:
        raise ValueError(str(error) or type(error).__name__) from error


def exemplars_of_bundle(bundle: Bundle, category: str) -> Exemplars | None:
    """Read the exemplars that a bundle carries; ``None``: it carries none.

    Raises:
        BundleError: their file changed, or it is of other weights.
    """
    name = exemplars_name(bundle.category_index(category))
    if name not in bundle.manifest.files:
        return None
    again = "run hvq-edge export --exemplars again"
    try:
        found = read_exemplars(bundle.read(name))
    except ValueError as error:
        raise BundleError(f"{bundle.path / name} cannot be used: {error}.", next_step=again) from (
            error
        )
    same = bundle.manifest.checkpoint_sha256, category, bundle.manifest.frame_shape
    if (found.checkpoint_sha256, found.category, found.shape) != same:
        raise BundleError(
            f"{bundle.path / name} is of another model or another category.", next_step=again
        )
    return found


def patch_of(cell: int, shape: FrameShape) -> Patch:
    """Return the patch that shows a cell: the cell and those around it, within the image.

    Args:
        cell: its index, row-major.
        shape: of the image, at least :data:`PATCH` a side.
    """
    row, column = divmod(cell, shape[1] // CELL)
    top, left = (
        min(max(place * CELL - (PATCH - CELL) // 2, 0), side - PATCH)
        for place, side in zip((row, column), shape, strict=True)
    )
    return Patch(left, top, column * CELL - left, row * CELL - top)


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return an RGB image as the bytes of a JPEG."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())


def _exemplars(arrays: Mapping[str, NDArray[Any]]) -> Exemplars:
    if str(arrays["format"]) != _FORMAT:
        raise ValueError("it is of another version")
    ends = _array(arrays, "ends", np.int64, 1)
    bounds = [0, *ends.tolist()]
    data = _array(arrays, "jpeg", np.uint8, 1).tobytes()
    images = tuple(data[a:b] for a, b in pairwise(bounds))
    if sorted(bounds) != bounds or bounds[-1] != len(data):
        raise ValueError("its images are not where it says")
    height, width = np.broadcast_to(arrays["side"], 2).tolist()  # of a square one, one number
    names = [str(name) for name in arrays["codebooks"]]
    found = Exemplars(
        category=str(arrays["category"]),
        checkpoint_sha256=str(arrays["checkpoint"]),
        looked_at=int(arrays["looked_at"]),
        shape=(int(height), int(width)),
        images=images,
        sha256=tuple(str(one) for one in arrays["sha256"]),
        codebooks=tuple(
            _codebook(arrays, number, name, len(images), (height // CELL) * (width // CELL))
            for number, name in enumerate(names)
        ),
    )
    if len(found.sha256) != len(images):
        raise ValueError("it has not one hash for each image")
    _check_images(found)
    return found


def _codebook(
    arrays: Mapping[str, NDArray[Any]], number: int, name: str, images: int, tokens: int
) -> CodebookUse:
    book = CodebookUse(
        name,
        usage=_array(arrays, f"{number}.usage", np.int64, 1),
        usual=_array(arrays, f"{number}.usual", np.float32, 1),
        image=_array(arrays, f"{number}.image", np.int32, 2),
        token=_array(arrays, f"{number}.token", np.int32, 2),
        distance=_array(arrays, f"{number}.distance", np.float32, 2),
    )
    codes = len(book.usage)
    shapes = {book.image.shape, book.token.shape, book.distance.shape}
    if len(book.usual) != codes or len(shapes) != 1 or len(book.image) != codes:
        raise ValueError(f"its codebook {name} is not of one size")
    there = book.image >= 0
    if (book.image >= images).any() or ((book.token < 0) | (book.token >= tokens))[there].any():
        raise ValueError(f"an exemplar of {name} is in no image")
    if (book.usage < 0).any():
        raise ValueError(f"a code of {name} is used less than never")
    return book


def _check_images(found: Exemplars) -> None:
    for number in range(len(found.images)):
        try:
            shape = found.pixels(number).shape
        except cv2.error:
            shape = ()
        if shape != (*found.shape, 3):
            raise ValueError(f"its image {number} is none of {found.shape} pixels")


def _array(arrays: Mapping[str, NDArray[Any]], name: str, dtype: type, axes: int) -> NDArray[Any]:
    found = arrays[name]
    if found.dtype != dtype or found.ndim != axes or not np.isfinite(found).all():
        raise ValueError(f"{name} is not what it should be")
    return found
