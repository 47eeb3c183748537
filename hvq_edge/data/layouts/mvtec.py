"""The layout of MVTec AD (Bergmann et al., CVPR 2019), one folder a category."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hvq_edge.common.wording import counted
from hvq_edge.data.layouts.folders import (
    GOOD,
    CategoryContent,
    DatasetImage,
    category_content,
    good_folders,
    good_notes,
    ground_truth,
    is_folder,
    list_folders,
    list_good,
    list_images,
    list_kind,
)
from hvq_edge.data.layouts.masks import MASK_FOLDER

TREE = """\
DIR/
└── <category>/
    ├── train/good/              good images to learn from (ok, normal, Good mean the same)
    ├── train/<defect>/          known defects (optional); masks in train/ground_truth/<defect>/
    ├── validation/good/         good images of another day, for thresholds (optional)
    ├── test/good/               good images to test with
    ├── test/<defect>/           defective images, a folder for each kind
    └── ground_truth/<defect>/   masks <stem>_mask.png (optional)"""

_PARTS = ("train", "validation", "test")


def is_category(folder: Path) -> bool:
    """Whether ``folder`` holds one category in MVTec layout."""
    return bool(good_folders(folder / "train"))


def read_category(folder: Path, name: str) -> CategoryContent:
    """List the images of one category.

    Raises:
        DatasetError: no image in ``train/good``, or a folder cannot be read.
    """
    good = good_folders(folder / "train")
    listings = dict(zip(good, list_good(good, name, TREE), strict=True))
    images = [
        DatasetImage(path, name, "train", GOOD)
        for listing in listings.values()
        for path in listing.images
    ]
    notes = good_notes(folder, name, good)
    known = read_known_defects(folder / "train", name)
    notes += (*known.notes, *known.mask_notes)
    apart = good_folders(folder / "validation")
    for kind in _folders_in(folder / "validation"):
        if kind not in apart:
            notes.append(
                f"{name}: validation/{kind.name} is ignored; only validation/good sets thresholds."
            )
            continue
        listings[kind] = list_kind(kind)
        images += [
            DatasetImage(path, name, "train", GOOD, kept_apart=True)
            for path in listings[kind].images
        ]
    test = folder / "test"
    tested_good = good_folders(test)
    notes += good_notes(folder, name, tested_good)
    for kind in _folders_in(test):
        defect = GOOD if kind in tested_good else kind.name
        listings[kind] = list_kind(kind)
        images += [DatasetImage(path, name, "test", defect) for path in listings[kind].images]
    notes += _ignored(folder, name)
    tested = [image for image in images if image.split == "test"]
    if not tested:
        notes.append(f"{name}: there are no test images.")
    elif not any(image.good for image in tested):
        notes.append(f"{name}: no test image is good, so false rejects cannot be counted.")
    content = category_content(folder, name, images, notes, listings)
    return replace(content, known_defects=known.images)


def read_known_defects(folder: Path, name: str) -> CategoryContent:
    """List the known defects of one category: ``<defect>/`` and ``ground_truth/<defect>/``.

    Args:
        folder: that holds them, and may hold good images beside them.
        name: of the category.

    Raises:
        DatasetError: a folder cannot be read.
    """
    good = good_folders(folder)
    kinds = [kind for kind in _folders_in(folder) if kind not in good]
    listings = {kind: list_kind(kind) for kind in kinds}
    images = [
        DatasetImage(path, name, "train", kind.name)
        for kind in kinds
        for path in listings[kind].images
    ]
    return category_content(folder, f"{name}, known defects", images, (), listings)


def _ignored(folder: Path, name: str) -> list[str]:
    """Note images that lie where the layout has none."""
    notes = []
    parts = [folder / part for part in _PARTS if is_folder(folder / part)]
    for place in (folder, *parts):
        loose = list_images(place, deep=False).images
        if loose:
            verb = "is" if len(loose) == 1 else "are"
            notes.append(
                f"{name}: {counted(len(loose), 'image')} directly in {place.name} {verb} ignored."
            )
    others = [one for one in list_folders(folder) if one not in parts]
    without_known = [part for part in parts if part.name != _PARTS[0]]
    for other in (*others, *(ground_truth(part) for part in without_known)):
        listing = list_kind(other) if is_folder(other) else None
        count = len(listing.images) + len(listing.masks) if listing else 0
        if count:
            verb = "is" if count == 1 else "are"
            notes.append(
                f"{name}: {counted(count, 'image')} in {other.relative_to(folder)} {verb} ignored: "
                f"it is none of {', '.join(_PARTS)} and {MASK_FOLDER}."
            )
    return notes


def _folders_in(folder: Path) -> list[Path]:
    return list_folders(folder) if is_folder(folder) else []
