"""The plain layout: a folder ``good`` beside anything else, which is defective.

Nothing says which good images are for testing, so a fifth of them is chosen by content, the
same ones each time. All defective images are for testing.
"""

from __future__ import annotations

from pathlib import Path

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.content import choose_share, hash_image
from hvq_edge.data.folders import (
    GOOD,
    CategoryContent,
    DatasetImage,
    category_content,
    find_mask,
    is_folder,
    list_folders,
    list_good,
    list_images,
)
from hvq_edge.errors import DatasetError

TREE = """\
DIR/                  or, with several categories, DIR/<category>/
├── good/             images of good parts
├── <defect>/         defective images, any number of folders (optional)
└── *.png, *.jpg ...  defective images, too (optional)"""

DEFECTIVE = "defective"
"""The kind of defect of images that lie beside ``good`` and not in a folder of their own."""

TEST_SHARE = 0.2
_LEAST_TO_TRAIN = 3  # what hvq_edge.data.splits needs of a category


def is_category(folder: Path) -> bool:
    """Whether ``folder`` holds one category in plain layout."""
    return is_folder(folder / GOOD)


def read_category(
    folder: Path, name: str, on_progress: ProgressCallback = silent
) -> CategoryContent:
    """List the images of one category, a fifth of the good ones for testing.

    Every good image is read once to hash it.

    Raises:
        DatasetError: no image in ``good``, another ``good`` inside a defective folder, or a
            folder cannot be read.
        ImageError: a good image cannot be read.
    """
    listing = list_good(folder / GOOD, name, TREE)
    others = list(listing.others)
    images = _split_good(name, listing.images, on_progress)
    notes = []
    if all(image.split == "train" for image in images):
        notes.append(f"{name}: too few good images to keep any for testing.")
    for kind in list_folders(folder):
        if kind.name == GOOD:
            continue
        if is_category(kind):
            raise DatasetError(
                f"both {folder / GOOD} and {kind / GOOD} exist, so {kind} could be a category "
                f"or a kind of defect.",
                next_step=f"move one of the two folders away; the layout is\n{TREE}",
            )
        listing = list_images(kind)
        others += listing.others
        images += [
            DatasetImage(path, name, "test", kind.name, find_mask(folder, kind.name, path))
            for path in listing.images
        ]
    listing = list_images(folder, deep=False)
    images += [
        DatasetImage(path, name, "test", DEFECTIVE, find_mask(folder, DEFECTIVE, path))
        for path in listing.images
    ]
    return category_content(folder, name, images, notes, others)


def _split_good(
    name: str, paths: tuple[Path, ...], on_progress: ProgressCallback
) -> list[DatasetImage]:
    hashes = []
    for done, path in enumerate(paths, start=1):
        hashes.append(hash_image(path))
        on_progress(f"Reading {name}", done, len(paths))
    tested = choose_share(hashes, TEST_SHARE, "test", leave=_LEAST_TO_TRAIN)
    return [
        DatasetImage(path, name, "test" if content in tested else "train", GOOD)
        for path, content in zip(paths, hashes, strict=True)
    ]
