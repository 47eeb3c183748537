"""A folder of pictures as a dataset, whichever of the known layouts it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvq_edge.data import mvtec, plain_folder
from hvq_edge.data.folders import GOOD, Picture, is_folder, list_folders, list_pictures
from hvq_edge.errors import DatasetError
from hvq_edge.progress import ProgressCallback, silent

__all__ = ["RESERVED_CATEGORIES", "Dataset", "Layout", "Picture", "find_dataset"]

Layout = Literal["mvtec", "plain"]

RESERVED_CATEGORIES = frozenset({"auto", "input"})
"""Words that ``--category`` takes beside the categories' names."""


@dataclass(frozen=True)
class Dataset:
    """The pictures below a folder. Nothing has been decoded yet."""

    root: Path
    layout: Layout
    pictures: tuple[Picture, ...]
    """By category, then training before test, then as the layout lists them."""
    notes: tuple[str, ...] = ()
    """What looked odd but did not stop the work, one sentence each, for the user to see."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories' names, sorted: their order is the category index."""
        return tuple(sorted({picture.category for picture in self.pictures}))

    def train_good(self, category: str | None = None) -> tuple[Picture, ...]:
        """Return the good training pictures, of one category or of all."""
        return self._select("train", category)

    def test(self, category: str | None = None) -> tuple[Picture, ...]:
        """Return the test pictures, good and defective, of one category or of all."""
        return self._select("test", category)

    def _select(self, split: str, category: str | None) -> tuple[Picture, ...]:
        return tuple(
            picture
            for picture in self.pictures
            if picture.split == split and category in (None, picture.category)
        )


def find_dataset(root: Path, on_progress: ProgressCallback = silent) -> Dataset:
    """Recognise the layout of a folder and list its pictures.

    Known are the MVTec layout (:data:`hvq_edge.data.mvtec.TREE`) and the plain one
    (:data:`hvq_edge.data.plain_folder.TREE`), each with many categories below ``root`` or with
    ``root`` itself as the one category, called as the folder is.

    Args:
        root: the folder.
        on_progress: told of the hashing that the plain layout needs.

    Raises:
        DatasetError: no folder there, no known layout, a category without good pictures or with a
            reserved name, or two layouts side by side.
        PictureError: a picture that must be hashed cannot be read.
    """
    _check_folder(root)
    folders = [root] if _has_layout(root) else list_folders(root)
    categories = [folder for folder in folders if _has_layout(folder)]
    for folder in (root, *folders):
        if folder not in categories and is_folder(folder / "train"):
            raise _incomplete(folder)
    if not categories:
        raise _no_layout(root)
    layout = _common_layout(categories)
    pictures: list[Picture] = []
    notes = [
        f"{folder.name} is not a category: it has no folder of good pictures; ignored."
        for folder in folders
        if folder not in categories and list_pictures(folder).pictures
    ]
    for folder in categories:
        name = folder.resolve().name
        _check_name(name, folder)
        content = (
            mvtec.read_category(folder, name)
            if layout == "mvtec"
            else plain_folder.read_category(folder, name, on_progress)
        )
        pictures += content.pictures
        notes += content.notes
    return Dataset(root, layout, tuple(pictures), tuple(notes))


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
            f"the folder {root} does not exist.", next_step="check the path given with --data"
        )
    raise DatasetError(
        f"{root} is a file, not a folder of pictures.",
        next_step="give the folder that holds the pictures with --data",
    )


def _check_name(name: str, folder: Path) -> None:
    if name.lower() in RESERVED_CATEGORIES:
        raise DatasetError(
            f"a category cannot be called {name!r}: --category {name.lower()} means something "
            "else.",
            next_step=f"rename the folder {folder}",
        )


def _incomplete(folder: Path) -> DatasetError:
    return DatasetError(
        f"the category {folder.resolve().name!r} has no good pictures: {folder} has train but not "
        "train/good.",
        next_step=f"put good pictures in {folder / 'train' / GOOD}; the layout is\n{mvtec.TREE}",
    )


def _no_layout(root: Path) -> DatasetError:
    layouts = f"arrange them as one of\n{mvtec.TREE}\n\n{plain_folder.TREE}"
    count = len(list_pictures(root).pictures)
    if not count:
        return DatasetError(
            f"the folder {root} holds no pictures.",
            next_step=f"give another folder with --data, or fill it; {layouts}",
        )
    return DatasetError(
        f"the folder {root} has no good pictures: {count} picture{'s' if count > 1 else ''} but "
        "no folder called good.",
        next_step=layouts,
    )
