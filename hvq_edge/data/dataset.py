"""A folder of images as a dataset, whichever of the known layouts it has."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.data.layouts import mvtec, plain_folder, visa
from hvq_edge.data.layouts.folders import (
    GOOD,
    CategoryContent,
    DatasetImage,
    is_folder,
    list_folders,
    list_images,
)
from hvq_edge.data.solar_cells import MARKER_NAME
from hvq_edge.errors import DatasetError

__all__ = ["RESERVED_CATEGORIES", "Dataset", "DatasetImage", "Layout", "find_dataset"]

Layout = Literal["mvtec", "plain", "visa"]

_LICENCE_FILES = ("licen[sc]e*", "LICEN[SC]E*")
RESERVED_CATEGORIES = frozenset({"auto", "input"})
"""Words that ``--category`` takes in addition to the categories' names."""


def licence_of_data(root: Path) -> str:
    """Return what a folder of images says of its licence; empty where it says nothing."""
    try:
        marker = json.loads((root / MARKER_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        marker = None
    if isinstance(marker, dict) and "licence" in marker:
        return str(marker["licence"])
    files = sorted(file.name for pattern in _LICENCE_FILES for file in root.glob(pattern))
    return f"see {files[0]} in the folder of images" if files else ""


@dataclass(frozen=True)
class Dataset:
    """The images below a folder. Nothing has been decoded yet."""

    root: Path
    layout: Layout
    images: tuple[DatasetImage, ...]
    """Sorted by category, then training before test, then as the layout lists them."""
    notes: tuple[str, ...] = ()
    """What looked odd but did not stop the work, one sentence each, for the user to see."""
    unused_masks: tuple[tuple[str, Path], ...] = ()
    """Category and path of every mask that belongs to no image."""
    shared_masks: tuple[tuple[str, Path, tuple[Path, ...]], ...] = ()
    """Category and path of every mask that several images would have, with those images."""
    stray_masks: tuple[tuple[str, Path], ...] = ()
    """Category and path of every mask that lies among the images: left out."""
    mask_notes: frozenset[str] = frozenset()
    """Those of the notes that say what the three say."""
    known_defects: tuple[DatasetImage, ...] = ()
    """Defective images to train with; none of ``images``."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories' names, sorted: their order is the category index."""
        return tuple(sorted({image.category for image in self.images}))

    def train_good(self, category: str | None = None) -> tuple[DatasetImage, ...]:
        """Return the good training images, of one category or of all."""
        return self._select("train", category)

    def test(self, category: str | None = None) -> tuple[DatasetImage, ...]:
        """Return the test images, good and defective, of one category or of all."""
        return self._select("test", category)

    def _select(self, split: str, category: str | None) -> tuple[DatasetImage, ...]:
        return tuple(
            image
            for image in self.images
            if image.split == split and category in (None, image.category)
        )


def find_dataset(root: Path, on_progress: ProgressCallback = silent) -> Dataset:
    """Recognise the layout of a folder and list its images.

    Known are the MVTec layout (:data:`hvq_edge.data.layouts.mvtec.TREE`) and the plain one
    (:data:`hvq_edge.data.layouts.plain_folder.TREE`), each with many categories below ``root`` or
    with ``root`` itself as the one category, called as the folder is; and VisA as it was unpacked
    (:data:`hvq_edge.data.layouts.visa.TREE`).

    Args:
        root: the folder.
        on_progress: told of the hashing that the plain layout needs.

    Raises:
        DatasetError: no folder there, no known layout, a category without good images or with a
            reserved name, two layouts side by side, or a wrong table of a VisA folder.
        ImageError: an image that must be hashed cannot be read.
    """
    _check_folder(root)
    folders = [root] if _has_layout(root) else list_folders(root)
    categories = [folder for folder in folders if _has_layout(folder)]
    if visa.is_dataset(root):
        return _visa_dataset(root, categories)
    for folder in (root, *folders):
        if folder not in categories and is_folder(folder / "train"):
            raise _incomplete(folder)
    if not categories:
        raise _no_layout(root)
    layout = _common_layout(categories)
    contents: dict[str, CategoryContent] = {}
    notes = [
        f"{folder.name} is not a category: it has no folder of good images; ignored."
        for folder in folders
        if folder not in categories and list_images(folder).images
    ]
    for folder in categories:
        name = _name_of(folder)
        _check_name(name, f"rename the folder {folder}")
        contents[name] = (
            mvtec.read_category(folder, name)
            if layout == "mvtec"
            else plain_folder.read_category(folder, name, on_progress)
        )
    return _dataset(root, layout, contents, notes)


def _dataset(
    root: Path, layout: Layout, contents: Mapping[str, CategoryContent], notes: Sequence[str] = ()
) -> Dataset:
    named = contents.items()
    about_masks = [note for content in contents.values() for note in content.mask_notes]
    images = tuple(image for content in contents.values() for image in content.images)
    known_defects = tuple(one for content in contents.values() for one in content.known_defects)
    check_text(root, [one.path for one in (*images, *known_defects)])
    return Dataset(
        root,
        layout,
        images,
        (*notes, *(note for one in contents.values() for note in (*one.notes, *one.mask_notes))),
        tuple((name, mask) for name, content in named for mask in content.unused_masks),
        tuple((name, *shared) for name, content in named for shared in content.shared_masks),
        tuple((name, mask) for name, content in named for mask in content.stray_masks),
        frozenset(about_masks),
        known_defects,
    )


def check_text(root: Path, paths: Sequence[Path]) -> None:
    """Refuse names that no record can hold: they come from shares of another encoding.

    Args:
        root: folder that they are shown from.
        paths: of images in it.

    Raises:
        DatasetError: the name of one is not UTF-8.
    """
    named = [path.relative_to(root).as_posix() for path in paths]
    shown = [name.encode("utf-8", "backslashreplace").decode("utf-8") for name in named]
    wrong = [said for name, said in zip(named, shown, strict=True) if name != said]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DatasetError(
            f"the name of an image in {root} is not UTF-8: {wrong[0]}{more}.",
            next_step="rename it; convmv -f latin1 -t utf-8 -r --notest DIR renames a whole folder",
        )


def _visa_dataset(root: Path, others: Sequence[Path]) -> Dataset:
    table = root / visa.SPLIT_FOLDER / visa.SPLIT_FILE
    if others:
        raise DatasetError(
            f"two layouts lie side by side: {root} has {visa.SPLIT_FOLDER}, as VisA has, and "
            f"{others[0]} is a category in another layout.",
            next_step=f"move one of the two away; the layout of VisA is\n{visa.TREE}",
        )
    contents = visa.read_dataset(root)
    for name in contents:
        _check_name(name, f"give it another name in {table}")
    return _dataset(root, "visa", contents)


def _has_layout(folder: Path) -> bool:
    return mvtec.is_category(folder) or plain_folder.is_category(folder)


def _common_layout(categories: Sequence[Path]) -> Layout:
    of_mvtec = [folder for folder in categories if mvtec.is_category(folder)]
    if of_mvtec and len(of_mvtec) < len(categories):
        plain = next(folder for folder in categories if folder not in of_mvtec)
        raise DatasetError(
            f"two layouts lie side by side: {of_mvtec[0].name} has train/good, {plain.name} has "
            "good.",
            next_step="keep categories of one layout in the folder; the layouts are\n"
            f"{mvtec.TREE}\n{plain_folder.TREE}",
        )
    return "mvtec" if of_mvtec else "plain"


def _check_folder(root: Path) -> None:
    if is_folder(root):
        return
    if not root.exists():
        raise DatasetError(
            f"the folder {root} does not exist.", next_step="check the path that was given"
        )
    raise DatasetError(
        f"{root} is a file, not a folder of images.",
        next_step="name the folder that holds the images",
    )


def _name_of(folder: Path) -> str:
    # Not resolve(): two links to folders of one name would become one category.
    return os.path.basename(os.path.abspath(folder))  # noqa: PTH100, PTH119


def _check_name(name: str, remedy: str) -> None:
    if name.lower() in RESERVED_CATEGORIES:
        raise DatasetError(
            f"a category cannot be called {name!r}: --category {name.lower()} means something "
            "else.",
            next_step=remedy,
        )


def _incomplete(folder: Path) -> DatasetError:
    return DatasetError(
        f"the category {_name_of(folder)!r} has no good images: {folder} has train but not "
        "train/good.",
        next_step=f"put good images in {folder / 'train' / GOOD}; the layout is\n{mvtec.TREE}",
    )


def _no_layout(root: Path) -> DatasetError:
    layouts = f"arrange them as one of\n{mvtec.TREE}\n\n{plain_folder.TREE}\n\n{visa.TREE}"
    if visa.is_object(root):
        return DatasetError(
            f"{root} is one object of VisA, without the table that splits its images.",
            next_step=f"name the folder that holds {visa.SPLIT_FOLDER}; {layouts}",
        )
    count = len(list_images(root).images)
    if not count:
        return DatasetError(
            f"the folder {root} holds no images.",
            next_step=f"name another folder, or fill it; {layouts}",
        )
    inner = [folder for folder in list_folders(root) if _holds_dataset(folder)]
    if inner:
        return DatasetError(
            f"{root} is not a dataset, but holds one: {inner[0]}.",
            next_step=f"name {inner[0]} instead",
        )
    return DatasetError(
        f"the folder {root} has no good images: {counted(count, 'image')} but "
        "no folder called good.",
        next_step=layouts,
    )


def _holds_dataset(folder: Path) -> bool:
    return visa.is_dataset(folder) or any(_has_layout(inner) for inner in list_folders(folder))
