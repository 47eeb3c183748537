"""Which image files show the same image, whatever their names and formats.

Copies have the same decoded pixels; or one was saved with loss, perhaps smaller. The latter are
told by a sketch, which a lossy format moves by little, and by how far away the other images of the
category are: frames of a part that nothing moves look as much alike as copies do, and are none.

The limits were measured on 2,400 images of eight products. JPEG of quality 30 and WebP of quality
50 move no part of a sketch by more than 3.2 levels, and no place by more than 11.8; the two photos
that are most alike differ by 5.2 and 9.2, and other photos are hardly farther from them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hvq_edge.data.content import ImageContent, sketch_of
from hvq_edge.data.images import read_image
from hvq_edge.errors import ImageError

_OF_ONE_STEM = 2.0
"""Grey levels by which the sketch of a copy may differ that its name tells as well."""
_OF_ANY_NAME = 4.0
"""Likewise of one that its name does not tell."""
_IN_A_PLACE = 16.0
"""Grey levels by which a small place may differ: a defect on the same part differs by more."""
_PLACES = 64
"""Such places along each side."""
_NEARER = 4.0
"""Times by which a copy is nearer than the images that are no copies."""
_NEIGHBOUR = 5
"""The image that is asked how far others are away: so many copies of one image are told."""
_ALL_ALIKE = 1.0
"""Grey levels; where neighbours are nearer, the camera looks at a part that nothing moves."""
_SAME_SHAPE = 0.02
"""Share by which the ratio of the sides may differ, as rounding a smaller size does."""
_ROWS = 256
"""Images compared with all at a time."""


def same_images(
    paths: Sequence[Path], contents: Sequence[ImageContent], categories: Sequence[str] | None = None
) -> list[str]:
    """Return a name for the content of each image, which its copies have as well.

    Args:
        paths: of the images.
        contents: what each holds.
        categories: of the images, among which copies that lost something are looked for; ``None``:
            all are of one.

    Returns:
        The smallest SHA-256 among an image and its copies: where there are none, its own.
    """
    leader = list(range(len(paths)))

    def find(number: int) -> int:
        while leader[number] != number:
            number = leader[number]
        return number

    def join(one: int, other: int) -> None:
        leader[find(one)] = find(other)

    first: dict[str, int] = {}
    of_stem: dict[Path, list[int]] = defaultdict(list)
    members: dict[str, list[int]] = defaultdict(list)
    for number, (path, content) in enumerate(zip(paths, contents, strict=True)):
        before = first.setdefault(content.pixels or content.sha256, number)
        join(number, before)
        namesakes = of_stem[path.with_suffix("")]
        for other in namesakes:
            if _look_the_same(content, contents[other]):
                join(number, other)
        namesakes.append(number)
        if content.sketch is not None and before == number:
            members[categories[number] if categories else ""].append(number)
    for own in members.values():
        for one, other in _nearly_the_same([contents[number] for number in own]):
            if _same_in_every_place(paths[own[one]], paths[own[other]]):
                join(own[one], own[other])
    names: dict[int, str] = {}
    for number, content in enumerate(contents):
        group = find(number)
        names[group] = min(names.get(group, content.sha256), content.sha256)
    return [names[find(number)] for number in range(len(paths))]


def _look_the_same(one: ImageContent, other: ImageContent) -> bool:
    if one.sketch is None or other.sketch is None or one.size != other.size:
        return False
    return bool(np.abs(one.sketch - other.sketch).max() <= _OF_ONE_STEM)


def _nearly_the_same(contents: Sequence[ImageContent]) -> Iterator[tuple[int, int]]:
    """Yield pairs of images that are far nearer to each other than to the rest."""
    if len(contents) < 3:  # nothing says how near others are
        return
    sketches = np.stack([np.ravel(one.sketch) for one in contents if one.sketch is not None])
    sketches -= sketches.mean(axis=0)  # what all share only costs digits
    lengths = np.einsum("ij,ij->i", sketches, sketches)
    around = np.empty(len(contents), np.float32)
    near: list[tuple[int, int]] = []
    for start in range(0, len(contents), _ROWS):
        rows = slice(start, start + _ROWS)
        squares = lengths[rows, None] + lengths - 2 * sketches[rows] @ sketches.T
        apart = np.sqrt(np.maximum(squares, 0) / sketches.shape[1])
        place = min(_NEIGHBOUR, len(contents) - 1)  # the image itself comes first
        around[rows] = np.partition(apart, place, axis=1)[:, place]
        near += [
            (int(one) + start, int(other)) for one, other in np.argwhere(apart <= _OF_ANY_NAME)
        ]
    for one, other in near:
        if one >= other or not _of_one_shape(contents[one], contents[other]):
            continue
        moved = np.abs(sketches[one] - sketches[other])
        others = min(around[one], around[other])
        if (
            moved.max() <= _OF_ANY_NAME
            and others >= _ALL_ALIKE
            and _NEARER * float(np.sqrt(np.mean(moved**2))) <= others
        ):
            yield one, other


def _of_one_shape(one: ImageContent, other: ImageContent) -> bool:
    if one.size is None or other.size is None:
        return False
    ratio = one.size[0] * other.size[1] / (one.size[1] * other.size[0])
    return abs(ratio - 1) <= _SAME_SHAPE


def _same_in_every_place(one: Path, other: Path) -> bool:
    """Compare images closely, so that a part before and after it was damaged is no copy."""
    try:
        first, second = (sketch_of(read_image(path), _PLACES) for path in (one, other))
    except ImageError:  # gone since
        return False
    return bool(np.abs(first - second).max() <= _IN_A_PLACE)
