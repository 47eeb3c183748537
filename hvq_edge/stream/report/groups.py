"""Rejects in groups that look alike, and the names that people gave to them.

A name is what reviews said of most of a group's judged rejects. So it stands in the log, and later
rejects of the same look find it there: rejects that were judged before are grouped with the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import read_image
from hvq_edge.errors import ImageError
from hvq_edge.stream.live_page.images import jpeg
from hvq_edge.stream.log.reader import row_with
from hvq_edge.stream.review.candidates import Candidate
from hvq_edge.stream.review.desk import ReviewDesk
from hvq_edge.stream.review.images import regions_of
from hvq_edge.verdict.regions import Region

Describe = Callable[
    [NDArray[np.uint8], str, NDArray[np.int32]],
    "NDArray[np.float32] | None",
]
"""Image, category and outline of a region -> what it looks like; ``None``: not known."""

LEAST_GROUPED = 4
"""Of a category: fewer have nothing in common that the others could be without."""
MOST_GROUPED = 400
MOST_JUDGED = 100
"""Rejects from before the report's time that bring their names."""
NAMES_DAYS = 90.0
"""How far back these are looked for."""
LEAST_SAID = 2
"""So many reviews, and more than half of a group's, make a name."""
CROPS = 6
CROP_SIDE = 144
GOOD = "good after all"
"""The name of a group of rejects that people called good."""
_ROOM = 1.8
"""Side of a crop, in the longer side of the region's box."""
_LEAST_SHARE = 0.2
"""Of the image's shorter side that a crop shows at least."""
_RED = (255, 48, 48)
Kept = tuple[Candidate, Path]
"""A reject and its image."""


@dataclass(frozen=True)
class Group:
    """Rejects of one category that look alike."""

    name: str
    """What people called them; empty: nothing that holds for most of those that they judged."""
    category: str
    rejects: tuple[Candidate, ...]
    """Of the report's time; the most typical ones first."""
    said: Counter[str]
    """What reviews said of them, and of others of the same look from before."""
    crops: tuple[bytes, ...] = ()
    """JPEG: the regions of the first ones, with something around them."""

    @property
    def cameras(self) -> Counter[str]:
        """How many of the rejects each has."""
        return Counter(one.camera for one in self.rejects)


@dataclass(frozen=True)
class Groups:
    """All groups: those of one name together, the most frequent name first."""

    groups: tuple[Group, ...]
    rejects: int
    """Of the report's time, whether they are in a group or not."""
    images: int
    """Those that have an image still: of more than :data:`MOST_GROUPED` not all are looked at."""
    too_few: int
    """Those of categories with fewer than :data:`LEAST_GROUPED`."""
    without: int
    """Those without an image, a region, or a category that the bundle knows."""

    @property
    def names(self) -> list[str]:
        """What each group is called; those without a name have a number."""
        unnamed = iter(range(1, len(self.groups) + 1))
        return [one.name or f"group {next(unnamed)}" for one in self.groups]


@dataclass(frozen=True)
class _Seen:
    candidate: Candidate
    file: Path
    region: Region
    look: NDArray[np.float32]
    said: str | None


def group_rejects(
    desk: ReviewDesk,
    describe: Describe,
    begin: float,
    rejects: int,
    on_progress: ProgressCallback = silent,
) -> Groups:
    """Group rejects by their worst regions, category by category.

    Args:
        desk: of the report's time and the :data:`NAMES_DAYS` before.
        describe: says what a region looks like.
        begin: of the report's time; rejects from before bring names alone.
        rejects: of the report's time, in all.
        on_progress: called after each image.

    Raises:
        InputError: there is no log, or it is damaged.
    """
    said = {
        candidate.id: review.defect or GOOD
        for candidate, review, _ in desk.judged_images()
        if review.judgement in ("good", "defective")
    }
    kept = desk.rejects()
    there = [one for one in kept if one[0].time >= begin]
    own = _spread(there, MOST_GROUPED)
    former = [one for one in kept if one[0].time < begin and one[0].id in said][-MOST_JUDGED:]
    by_category: dict[str, list[_Seen]] = {}
    for done, (candidate, file) in enumerate([*former, *own], start=1):
        seen = _seen(desk, describe, candidate, file, said.get(candidate.id))
        if seen is not None:
            by_category.setdefault(candidate.category or "", []).append(seen)
        on_progress("rejects by likeness", done, len(former) + len(own))
    groups: list[Group] = []
    too_few = 0
    for members in by_category.values():
        if len(members) < LEAST_GROUPED:
            too_few += sum(one.candidate.time >= begin for one in members)
        else:
            groups += _groups_of(members, begin)
    sizes: Counter[str] = Counter()
    for one in groups:
        sizes[one.name] += len(one.rejects)
    groups.sort(
        key=lambda one: (
            -sizes[one.name] if one.name else -len(one.rejects),
            not one.name,
            one.name,
            -len(one.rejects),
        )
    )
    without = rejects - len(there) + len(own) - sizes.total() - too_few
    return Groups(tuple(groups), rejects, len(there), too_few, without)


