"""Is a dataset fit for training, and for numbers that can be trusted?

Every image and mask is decoded once, in a few threads, and only facts about it are kept: memory
does not grow with the images' size. Images are told apart by their decoded pixels, so that a
copy in another format or with other metadata is a copy all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.content import ImageContent, in_threads, read_content
from hvq_edge.data.copies import same_images
from hvq_edge.data.dataset import Dataset, Layout, find_dataset
from hvq_edge.data.findings import DatasetFinding, FindingKind, level_findings, too_few
from hvq_edge.data.images import read_full_mask
from hvq_edge.data.layouts.folders import DatasetImage
from hvq_edge.data.layouts.masks import MASK_FOLDER
from hvq_edge.data.splits import AnotherDay, of_another_day
from hvq_edge.errors import ImageError, MissingCapability

_NOT_KNOWN = AnotherDay(frozenset(), ""), 0
_MASK_KINDS = tuple(kind for kind in get_args(FindingKind) if kind.startswith("mask_"))


@dataclass(frozen=True)
class CategoryCheck:
    """What one category holds. Counts are files."""

    category: str
    train_good: int
    """Good images to learn from."""
    validation_good: int
    """Good images that the layout keeps apart for thresholds."""
    known_defects: int
    """Defective images to train with."""
    test_good: int
    test_defective: int
    masks: int
    """Masks that belong to an image."""
    smallest: tuple[int, int] | None
    """Width and height in pixels of the image with the fewest; ``None``: none can be read."""
    largest: tuple[int, int] | None
    unreadable: int
    """Images and masks that cannot be decoded."""
    leaked: int
    """Test images that are training images too, of this or another category."""
    mask_faults: int
    """Masks that do not fit, and images that lack theirs."""
    days: tuple[tuple[date, int], ...]
    """On which the good training images were taken, with their number, as far as all of them say
    it; the first day first."""
    days_said_by: str
    """What says the days, in words."""
    held_out: int
    """Good training images of another day, which set the threshold; 0: a random share does."""
    held_out_from: str
    """When or where these were taken, in words, as a run records it."""
    test_by_content: tuple[Path, ...]
    """Good images that are test images because of their content, where the layout has no folder
    of them."""


@dataclass(frozen=True)
class DatasetCheck:
    """The result of :func:`check_dataset`."""

    root: Path
    layout: Layout
    categories: tuple[CategoryCheck, ...]
    """Sorted by name."""
    faults: tuple[DatasetFinding, ...]
    """What stops a training or spoils its numbers, by kind in the order of ``FindingKind``."""
    copies: tuple[DatasetFinding, ...]
    """Images that occur several times within training, or within test: they weigh more."""
    notes: tuple[str, ...]
    """What looked odd in the folders, one sentence each; of masks the faults say it."""

    @property
    def fit(self) -> bool:
        """Whether nothing was found that stops a training or spoils its numbers."""
        return not self.faults


@dataclass(frozen=True)
class _Facts:
    """What is kept of one image and its mask."""

    image: DatasetImage
    content: ImageContent
    faults: tuple[DatasetFinding, ...]


def check_dataset(root: Path, on_progress: ProgressCallback = silent) -> DatasetCheck:
    """Decode every image and mask of a dataset and say what is wrong.

    Args:
        root: folder of the dataset, in any layout of :func:`hvq_edge.data.dataset.find_dataset`.
        on_progress: told after each image.

    Raises:
        DatasetError: there is no dataset in ``root``.
        ImageError: a file that the plain layout must hash cannot be read at all.
    """
    dataset = find_dataset(root, on_progress)
    facts = []
    images = (*dataset.images, *dataset.known_defects)
    for one in in_threads(_examine, images):
        facts.append(one)
        on_progress("Checking images", len(facts), len(images), one.image.category)
    contents = [one.content for one in facts[: len(dataset.images)]]
    notes = [note for note in dataset.notes if note not in dataset.mask_notes]
    try:
        apart = {name: _held_out(name, facts) for name in dataset.categories}
    except MissingCapability:  # a device that trains nothing
        notes.append("Pillow is not installed, so the days of the images are not known.")
        apart = {}
    repeated = list(_repeated(facts))
    faults = [
        *(fault for one in facts for fault in one.faults),
        *_too_few(facts),
        *level_findings(dataset.images, contents),
        *(finding for finding in repeated if finding.kind != "copies"),
        *_without_mask(dataset),
        *_misplaced(dataset),
    ]
    order = get_args(FindingKind)
    faults.sort(key=lambda fault: (order.index(fault.kind), fault.categories, fault.paths))
    return DatasetCheck(
        root=dataset.root,
        layout=dataset.layout,
        categories=tuple(
            _summary(name, facts, faults, apart.get(name, _NOT_KNOWN), dataset.layout)
            for name in dataset.categories
        ),
        faults=tuple(faults),
        copies=tuple(finding for finding in repeated if finding.kind == "copies"),
        notes=tuple(notes),
    )


def _examine(image: DatasetImage) -> _Facts:
    faults: list[DatasetFinding] = []
    try:
        content = read_content(image.path)
    except ImageError as error:
        content = ImageContent("", fault=error)
    if content.fault is not None:
        faults.append(_unreadable(image, image.path, content.fault))
    if image.mask is not None:
        try:
            mask = read_full_mask(image.mask)
        except ImageError as error:
            faults.append(_unreadable(image, image.mask, error))
        else:
            faults += _mask_faults(image, image.mask, mask, content.size)
    return _Facts(image, content, tuple(faults))


def _mask_faults(
    image: DatasetImage, path: Path, mask: NDArray[np.bool_], size: tuple[int, int] | None
) -> Iterator[DatasetFinding]:
    height, width = mask.shape
    if size is not None and size != (width, height):
        detail = f"the mask is {width}x{height}, its image {size[0]}x{size[1]}"
        yield DatasetFinding("mask_size", (image.category,), (path,), detail)
    if not mask.any():
        yield DatasetFinding("mask_empty", (image.category,), (path,), "it marks no pixel")
    elif mask.all():
        yield DatasetFinding("mask_full", (image.category,), (path,), "it marks every pixel")


def _unreadable(image: DatasetImage, path: Path, error: ImageError) -> DatasetFinding:
    detail = error.cause.removeprefix(f"{path} ").removesuffix(".")
    return DatasetFinding("unreadable", (image.category,), (path,), detail)


def _repeated(facts: Iterable[_Facts]) -> Iterator[DatasetFinding]:
    """Yield one finding for each image content that several files have."""
    readable = [one for one in facts if one.content.pixels]
    contents = same_images(
        [one.image.path for one in readable],
        [one.content for one in readable],
        [one.image.category for one in readable],
    )
    by_content: dict[str, list[_Facts]] = {}
    for one, content in zip(readable, contents, strict=True):
        by_content.setdefault(content, []).append(one)
    for same in by_content.values():
        if len(same) == 1:
            continue
        images = [one.image for one in same]
        lossless = len({one.content.pixels for one in same}) == 1
        detail = "the same image" if lossless else "the same image, once saved with loss,"
        kind: FindingKind
        if len({image.split for image in images}) == 2:
            kind, detail = "train_and_test", f"{detail} in train and test"
        elif len({image.good for image in images}) == 2:
            kind, detail = "good_and_defective", f"{detail} called good and defective"
        else:
            kind, detail = "copies", f"{detail.rstrip(',')}, all in {images[0].split}"
        categories = tuple(sorted({image.category for image in images}))
        paths = tuple(image.path for image in images)
        yield DatasetFinding(kind, categories, paths, detail)


def _held_out(name: str, facts: Iterable[_Facts]) -> tuple[AnotherDay, int]:
    """Find what sets the threshold of a category, as training does, and of how many images."""
    own = [one for one in facts if one.image.category == name and _to_learn(one.image)]
    readable = [one for one in own if one.content.pixels]
    paths = [one.image.path for one in readable]
    hashes = dict(zip(paths, same_images(paths, [one.content for one in readable]), strict=True))
    found = of_another_day([one.image for one in readable], hashes)
    return found, sum(content in found.contents for content in hashes.values())


def _too_few(facts: Iterable[_Facts]) -> Iterator[DatasetFinding]:
    """Yield the categories that no training can start with."""
    trained: dict[str, list[_Facts]] = {}
    for one in facts:
        own = trained.setdefault(one.image.category, [])
        if _to_learn(one.image):
            own.append(one)
    for name, own in sorted(trained.items()):
        finding = too_few(name, [one.image for one in own], [one.content for one in own])
        if finding is not None:
            yield finding


def _to_learn(image: DatasetImage) -> bool:
    return image.split == "train" and image.good


def _without_mask(dataset: Dataset) -> Iterator[DatasetFinding]:
    """Yield defective images without a mask, of categories where others have one."""
    defective = [image for image in dataset.images if not image.good]
    masked = {image.category for image in defective if image.mask is not None}
    shared = {path for _, _, images in dataset.shared_masks for path in images}
    for image in defective:
        if image.mask is None and image.category in masked and image.path not in shared:
            detail = "defective, without a mask; others of the category have one"
            yield DatasetFinding("mask_missing", (image.category,), (image.path,), detail)


def _misplaced(dataset: Dataset) -> Iterator[DatasetFinding]:
    for category, mask in dataset.unused_masks:
        yield DatasetFinding("mask_unused", (category,), (mask,), "no image belongs to this mask")
    for category, mask, images in dataset.shared_masks:
        detail = f"all would have the mask {mask.name}: it is used for none of them"
        yield DatasetFinding("mask_shared", (category,), images, detail)
    for category, mask in dataset.stray_masks:
        detail = f"among the images, and left out; masks belong in {MASK_FOLDER}"
        yield DatasetFinding("mask_place", (category,), (mask,), detail)


def _summary(
    name: str,
    facts: Iterable[_Facts],
    faults: Sequence[DatasetFinding],
    apart: tuple[AnotherDay, int],
    layout: Layout,
) -> CategoryCheck:
    own = [one for one in facts if one.image.category == name]
    images = [one.image for one in own]
    sizes = sorted(
        (one.content.size for one in own if one.content.size), key=lambda size: size[0] * size[1]
    )
    here = [fault for fault in faults if name in fault.categories]
    leaked = {path for fault in here if fault.kind == "train_and_test" for path in fault.paths}
    return CategoryCheck(
        category=name,
        train_good=sum(_to_learn(image) and not image.kept_apart for image in images),
        validation_good=sum(image.kept_apart for image in images),
        known_defects=sum(image.split == "train" and not image.good for image in images),
        test_good=sum(image.split == "test" and image.good for image in images),
        test_defective=sum(image.split == "test" and not image.good for image in images),
        masks=sum(image.mask is not None for image in images),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        unreadable=sum(fault.kind == "unreadable" for fault in here),
        leaked=sum(one.split == "test" and one.path in leaked for one in images),
        mask_faults=sum(fault.kind in _MASK_KINDS for fault in here),
        days=apart[0].days,
        days_said_by=apart[0].said_by,
        held_out=apart[1],
        held_out_from=apart[0].source,
        test_by_content=tuple(
            image.path
            for image in images
            if layout == "plain" and image.good and image.split == "test"
        ),
    )
