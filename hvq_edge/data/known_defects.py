"""Known defects: defective images that a training is given beside the good ones.

They lie in ``train/<defect>`` of a category in MVTec layout, or in a folder of their own
(:data:`TREE`). They are never good and never test images, whatever their names say.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.data.content import ImageContent, in_threads, read_content
from hvq_edge.data.copies import same_images
from hvq_edge.data.dataset import Dataset, check_text
from hvq_edge.data.layouts.folders import DatasetImage, good_folders, is_folder, list_folders
from hvq_edge.data.layouts.mvtec import read_known_defects
from hvq_edge.errors import DatasetError
from hvq_edge.run.record import KnownDefect

logger = logging.getLogger(__name__)

TREE = """\
DIR/
└── <category>/                  called as in --data
    ├── <defect>/                defective images, a folder for each kind
    └── ground_truth/<defect>/   masks <stem>_mask.png (optional)"""


def known_defects(
    dataset: Dataset, folder: Path | None = None, on_progress: ProgressCallback = silent
) -> tuple[KnownDefect, ...]:
    """List the known defects of a dataset and check that they are nothing else.

    Args:
        dataset: whose good and test images they must not be among.
        folder: more of them, see :data:`TREE`.
        on_progress: told of every image read.

    Returns:
        One entry for each image, by category and path; without copies.

    Raises:
        DatasetError: ``folder`` has another layout or names no category of the dataset, or a known
            defect is a good or a test image as well.
        ImageError: one cannot be read.
    """
    known = [*dataset.known_defects, *(_in_folder(folder, dataset) if folder else ())]
    known.sort(key=lambda image: (image.category, image.path))
    if not known:
        return ()
    images = [*known, *dataset.images]
    contents: list[ImageContent] = []
    for content in in_threads(read_content, [image.path for image in images]):
        contents.append(content)
        on_progress("Reading known defects", len(contents), len(images))
    for content in contents[: len(known)]:
        if content.fault is not None:
            raise content.fault
    paths, categories = [image.path for image in images], [image.category for image in images]
    copies = same_images(paths, contents, categories)
    others = dict(zip(copies[len(known) :], dataset.images, strict=True))
    found: dict[str, KnownDefect] = {}
    for image, copy, content in zip(known, copies, contents, strict=False):
        if copy in others:
            raise _also(image, others[copy])
        entry = KnownDefect(
            path=recorded_path(image.path, dataset.root),
            category=image.category,
            sha256=content.sha256,
            defect=image.defect,
            mask=None if image.mask is None else recorded_path(image.mask, dataset.root),
        )
        if copy not in found or found[copy].mask is None:
            found[copy] = entry
    if len(found) < len(known):
        more = counted(len(known) - len(found), "copy", "copies")
        logger.warning("%s among the known defects: left out.", more)
    return tuple(found.values())


def _in_folder(folder: Path, dataset: Dataset) -> list[DatasetImage]:
    if not is_folder(folder):
        raise DatasetError(
            f"the folder of known defects {folder} does not exist.",
            next_step="check the path given with --defects",
        )
    found: list[DatasetImage] = []
    for own in list_folders(folder):
        if own.name not in dataset.categories:
            raise DatasetError(
                f"{own} names no category: there are {', '.join(dataset.categories)}.",
                next_step=f"rename the folder; the layout of --defects is\n{TREE}",
            )
        for good in good_folders(own):
            raise DatasetError(
                f"{good} is called as a folder of good images, and lies among known defects.",
                next_step="move good images to those of --data, or rename the folder",
            )
        content = read_known_defects(own, own.name)
        for note in (*content.notes, *content.mask_notes):
            logger.warning("%s", note)
        found += content.images
    check_text(folder, [image.path for image in found])
    if not found:
        raise DatasetError(
            f"the folder {folder} holds no known defects.",
            next_step=f"fill it, or leave --defects out; the layout is\n{TREE}",
        )
    return found


def recorded_path(path: Path, root: Path) -> str:
    """Relative to the dataset where it lies in it, else absolute: joined, both give the path."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return Path(os.path.abspath(path)).as_posix()  # noqa: PTH100 (a link keeps its name)


def _also(image: DatasetImage, other: DatasetImage) -> DatasetError:
    what = "a test image" if other.split == "test" else "a good training image"
    return DatasetError(
        f"the known defect {image.path} is {what} as well: {other.path}.",
        next_step="remove one of the two: a known defect is learnt from, so it can be neither "
        "good nor tested",
    )