def alike(looks: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.int64]:
    """Group vectors by the directions in which they leave their common mean.

    Two groups become one while a vector of one and a vector of the other leave it in like
    directions on average, the most alike first (average linkage). Where the vectors lie decides how
    many groups remain.

    Args:
        looks: ``[vectors, channels]``.

    Returns:
        The group of each, ``[vectors]``.
    """
    away = looks - looks.mean(0)
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    likeness = away.astype(np.float64) @ away.T
    np.fill_diagonal(likeness, -np.inf)
    sizes = np.ones(len(looks))
    groups = np.arange(len(looks))
    while True:
        kept, joined = np.unravel_index(likeness.argmax(), likeness.shape)
        if not likeness[kept, joined] > 0.0:
            return groups
        row = sizes[kept] * likeness[kept] + sizes[joined] * likeness[joined]
        likeness[kept] = likeness[:, kept] = row / (sizes[kept] + sizes[joined])
        likeness[joined] = likeness[:, joined] = likeness[kept, kept] = -np.inf
        sizes[kept] += sizes[joined]
        groups[groups == joined] = kept


def _seen(
    desk: ReviewDesk, describe: Describe, candidate: Candidate, file: Path, said: str | None
) -> _Seen | None:
    row = row_with(desk.log, candidate.id)
    regions = regions_of(row and row.regions)
    try:
        image = read_image(file)
    except (ImageError, OSError):
        return None  # it made room meanwhile, or is damaged
    look = describe(image, candidate.category or "", regions[0].contour) if regions else None
    return None if look is None else _Seen(candidate, file, regions[0], look, said)


def _groups_of(members: Sequence[_Seen], begin: float) -> list[Group]:
    """Group rejects of one category; only those of the report's time are shown and counted."""
    looks = np.stack([one.look for one in members])
    found = alike(looks)
    groups = []
    for number in np.unique(found):
        own: list[int] = np.flatnonzero(found == number).tolist()
        said = Counter(what for index in own if (what := members[index].said) is not None)
        unlike = np.linalg.norm(looks[own] - looks[own].mean(0), axis=1)
        typical = [members[own[place]] for place in unlike.argsort(kind="stable").tolist()]
        shown = [one for one in typical if one.candidate.time >= begin]
        if shown:
            rejects = tuple(one.candidate for one in shown)
            category = shown[0].candidate.category or ""
            groups.append(Group(name_of(said), category, rejects, said, _crops(shown)))
    return groups


def name_of(said: Counter[str]) -> str:
    """Return what most reviews of a group said; empty: too few said the same.

    Args:
        said: what they said, and how often.
    """
    for what, count in said.most_common(1):
        if count >= LEAST_SAID and 2 * count > said.total():
            return what
    return ""


def _crops(seen: Sequence[_Seen]) -> tuple[bytes, ...]:
    crops: list[bytes] = []
    for one in seen:
        try:
            crops.append(jpeg(_crop(read_image(one.file), one.region)))
        except (ImageError, OSError):
            continue  # it made room meanwhile
        if len(crops) == CROPS:
            break
    return tuple(crops)


def _crop(image: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
    """Cut a square around a region, and draw its outline."""
    height, width = image.shape[:2]
    left, top, columns, rows = region.box
    side = max(_ROOM * max(columns, rows), _LEAST_SHARE * min(height, width))
    side = int(min(side, height, width))
    x = int(np.clip(left + (columns - side) / 2, 0, width - side))
    y = int(np.clip(top + (rows - side) / 2, 0, height - side))
    part = image[y : y + side, x : x + side]
    scaling = cv2.INTER_AREA if side > CROP_SIDE else cv2.INTER_LINEAR
    shown = cv2.resize(part, (CROP_SIDE, CROP_SIDE), interpolation=scaling)
    scale = CROP_SIDE / side
    outline = np.rint((region.contour - (x, y) + 0.5) * scale - 0.5).astype(np.int32)
    cv2.polylines(shown, [outline], isClosed=True, color=_RED, lineType=cv2.LINE_AA)
    drawn: NDArray[np.uint8] = shown
    return drawn


def _spread(values: Sequence[Kept], most: int) -> list[Kept]:
    """Return some of many values, evenly spread."""
    if len(values) <= most:
        return list(values)
    return [values[place * len(values) // most] for place in range(most)]
