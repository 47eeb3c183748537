"""The plain layout: a folder ``good`` beside anything else, which is defective.

Nothing says which good pictures are for testing, so a fifth of them is chosen by content, the
same ones each time. All defective pictures are for testing.
"""

from __future__ import annotations

from pathlib import Path

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.content import choose_share, hash_picture
from hvq_edge.data.folders import (
    GOOD,
    MASK_FOLDER,
    CategoryContent,
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
DIR/                  or, with several categories, DIR/<category>/
├── good/             pictures of good parts
├── <defect>/         defective pictures, any number of folders (optional)
└── *.png, *.jpg ...  defective pictures, too (optional)"""

DEFECTIVE = "defective"
"""The kind of defect of pictures that lie beside ``good`` and not in a folder of their own."""

TEST_SHARE = 0.2
_LEAST_TO_TRAIN = 3  # what hvq_edge.data.splits needs of a category


def is_category(folder: Path) -> bool:
    """Whether ``folder`` holds one category in plain layout."""
    return is_folder(folder / GOOD)


def read_category(
    folder: Path, name: str, on_progress: ProgressCallback = silent
) -> CategoryContent:
    """List the pictures of one category, a fifth of the good ones for testing.

    Every good picture is read once to hash it.

    Raises:
        DatasetError: no picture in ``good``, another ``good`` inside a defective folder, or a
            folder cannot be read.
        PictureError: a good picture cannot be read.
    """
    listing = list_pictures(folder / GOOD)
    if not listing.pictures:
        raise DatasetError(
            f"the category {name!r} has no good pictures: no picture is in {folder / GOOD}.",
            next_step=f"put good pictures there; the layout is\n{TREE}",
        )
    others = list(listing.others)
    pictures = _split_good(name, listing.pictures, on_progress)
    notes = []
    if all(picture.split == "train" for picture in pictures):
        notes.append(f"{name}: too few good pictures to keep any for testing.")
    for kind in list_folders(folder):
        if kind.name == GOOD:
            continue
        if is_category(kind):
            raise DatasetError(
                f"both {folder / GOOD} and {kind / GOOD} exist, so {kind} could be a category "
                f"or a kind of defect.",
                next_step=f"move one of the two folders away; the layout is\n{TREE}",
            )
        listing = list_pictures(kind)
        others += listing.others
        pictures += [
            Picture(path, name, "test", kind.name, find_mask(folder, kind.name, path))
            for path in listing.pictures
        ]
    listing = list_pictures(folder, deep=False)
    pictures += [
        Picture(path, name, "test", DEFECTIVE, find_mask(folder, DEFECTIVE, path))
        for path in listing.pictures
    ]
    unused = unused_masks(folder / MASK_FOLDER, (picture.mask for picture in pictures))
    notes += mask_notes(name, pictures, unused) + suffix_notes(name, others)
    return CategoryContent(tuple(pictures), tuple(notes), unused)


def _split_good(name: str, paths: tuple[Path, ...], on_progress: ProgressCallback) -> list[Picture]:
    hashes = []
    for done, path in enumerate(paths, start=1):
        hashes.append(hash_picture(path))
        on_progress(f"Reading {name}", done, len(paths))
    tested = choose_share(hashes, TEST_SHARE, "test", leave=_LEAST_TO_TRAIN)
    return [
        Picture(path, name, "test" if content in tested else "train", GOOD)
        for path, content in zip(paths, hashes, strict=True)
    ]
