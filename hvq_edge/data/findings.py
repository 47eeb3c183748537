"""What is wrong with images that a model is to learn from: for ``data check`` and for training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hvq_edge.common.wording import counted
from hvq_edge.data.content import ImageContent
from hvq_edge.data.copies import same_images
from hvq_edge.data.layouts.folders import DatasetImage

FindingKind = Literal[
    "unreadable",
    "too_few",
    "hardly_differ",
    "two_levels",
    "few_levels",
    "train_and_test",
    "good_and_defective",
    "mask_place",
    "mask_size",
    "mask_empty",
    "mask_full",
    "mask_missing",
    "mask_shared",
    "mask_unused",
    "copies",
]
LEAST_TO_FIT = 2
"""Images a category needs to learn from; one more is held out."""
LEAST_KNOWN_DEFECTS = 5
"""Known defects of a category from which on they are learnt from."""

_HARDLY = 0.02
"""Grey levels: sensor noise moves the mean of some part of an image by more."""
_CAMERA_BITS = (8, 10, 12, 14)
_NAMED = 3


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


def level_findings(
    images: Sequence[DatasetImage], contents: Sequence[ImageContent]
) -> Iterator[DatasetFinding]:
    """Yield what the levels of images tell: training images that hardly differ, masks, lost bits.

    Args:
        images: of any categories and both splits.
        contents: what each holds.
    """
    of_category: dict[str, list[tuple[DatasetImage, ImageContent]]] = defaultdict(list)
    for image, content in zip(images, contents, strict=True):
        if content.pixels:
            of_category[image.category].append((image, content))
    for name, found in sorted(of_category.items()):
        yield from _hardly_differ(name, [c for image, c in found if image.split == "train"])
        yield from _two_levels(name, found)
        yield from _few_levels(name, [content for _, content in found])


def too_few(
    name: str, images: Sequence[DatasetImage], contents: Sequence[ImageContent]
) -> DatasetFinding | None:
    """Tell whether no training can start with a category's good training images.

    Args:
        name: of the category.
        images: its good training images.
        contents: what each holds.
    """
    readable = [(i.path, c) for i, c in zip(images, contents, strict=True) if c.pixels]
    different = len(set(same_images(*zip(*readable, strict=True)))) if readable else 0
    least = LEAST_TO_FIT + 1  # one is held out for the threshold
    if len(readable) >= least and different >= 2:
        return None
    detail = (
        f"{counted(len(readable), 'good training image')} can be read, {different} of them "
        "different; "
        f"{least} are needed, not all the same"
    )
    return DatasetFinding("too_few", (name,), (), detail)


def sentence_of(finding: DatasetFinding, root: Path) -> str:
    """Put a finding into one sentence for the log; paths are relative to ``root``."""
    names = [path.relative_to(root).as_posix() for path in finding.paths[:_NAMED]]
    more = len(finding.paths) - len(names)
    where = f"{', '.join(names)}{f' and {more} more' if more > 0 else ''}: " if names else ""
    return f"{', '.join(finding.categories)}: {where}{finding.detail}."


def _hardly_differ(name: str, contents: Sequence[ImageContent]) -> Iterator[DatasetFinding]:
    if len({content.pixels for content in contents}) < 2 or len({c.size for c in contents}) > 1:
        return
    sketches = np.stack([content.sketch for content in contents if content.sketch is not None])
    if float(np.ptp(sketches, axis=0).max()) <= _HARDLY:
        detail = (
            f"the {len(contents)} training images hardly differ: every real part will look "
            "unknown; take images of many parts"
        )
        yield DatasetFinding("hardly_differ", (name,), (), detail)


def _two_levels(
    name: str, found: Sequence[tuple[DatasetImage, ImageContent]]
) -> Iterator[DatasetFinding]:
    if all(content.two_levels for _, content in found):
        return  # what this camera gives
    for image, content in found:
        if content.two_levels:
            detail = "it has two levels at most: a mask, or an empty exposure"
            yield DatasetFinding("two_levels", (name,), (image.path,), detail)


def _few_levels(name: str, contents: Sequence[ImageContent]) -> Iterator[DatasetFinding]:
    deep = [content for content in contents if content.bits > 8]
    highest = max((content.highest for content in deep), default=0)
    bits = next((bits for bits in _CAMERA_BITS if highest < 2**bits), 0)
    if deep and bits:
        images = "one 16-bit image uses" if len(deep) == 1 else f"{len(deep)} 16-bit images use"
        detail = (
            f"the {images} levels up to {highest} of 65535, as {bits}-bit "
            f"cameras give them: only {highest // 257 + 1} of 256 are left when they are read; "
            f"multiply them by {2 ** (16 - bits)}, here and on the line"
        )
        yield DatasetFinding("few_levels", (name,), (), detail)
