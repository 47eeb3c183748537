"""What the dataset layouts share: the image entry, which files are images, where masks lie."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from hvq_edge.data.images import IMAGE_SUFFIXES
from hvq_edge.errors import DatasetError

GOOD = "good"
MASK_FOLDER = "ground_truth"

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class DatasetImage:
    """One image of a dataset."""

    path: Path
    category: str
    split: Literal["train", "test"]
    defect: str
    """Kind of defect, as its folder is called; ``good`` when good."""
    mask: Path | None = None
    """Ground-truth mask, read with :func:`hvq_edge.data.images.read_mask`."""
    kept_apart: bool = False
    """A training image that sets thresholds and is not learnt from, because the layout says so."""

    @property
    def good(self) -> bool:
        """Whether the image shows a good part."""
        return self.defect == GOOD


@dataclass(frozen=True)
class CategoryContent:
    """What a layout found in one category's folder."""

    images: tuple[DatasetImage, ...]
    notes: tuple[str, ...]
    """What looks odd but does not stop the work, one sentence each."""
    unused_masks: tuple[Path, ...] = ()
    """Masks that belong to no image."""


@dataclass(frozen=True)
class Listing:
    """The files below a folder."""

    images: tuple[Path, ...]
    """Sorted by path."""
    others: tuple[Path, ...]
    """Files whose suffix is none of an image."""


def list_images(folder: Path, *, deep: bool = True) -> Listing:
    """List the images in a folder and, if ``deep``, in all folders below it.

    Hidden files and folders and the system's own files (``Thumbs.db``) are passed over.

    Raises:
        DatasetError: a folder cannot be read.
    """
    images: list[Path] = []
    others: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=_cannot_list):
        folders[:] = [name for name in folders if deep and not _hidden(name)]
        for name in files:
            if not _hidden(name):
                path = Path(place, name)
                (images if path.suffix.lower() in IMAGE_SUFFIXES else others).append(path)
    return Listing(tuple(sorted(images)), tuple(sorted(others)))


def list_good(folder: Path, category: str, tree: str) -> Listing:
    """List the good images that a category must have.

    Args:
        folder: where they lie.
        category: for the message.
        tree: the layout, for the message.

    Raises:
        DatasetError: there is none, or a folder cannot be read.
    """
    listing = list_images(folder)
    if not listing.images:
        raise DatasetError(
            f"the category {category!r} has no good images: no image is in {folder}.",
            next_step=f"put good images there; the layout is\n{tree}",
        )
    return listing


def list_folders(folder: Path) -> list[Path]:
    """Return the visible folders directly in ``folder``, sorted, without ``ground_truth``.

    Raises:
        DatasetError: the folder cannot be read.
    """
    try:
        return [
            entry
            for entry in sorted(folder.iterdir())
            if entry.is_dir() and not _hidden(entry.name) and entry.name != MASK_FOLDER
        ]
    except OSError as error:
        _cannot_list(error)


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder.

    Raises:
        DatasetError: that cannot be told (``Path.is_dir`` raises up to Python 3.12).
    """
    try:
        return path.is_dir()
    except OSError as error:
        _cannot_list(error)


def find_mask(category: Path, defect: str, image: Path) -> Path | None:
    """Return ``ground_truth/<defect>/<stem>_mask.*``, or ``<stem>.*`` there, if it exists."""
    folder = category / MASK_FOLDER / defect
    for stem in (f"{image.stem}_mask", image.stem):
        for suffix in (".png", *sorted(IMAGE_SUFFIXES)):
            mask = folder / f"{stem}{suffix}"
            if mask.is_file():
                return mask
    return None


def unused_masks(folder: Path, used: Iterable[Path | None]) -> tuple[Path, ...]:
    """Return the masks in ``folder`` and below that are not among those used, sorted."""
    if not is_folder(folder):
        return ()
    known = set(used)
    return tuple(mask for mask in list_images(folder).images if mask not in known)


def category_content(
    folder: Path,
    name: str,
    images: Sequence[DatasetImage],
    notes: Sequence[str],
    others: Iterable[Path],
) -> CategoryContent:
    """Put together what a layout found, with notes on masks and on files that are no images."""
    unused = unused_masks(folder / MASK_FOLDER, (image.mask for image in images))
    more = mask_notes(name, images, unused) + suffix_notes(name, others)
    return CategoryContent(tuple(images), (*notes, *more), unused)


def mask_notes(name: str, images: Iterable[DatasetImage], unused: Sequence[Path]) -> list[str]:
    """Note masks and defective images without each other, where the category has masks."""
    defective = [image for image in images if not image.good]
    without = sum(image.mask is None for image in defective)
    notes = []
    if without and (unused or without < len(defective)):
        notes.append(f"{name}: {without} of {len(defective)} defective images have no mask.")
    if unused:
        masks = "1 mask belongs" if len(unused) == 1 else f"{len(unused)} masks belong"
        notes.append(f"{name}: {masks} to no image, such as {unused[0].name}; ignored.")
    return notes


def suffix_notes(name: str, others: Iterable[Path]) -> list[str]:
    """Note files that are passed over because of their suffix."""
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in others)
    if not suffixes:
        return []
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(suffixes.items()))
    return [f"{name}: files that are not images by their name are ignored ({kinds})."]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def _cannot_list(error: OSError) -> NoReturn:
    raise DatasetError(
        f"the folder {error.filename} cannot be read: {error.strerror}.",
        next_step="check that it is a folder that you may read",
    ) from error
