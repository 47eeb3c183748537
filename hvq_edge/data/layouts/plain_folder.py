"""The plain layout: a folder ``good`` beside anything else, which is defective.

Nothing says which good images are for testing, so a fifth of them is chosen by content, the
same ones each time. All defective images are for testing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.content import choose_share, in_threads, read_content
from hvq_edge.data.copies import same_images
from hvq_edge.data.layouts.folders import (
    GOOD,
    CategoryContent,
    DatasetImage,
    category_content,
    good_folders,
    good_notes,
    list_folders,
    list_good,
    list_images,
    list_kind,
)
from hvq_edge.errors import DatasetError

TREE = """\
DIR/                  or, with several categories, DIR/<category>/
├── good/             images of good parts (ok, normal, Good mean the same)
├── <defect>/         defective images, any number of folders (optional)
└── *.png, *.jpg ...  defective images, too (optional)"""

DEFECTIVE = "defective"
"""The kind of defect of images that lie beside ``good`` and not in a folder of their own: of any
kind."""

TEST_SHARE = 0.2
_LEAST_TO_TRAIN = 3  # what hvq_edge.data.splits needs of a category


def is_category(folder: Path) -> bool:
    """Whether ``folder`` holds one category in plain layout."""
    return bool(good_folders(folder))


def read_category(
    folder: Path, name: str, on_progress: ProgressCallback = silent
) -> CategoryContent:
    """List the images of one category, a fifth of the good ones for testing.

    Every good image is decoded once to tell copies.

    Raises:
        DatasetError: no image in ``good``, another ``good`` inside a defective folder, or a
            folder cannot be read.
        ImageError: a good image cannot be read.
    """
    good = good_folders(folder)
    listings = dict(zip(good, list_good(good, name, TREE), strict=True))
    paths = [path for listing in listings.values() for path in listing.images]
    images = _split_good(name, paths, on_progress)
    notes = good_notes(folder, name, good)
    if all(image.split == "train" for image in images):
        notes.append(f"{name}: too few good images to keep any for testing.")
    for kind in list_folders(folder):
        if kind in good:
            continue
        if is_category(kind):
            raise DatasetError(
                f"both {good[0]} and {good_folders(kind)[0]} exist, so {kind} could be a category "
                f"or a kind of defect.",
                next_step=f"move one of the two folders away; the layout is\n{TREE}",
            )
        listings[kind] = list_kind(kind)
        images += [DatasetImage(path, name, "test", kind.name) for path in listings[kind].images]
    listings[folder] = list_images(folder, deep=False)
    images += [DatasetImage(path, name, "test", DEFECTIVE) for path in listings[folder].images]
    return category_content(folder, name, images, notes, listings)


def _split_good(
    name: str, paths: Sequence[Path], on_progress: ProgressCallback
) -> list[DatasetImage]:
    contents = []
    for content in in_threads(read_content, paths):
        contents.append(content)
        on_progress(f"Reading {name}", len(contents), len(paths))
    copies = same_images(paths, contents)
    tested = choose_share(copies, TEST_SHARE, "test", leave=_LEAST_TO_TRAIN)
    return [
        DatasetImage(path, name, "test" if content in tested else "train", GOOD)
        for path, content in zip(paths, copies, strict=True)
    ]
