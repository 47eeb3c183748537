"""What the dataset layouts share: the image entry, and which files of a folder are images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal, NoReturn

from hvq_edge.data.images import IMAGE_SUFFIXES
from hvq_edge.data.layouts.masks import (
    MASK_FOLDER,
    assign_masks,
    is_ground_truth,
    is_mask_folder,
    mask_notes,
    masks_beside,
    masks_elsewhere,
    may_hold_masks,
)
from hvq_edge.errors import DatasetError

GOOD = "good"
_CALLED_GOOD = frozenset({GOOD, "ok", "okay", "normal", "pass", "passed", "gut"})

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",  # macOS, in archives
        "network trash folder",  # macOS, on shares
        "temporary items",
        "$recycle.bin",  # Windows
        "recycler",
        "recycled",
        "system volume information",
        "found.000",
        "lost+found",  # Linux
        "#recycle",  # Synology; its @eaDir by the sign
        "#snapshot",
        "~snapshot",  # NetApp
        "thumbnails",  # image viewers
        "thumbs",
        "_thumbs",
    }
)
_NAS_MARK = "@"  # @eaDir, @tmp, @Recycle, @Recently-Snapshot: Synology and QNAP


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
    shared_masks: tuple[tuple[Path, tuple[Path, ...]], ...] = ()
    """Masks that several images would have, with those images: they belong to none."""
    stray_masks: tuple[Path, ...] = ()
    """Masks among the images, by name and content: left out."""
    mask_notes: tuple[str, ...] = ()
    """What the three say, a sentence for each."""
    known_defects: tuple[DatasetImage, ...] = ()
    """Defective images to train with; none of ``images``."""


@dataclass(frozen=True)
class Listing:
    """The files below a folder."""

    images: tuple[Path, ...]
    """Sorted by path."""
    others: tuple[Path, ...] = ()
    """Files whose suffix is none of an image."""
    masks: tuple[Path, ...] = ()
    """Images that by name and content are masks of others."""
    unfollowed: tuple[Path, ...] = ()
    """Links to folders that are listed already or hold the folder itself, or that lead nowhere."""


def list_images(folder: Path, *, deep: bool = True) -> Listing:
    """List the images in a folder and, if ``deep``, in all folders below it.

    Links are followed, and each folder is listed once. Hidden files and folders and those of
    systems and network drives (``Thumbs.db``, ``@eaDir``) are passed over.

    Raises:
        DatasetError: a folder cannot be read.
    """
    images: list[Path] = []
    others: list[Path] = []
    masks: list[Path] = []
    unfollowed: list[Path] = []
    around = {_identity(place) for place in (folder, *folder.resolve().parents)}
    seen: set[tuple[int, int]] = set()
    places, links = [folder], list[Path]()
    while places or links:
        linked = not places
        place = (links if linked else places).pop()
        identity = _identity(place)
        if identity in seen or (linked and identity in around):
            unfollowed.append(place)
            continue
        seen.add(identity)
        if place != folder and may_hold_masks(place.name):
            below = list_kind(place)
            if not below.images:
                others += below.others
                masks += below.masks
                continue
        own: list[Path] = []
        for entry in _entries(place):
            if _is_folder(entry):
                if deep and not _passed_over(entry.name):
                    (links if entry.is_symlink() else places).append(place / entry.name)
            elif not _hidden(entry.name):
                is_image = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
                lost = entry.is_symlink() and not is_image and not os.path.exists(entry.path)  # noqa: PTH110
                (own if is_image else unfollowed if lost else others).append(place / entry.name)
        links.sort(reverse=True)
        beside = masks_beside(own)
        masks += beside
        images += [path for path in own if path not in beside] if beside else own
    elsewhere = masks_elsewhere((path for path in images if path.parent != folder), images)
    masks += elsewhere
    images = [path for path in images if path not in elsewhere]
    return Listing(*(tuple(sorted(found)) for found in (images, others, masks, unfollowed)))


def list_kind(folder: Path) -> Listing:
    """List a folder that may hold masks alone: then none of them is an image.

    Raises:
        DatasetError: a folder cannot be read.
    """
    found = list_images(folder)
    if not is_mask_folder(folder.name, found.images):
        return found
    return replace(found, images=(), masks=tuple(sorted((*found.images, *found.masks))))


def list_good(folders: Sequence[Path], category: str, tree: str) -> list[Listing]:
    """List the good images that a category must have.

    Args:
        folders: where they lie, at least one.
        category: for the message.
        tree: the layout, for the message.

    Raises:
        DatasetError: there is none, or a folder cannot be read.
    """
    listings = [list_images(folder) for folder in folders]
    if not any(listing.images for listing in listings):
        raise DatasetError(
            f"the category {category!r} has no good images: no image is in {folders[0]}.",
            next_step=f"put good images there; the layout is\n{tree}",
        )
    return listings


def list_folders(folder: Path) -> list[Path]:
    """Return the visible folders directly in ``folder``, sorted, without that of the masks.

    Raises:
        DatasetError: the folder cannot be read.
    """
    names = [entry.name for entry in _entries(folder) if _is_folder(entry)]
    masks = _called_ground_truth(names)
    return [folder / n for n in sorted(names) if not _passed_over(n) and n != masks]


def ground_truth(folder: Path) -> Path:
    """Return the folder of the masks in ``folder``, which may be missing.

    ``Ground_Truth`` and ``GroundTruth`` mean the same where there is no ``ground_truth``.

    Raises:
        DatasetError: the folder cannot be read.
    """
    return folder / _called_ground_truth(entry.name for entry in _entries(folder))


def _called_ground_truth(names: Iterable[str]) -> str:
    found = sorted(filter(is_ground_truth, names))
    return found[0] if found and MASK_FOLDER not in found else MASK_FOLDER


def good_folders(folder: Path) -> list[Path]:
    """Return the folders in ``folder`` that hold good images by their names; ``good`` first.

    ``ok``, ``OK``, ``Good`` or ``normal`` mean the same in any factory.

    Raises:
        DatasetError: the folder cannot be read.
    """
    if not is_folder(folder):
        return []
    found = [one for one in list_folders(folder) if one.name.casefold() in _CALLED_GOOD]
    # A category may be called "normal".
    found = [one for one in found if one.name == GOOD or not _holds_good(one)]
    return sorted(found, key=lambda one: one.name != GOOD)


def good_notes(folder: Path, name: str, found: Sequence[Path]) -> list[str]:
    """Note folders that are taken for good images and not called ``good``."""
    others = [one.relative_to(folder) for one in found if one.name != GOOD]
    return [f"{name}: {other} is taken for good images, as its name says." for other in others]


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder.

    Raises:
        DatasetError: that cannot be told (``Path.is_dir`` raises up to Python 3.12).
    """
    try:
        return path.is_dir()
    except OSError as error:
        _cannot_list(error)
    except ValueError:  # a NUL character in the path
        return False


