"""Is a dataset fit for training, and for numbers that can be trusted?

Every image and mask is decoded once, in a few threads, and only facts about it are kept: memory
does not grow with the images' size. Images are told apart by their decoded pixels, so that a
copy in another format or with other metadata is a copy all the same.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import Dataset, Layout, find_dataset
from hvq_edge.data.folders import DatasetImage
from hvq_edge.data.images import read_full_mask, read_image
from hvq_edge.data.splits import LEAST_TO_FIT
from hvq_edge.errors import ImageError

FindingKind = Literal[
    "unreadable",
    "too_few",
    "train_and_test",
    "good_and_defective",
    "mask_size",
    "mask_empty",
    "mask_full",
    "mask_missing",
    "mask_unused",
    "copies",
]
_MASK_KINDS = ("mask_size", "mask_empty", "mask_full", "mask_missing", "mask_unused")
_LEAST_TO_TRAIN = LEAST_TO_FIT + 1  # one is held out for the threshold
_MOST_THREADS = 8


@dataclass(frozen=True)
class DatasetFinding:
    """Something found in a dataset."""

    kind: FindingKind
    categories: tuple[str, ...]
    """Concerned, sorted; several where copies lie in several."""
    paths: tuple[Path, ...]
    """Files concerned; empty where a whole category is."""
    detail: str
    """What is wrong, a few words to stand behind the paths."""


@dataclass(frozen=True)
class CategoryCheck:
    """What one category holds. Counts are files."""

    category: str
    train_good: int
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
    """What looked odd in the folders, one sentence each."""

    @property
    def fit(self) -> bool:
        """Whether nothing was found that stops a training or spoils its numbers."""
        return not self.faults


@dataclass(frozen=True)
class _Facts:
    """What is kept of one image and its mask."""

    image: DatasetImage
    size: tuple[int, int] | None
    """Width and height; ``None``: it cannot be decoded."""
    pixels: bytes
    """Hash of the decoded pixels; empty where they cannot be decoded."""
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
    facts = list(_examine_all(dataset.images, on_progress))
    repeated = list(_repeated(facts))
    faults = [
        *(fault for one in facts for fault in one.faults),
        *_too_few(facts),
        *(finding for finding in repeated if finding.kind != "copies"),
        *_without_mask(dataset.images),
        *_unused(dataset),
    ]
    order = get_args(FindingKind)
    faults.sort(key=lambda fault: (order.index(fault.kind), fault.categories, fault.paths))
    return DatasetCheck(
        root=dataset.root,
        layout=dataset.layout,
        categories=tuple(_summary(name, facts, faults) for name in dataset.categories),
        faults=tuple(faults),
        copies=tuple(finding for finding in repeated if finding.kind == "copies"),
        notes=dataset.notes,
    )


def _examine_all(images: Sequence[DatasetImage], on_progress: ProgressCallback) -> Iterator[_Facts]:
    """Yield the facts of each image in order; decoding and hashing run outside Python's lock."""
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS))
    try:
        for done, facts in enumerate(pool.map(_examine, images), start=1):
            yield facts
            on_progress("Checking images", done, len(images), facts.image.category)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for thousands of images


def _examine(image: DatasetImage) -> _Facts:
    faults: list[DatasetFinding] = []
    size, pixels = None, b""
    try:
        decoded = read_image(image.path)
        size, pixels = (decoded.shape[1], decoded.shape[0]), _hash_pixels(decoded)
    except ImageError as error:
        faults.append(_unreadable(image, image.path, error))
    if image.mask is not None:
        try:
            mask = read_full_mask(image.mask)
        except ImageError as error:
            faults.append(_unreadable(image, image.mask, error))
        else:
            faults += _mask_faults(image, image.mask, mask, size)
    return _Facts(image, size, pixels, tuple(faults))


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


def _hash_pixels(image: NDArray[np.uint8]) -> bytes:
    shape = b"%dx%d" % image.shape[:2]
    return hashlib.blake2b(image.data, digest_size=16, person=shape).digest()


def _repeated(facts: Iterable[_Facts]) -> Iterator[DatasetFinding]:
    """Yield one finding for each image content that several files have."""
    by_content: dict[bytes, list[DatasetImage]] = {}
    for one in facts:
        if one.pixels:
            by_content.setdefault(one.pixels, []).append(one.image)
    for images in by_content.values():
        if len(images) == 1:
            continue
        kind: FindingKind = "copies"
        detail = f"the same image, all in {images[0].split}"
        if len({image.split for image in images}) == 2:
            kind, detail = "train_and_test", "the same image in train and test"
        elif len({image.good for image in images}) == 2:
            kind, detail = "good_and_defective", "the same image called good and defective"
        categories = tuple(sorted({image.category for image in images}))
        paths = tuple(image.path for image in images)
        yield DatasetFinding(kind, categories, paths, detail)


def _too_few(facts: Iterable[_Facts]) -> Iterator[DatasetFinding]:
    """Yield the categories that no training can start with."""
    different: dict[str, set[bytes]] = {}
    readable: Counter[str] = Counter()
    for one in facts:
        different.setdefault(one.image.category, set())
        if one.image.split == "train" and one.pixels:
            different[one.image.category].add(one.pixels)
            readable[one.image.category] += 1
    for name in sorted(different):
        if readable[name] < _LEAST_TO_TRAIN or len(different[name]) < 2:
            detail = (
                f"{readable[name]} good training images can be read, {len(different[name])} of "
                f"them different; {_LEAST_TO_TRAIN} are needed, not all the same"
            )
            yield DatasetFinding("too_few", (name,), (), detail)


def _without_mask(images: Iterable[DatasetImage]) -> Iterator[DatasetFinding]:
    """Yield defective images without a mask, of categories where others have one."""
    defective = [image for image in images if not image.good]
    masked = {image.category for image in defective if image.mask is not None}
    for image in defective:
        if image.mask is None and image.category in masked:
            detail = "defective, without a mask; others of the category have one"
            yield DatasetFinding("mask_missing", (image.category,), (image.path,), detail)


def _unused(dataset: Dataset) -> Iterator[DatasetFinding]:
    for category, mask in dataset.unused_masks:
        yield DatasetFinding("mask_unused", (category,), (mask,), "no image belongs to this mask")


def _summary(name: str, facts: Iterable[_Facts], faults: Sequence[DatasetFinding]) -> CategoryCheck:
    own = [one for one in facts if one.image.category == name]
    images = [one.image for one in own]
    sizes = sorted((one.size for one in own if one.size), key=lambda size: size[0] * size[1])
    here = [fault for fault in faults if name in fault.categories]
    leaked = {path for fault in here if fault.kind == "train_and_test" for path in fault.paths}
    return CategoryCheck(
        category=name,
        train_good=sum(image.split == "train" for image in images),
        test_good=sum(image.split == "test" and image.good for image in images),
        test_defective=sum(not image.good for image in images),
        masks=sum(image.mask is not None for image in images),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        unreadable=sum(fault.kind == "unreadable" for fault in here),
        leaked=sum(one.split == "test" and one.path in leaked for one in images),
        mask_faults=sum(fault.kind in _MASK_KINDS for fault in here),
    )
