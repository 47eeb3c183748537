"""The layout of MVTec AD (Bergmann et al., CVPR 2019), one folder a category."""

from __future__ import annotations

from pathlib import Path

from hvq_edge.data.folders import (
    GOOD,
    CategoryContent,
    DatasetImage,
    Listing,
    category_content,
    find_mask,
    is_folder,
    list_folders,
    list_good,
    list_images,
)

TREE = """\
DIR/
└── <category>/
    ├── train/good/              good images to learn from
    ├── validation/good/         good images of another day, for thresholds (optional)
    ├── test/good/               good images to test with
    ├── test/<defect>/           defective images, a folder for each kind
    └── ground_truth/<defect>/   masks <stem>_mask.png (optional)"""


def is_category(folder: Path) -> bool:
    """Whether ``folder`` holds one category in MVTec layout."""
    return is_folder(folder / "train" / GOOD)


def read_category(folder: Path, name: str) -> CategoryContent:
    """List the images of one category.

    Raises:
        DatasetError: no image in ``train/good``, or a folder cannot be read.
    """
    listing = list_good(folder / "train" / GOOD, name, TREE)
    notes: list[str] = []
    others = list(listing.others)
    images = [DatasetImage(path, name, "train", GOOD) for path in listing.images]
    for kind in _folders_in(folder / "train"):
        if kind.name != GOOD:
            notes.append(f"{name}: train/{kind.name} is ignored; only train/good is learnt from.")
    for kind in _folders_in(folder / "validation"):
        if kind.name != GOOD:
            notes.append(
                f"{name}: validation/{kind.name} is ignored; only validation/good sets thresholds."
            )
            continue
        listing = list_images(kind)
        others += listing.others
        images += [DatasetImage(p, name, "train", GOOD, kept_apart=True) for p in listing.images]
    test = folder / "test"
    for kind in _folders_in(test):
        listing = list_images(kind)
        others += listing.others
        images += _tested(folder, name, kind.name, listing)
    loose = list_images(test, deep=False).images if is_folder(test) else ()
    if loose:
        notes.append(f"{name}: {len(loose)} images directly in test are ignored.")
    if all(image.split == "train" for image in images):
        notes.append(f"{name}: there are no test images.")
    return category_content(folder, name, images, notes, others)


def _tested(folder: Path, name: str, defect: str, listing: Listing) -> list[DatasetImage]:
    return [
        DatasetImage(
            path, name, "test", defect, None if defect == GOOD else find_mask(folder, defect, path)
        )
        for path in listing.images
    ]


def _folders_in(folder: Path) -> list[Path]:
    return list_folders(folder) if is_folder(folder) else []
