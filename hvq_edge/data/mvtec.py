"""The layout of MVTec AD (Bergmann et al., CVPR 2019), one folder a category."""

from __future__ import annotations

from pathlib import Path

from hvq_edge.data.folders import (
    GOOD,
    MASK_FOLDER,
    CategoryContent,
    Listing,
    Picture,
    find_mask,
    is_folder,
    list_folders,
    list_pictures,
    mask_notes,
    suffix_notes,
    unused_masks,
)
from hvq_edge.errors import DatasetError

TREE = """\
DIR/
└── <category>/
    ├── train/good/              good pictures to learn from
    ├── test/good/               good pictures to test with
    ├── test/<defect>/           defective pictures, a folder for each kind
    └── ground_truth/<defect>/   masks <stem>_mask.png (optional)"""


def is_category(folder: Path) -> bool:
    """Whether ``folder`` holds one category in MVTec layout."""
    return is_folder(folder / "train" / GOOD)


def read_category(folder: Path, name: str) -> CategoryContent:
    """List the pictures of one category.

    Raises:
        DatasetError: no picture in ``train/good``, or a folder cannot be read.
    """
    listing = list_pictures(folder / "train" / GOOD)
    if not listing.pictures:
        raise DatasetError(
            f"the category {name!r} has no good pictures: no picture is in "
            f"{folder / 'train' / GOOD}.",
            next_step=f"put good pictures there; the layout is\n{TREE}",
        )
    notes: list[str] = []
    others = list(listing.others)
    pictures = [Picture(path, name, "train", GOOD) for path in listing.pictures]
    for kind in _folders_in(folder / "train"):
        if kind.name != GOOD:
            notes.append(f"{name}: train/{kind.name} is ignored; only train/good is learnt from.")
    test = folder / "test"
    for kind in _folders_in(test):
        listing = list_pictures(kind)
        others += listing.others
        pictures += _tested(folder, name, kind.name, listing)
    loose = list_pictures(test, deep=False).pictures if is_folder(test) else ()
    if loose:
        notes.append(f"{name}: {len(loose)} pictures directly in test are ignored.")
    if all(picture.split == "train" for picture in pictures):
        notes.append(f"{name}: there are no test pictures.")
    unused = unused_masks(folder / MASK_FOLDER, (picture.mask for picture in pictures))
    notes += mask_notes(name, pictures, unused) + suffix_notes(name, others)
    return CategoryContent(tuple(pictures), tuple(notes), unused)


def _tested(folder: Path, name: str, defect: str, listing: Listing) -> list[Picture]:
    return [
        Picture(
            path, name, "test", defect, None if defect == GOOD else find_mask(folder, defect, path)
        )
        for path in listing.pictures
    ]


def _folders_in(folder: Path) -> list[Path]:
    return list_folders(folder) if is_folder(folder) else []