def unused_masks(folder: Path, used: Iterable[Path | None]) -> tuple[Path, ...]:
    """Return the masks in ``folder`` and below that are not among those used, sorted."""
    if not is_folder(folder):
        return ()
    known = set(used)
    listing = list_images(folder)
    return tuple(mask for mask in sorted((*listing.images, *listing.masks)) if mask not in known)


def category_content(
    folder: Path,
    name: str,
    images: Sequence[DatasetImage],
    notes: Sequence[str],
    listings: Mapping[Path, Listing],
) -> CategoryContent:
    """Put together what a layout found: with masks, and notes on all that was left out.

    Args:
        folder: of the category.
        name: its name.
        images: of it, without masks.
        notes: of the layout.
        listings: by folder, everything that was listed.
    """
    strays = masks_elsewhere(
        (image.path for image in images if not image.good), [image.path for image in images]
    )
    images = [image for image in images if image.path not in strays]
    base = {path: place for place, listing in listings.items() for path in listing.images}
    defective = [one for one in images if not one.good]
    places = {one.path: (one.defect, one.path.relative_to(base[one.path])) for one in defective}
    truth = ground_truth(folder)
    masks = {kind: _masks_below(truth / kind) for kind, _ in places.values()}
    assigned = assign_masks(masks, places)
    images = [replace(image, mask=assigned.masks.get(image.path)) for image in images]
    used = [*assigned.masks.values(), *(mask for mask, _ in assigned.shared)]
    unused = unused_masks(truth, used)
    without = len(defective) - len(assigned.masks)
    strays.update(path for listing in listings.values() for path in listing.masks)
    left_out = tuple(sorted(strays))
    links = [path for listing in listings.values() for path in listing.unfollowed]
    about_masks = mask_notes(name, len(defective), without, unused, assigned.shared)
    if left_out:
        files = "1 file is a mask" if len(left_out) == 1 else f"{len(left_out)} files are masks"
        about_masks.append(
            f"{name}: {files} by name and content, such as {left_out[0].relative_to(folder)}: left "
            f"out. Masks belong in {MASK_FOLDER}/<defect>/<stem>_mask.png."
        )
    more = suffix_notes(name, (path for one in listings.values() for path in one.others))
    more += [
        f"{name}: the link {link.relative_to(folder)} is not followed: it leads nowhere, to images "
        "that are listed already, or to a folder that it is in."
        for link in links
    ]
    return CategoryContent(
        tuple(images), (*notes, *more), unused, assigned.shared, left_out, tuple(about_masks)
    )


def suffix_notes(name: str, others: Iterable[Path]) -> list[str]:
    """Note files that are passed over because of their suffix."""
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in others)
    if not suffixes:
        return []
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(suffixes.items()))
    return [f"{name}: files that are not images by their name are ignored ({kinds})."]


def _masks_below(folder: Path) -> dict[PurePath, Path]:
    if not is_folder(folder):
        return {}
    listing = list_images(folder)
    return {path.relative_to(folder): path for path in (*listing.images, *listing.masks)}


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def _passed_over(folder: str) -> bool:
    return folder.startswith((".", _NAS_MARK)) or folder.casefold() in _SYSTEM_FOLDERS


def _holds_good(folder: Path) -> bool:
    return bool(good_folders(folder) or good_folders(folder / "train"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: a file that cannot be read
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        _cannot_list(error)


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        _cannot_list(error)
    return status.st_dev, status.st_ino


def _cannot_list(error: OSError) -> NoReturn:
    raise DatasetError(
        f"the folder {error.filename} cannot be read: {error.strerror}.",
        next_step="check that it is a folder that you may read",
    ) from error
