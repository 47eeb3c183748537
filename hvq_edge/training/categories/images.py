"""The good images of a category that is added to a run."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.data.dataset import RESERVED_CATEGORIES, Dataset, Layout
from hvq_edge.data.known_defects import recorded_path
from hvq_edge.data.layouts import mvtec, plain_folder
from hvq_edge.data.layouts.folders import (
    GOOD,
    CategoryContent,
    DatasetImage,
    is_folder,
    list_images,
)
from hvq_edge.data.splits import Split, split_training
from hvq_edge.errors import DatasetError, InputError
from hvq_edge.run.record import ImageRecord
from hvq_edge.run.settings import TrainingSettings

LEAST_TO_ADD = 10
"""Good images of a new category: with fewer nothing was measured (docs/explanation/learning.md)."""


def good_images_of(
    name: str,
    folder: Path,
    data: Path,
    training: TrainingSettings,
    known: Iterable[ImageRecord] = (),
    on_progress: ProgressCallback = silent,
) -> Split:
    """Divide the good images of a new category, as a training does.

    Args:
        name: of the category.
        folder: of its images: they lie in it, or it is the category's folder in the MVTec or the
            plain layout, of which test images are left out.
        data: what paths are relative to where they lie in it.
        training: how images are divided.
        known: images of other categories.
        on_progress: told of every image read.

    Returns:
        Images and their uses.

    Raises:
        DatasetError: no folder, too few good images, or one is known already.
        ImageError: an image cannot be read.
    """
    images, layout = _listed(name, folder)
    if len(images) < LEAST_TO_ADD:
        raise _too_few(name, len(images), folder)
    root = Path(os.path.abspath(folder))  # noqa: PTH100 (a link keeps its name)
    dataset = Dataset(folder, layout, tuple(images))
    split = split_training(dataset, training.held_out, training.seed, on_progress)
    different = len({one.sha256 for one in split.images})
    if different < LEAST_TO_ADD:
        raise _too_few(name, different, folder)
    others = {one.sha256: one for one in known}
    for one in split.images:
        if (other := others.get(one.sha256)) is not None:
            raise DatasetError(
                f"{folder / one.path} is an image of {other.category} as well: {other.path}.",
                next_step=f"take it out; or give {other.category} another name with hvq-edge "
                "rename-category",
            )
    recorded = (
        one.model_copy(update={"path": recorded_path(root / one.path, data)})
        for one in split.images
    )
    return Split(tuple(recorded), split.held_out_from)


def check_name(name: str, known: Collection[str]) -> None:
    """Raise an InputError where a category cannot be called so beside those that are known."""
    if name in known:
        raise InputError(
            f"there is a category {name!r} already, among {', '.join(known)}.",
            next_step="choose another name; more good images of a known category are for hvq-edge "
            "learn, which changes a bundle, or hvq-edge train",
        )
    if name.lower() in RESERVED_CATEGORIES:
        raise InputError(
            f"a category cannot be called {name!r}: --category {name.lower()} means something "
            "else.",
            next_step="choose another name",
        )
    # Names are those of folders everywhere else.
    if not name.strip() or name != Path(name).name or name != name.strip() or name[0] == ".":
        raise InputError(
            f"a category cannot be called {name!r}: it must be fit for a folder's name.",
            next_step="choose another name",
        )


def _listed(name: str, folder: Path) -> tuple[list[DatasetImage], Layout]:
    """List the good images to learn from; in a category's folder those that are no test images."""
    if not is_folder(folder):
        raise DatasetError(
            f"there is no folder {folder}.", next_step="name a folder of good images with --good"
        )
    if mvtec.is_category(folder):
        return _to_learn(mvtec.read_category(folder, name)), "mvtec"
    if plain_folder.is_category(folder):
        return _to_learn(plain_folder.read_category(folder, name)), "plain"
    paths = list_images(folder, deep=False).images
    return [DatasetImage(path, name, "train", GOOD) for path in paths], "plain"


def _to_learn(content: CategoryContent) -> list[DatasetImage]:
    return [one for one in content.images if one.split == "train" and one.good]


def _too_few(name: str, count: int, folder: Path) -> DatasetError:
    return DatasetError(
        f"{name} has {counted(count, 'different good image')} to learn from in {folder}: at least "
        f"{LEAST_TO_ADD} are needed.",
        next_step=f"add good images of {name}, some dozens; they lie in the folder itself, or in "
        "train/good or good in it",
    )
