"""Ground-truth masks: which file is one, and to which image it belongs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.wording import counted
from hvq_edge.data.content import has_few_levels
from hvq_edge.data.images import read_any_levels
from hvq_edge.errors import ImageError

MASK_FOLDER = "ground_truth"
"""Where the layouts expect masks."""

MASK_ENDINGS = ("_mask", "", "_label", "_gt", "_seg")
"""What a mask's stem has after its image's, the first that is there wins."""

_NAME = r"(?:masks?|labels?|gt|seg|segmentations?|annotations?|ground[ _-]?truth)"
_FOLDER = re.compile(rf"(?:.*[ _-])?{_NAME}(?:[ _-].*)?", re.IGNORECASE)
_FILE = re.compile(rf"(?P<stem>.+)[ ._-]{_NAME}|{_NAME}[ ._-](?P<after>.+)", re.IGNORECASE)
_MOST_CLASSES = 16
"""Levels of a mask that numbers kinds of defect; a photo has more."""
_NEARLY, _OF_ALL = 8, 0.99
"""A lossy format moves a mask's 0 and 255 by so much, in all but one of a hundred pixels."""
_OF_SOFT, _EDGE = 0.8, 2.0
"""A mask that was blurred or resized has levels between, around its marks: at least so many of its
pixels are near 0 or 255, and the others are at most so many times its marks."""
_NOISY = 0.25
"""More neighbours differ in an exposure without light or with too much; a mask is of areas."""
_LOOKED_AT = 5


@dataclass(frozen=True)
class Assigned:
    """Masks of one category."""

    masks: Mapping[Path, Path]
    """By image."""
    shared: tuple[tuple[Path, tuple[Path, ...]], ...]
    """Masks that several images would have, with those: they belong to none."""


def may_hold_masks(name: str) -> bool:
    """Tell whether a folder is called as one of masks; a defect may well be called ``label``."""
    return _FOLDER.fullmatch(name) is not None


def is_ground_truth(name: str) -> bool:
    """Tell whether a folder is :data:`MASK_FOLDER`, however that is written."""
    return re.fullmatch(r"ground[ _-]?truth", name, re.IGNORECASE) is not None


def is_mask_folder(name: str, images: Sequence[Path]) -> bool:
    """Tell whether a folder is called as one of masks, and holds no photos.

    Args:
        name: of the folder. :data:`MASK_FOLDER` is one whatever it holds.
        images: in it and below.
    """
    if name == MASK_FOLDER:
        return True
    if not images or not may_hold_masks(name):
        return False
    return all(looks_like_mask(path, named=True) for path in _some(images))


def masks_beside(images: Sequence[Path]) -> list[Path]:
    """Return those of a folder's images that by name and content are masks of others in it."""
    stems = {path.stem.casefold() for path in images}

    def of_another(path: Path) -> bool:
        match = _FILE.fullmatch(path.stem)
        stem = match and (match["stem"] or match["after"])
        return bool(stem) and str(stem).casefold() in stems

    return [path for path in images if of_another(path) and looks_like_mask(path, named=True)]


def masks_elsewhere(images: Iterable[Path], among: Iterable[Path]) -> set[Path]:
    """Return the images in folders that hold the masks of images in other folders.

    Whatever the folder is called: its images have the few levels of masks, and more than half of
    them are called as images of other folders, which have not. Where all of them are nearly of one
    level, nothing is marked, and they are exposures without light, or with too much.

    Args:
        images: of which some may be masks.
        among: all images.
    """
    namesakes: dict[str, list[Path]] = defaultdict(list)
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in images:
        folders[path.parent].append(path)
    for path in among if folders else ():
        namesakes[path.stem.casefold()].append(path)

    def of(path: Path) -> list[Path]:
        match = _FILE.fullmatch(path.stem)
        stems = {path.stem, match and (match["stem"] or match["after"])}
        named = [other for stem in stems if stem for other in namesakes[stem.casefold()]]
        return [other for other in named if other.parent != path.parent]

    found: set[Path] = set()
    for own in folders.values():
        named = [path for path in own if of(path)]
        if 2 * len(named) <= len(own) or not _look_like_masks(own):
            continue
        if _look_like_masks([other for path in _some(named) for other in of(path)]):
            continue
        if any(np.ptp(read_any_levels(path)) > _NEARLY for path in own):
            found.update(own)
    return found


def _look_like_masks(images: Sequence[Path]) -> bool:
    return all(looks_like_mask(path) for path in _some(images))


def _some(images: Sequence[Path]) -> Sequence[Path]:
    return images[:: -(-len(images) // _LOOKED_AT)]


def looks_like_mask(path: Path, *, named: bool = False) -> bool:
    """Tell whether an image has the few levels of a mask; not so where it cannot be read.

    Args:
        path: of the image.
        named: it is called as a mask, so its edges may be soft.
    """
    try:
        levels = read_any_levels(path)
    except ImageError:
        return False
    return (has_few_levels(levels, _MOST_CLASSES) or _has_extremes(levels, named)) and (
        np.mean(levels[:, 1:] != levels[:, :-1]) <= _NOISY
    )


def _has_extremes(levels: NDArray[np.generic], soft: bool) -> bool:
    """Tell whether an image is nearly all black and white, and both."""
    if levels.dtype != np.uint8:
        return False
    brightest = levels if levels.ndim == 2 else levels.max(2)  # a mask may be drawn in a colour
    counts = np.bincount(brightest.ravel(), minlength=256)
    black, white = counts[: _NEARLY + 1].sum(), counts[-_NEARLY - 1 :].sum()
    marked, between = min(black, white), counts.sum() - black - white
    if soft and between <= _EDGE * marked:
        return bool(between <= (1 - _OF_SOFT) * counts.sum())
    return bool(marked > 0 and between <= (1 - _OF_ALL) * counts.sum())


def assign_masks(
    masks: Mapping[str, Mapping[PurePath, Path]], images: Mapping[Path, tuple[str, PurePath]]
) -> Assigned:
    """Find the mask of every defective image.

    The mask at the same place below its folder comes first; then one right in the folder, if no
    other image has it. Letters count whatever their case where no name matches to the letter.

    Args:
        masks: by kind of defect, every mask by its path below the kind's folder.
        images: kind of defect and path below its folder of every image.
    """
    assigned: dict[Path, Path] = {}
    shared: list[tuple[Path, tuple[Path, ...]]] = []
    index = {kind: _by_stem(below) for kind, below in masks.items()}
    taken: set[Path] = set()
    for flat in (False, True):
        claims: dict[Path, list[Path]] = defaultdict(list)
        for image, (kind, place) in images.items():
            if image not in assigned:
                mask = _find(index.get(kind, {}), PurePath(place.name) if flat else place)
                if mask is not None and mask not in taken:
                    claims[mask].append(image)
        for mask, claimants in claims.items():
            taken.add(mask)
            if len(claimants) > 1:
                shared.append((mask, tuple(claimants)))
            else:
                assigned[claimants[0]] = mask
    return Assigned(assigned, tuple(sorted(shared)))


def _by_stem(below: Mapping[PurePath, Path]) -> dict[str, Path]:
    """Index masks by place and stem, to the letter and folded; PNG before other formats."""
    found: dict[str, Path] = {}
    order = sorted(below, key=lambda place: (place.suffix.lower() != ".png", place))
    for fold in (False, True):
        for place in order:
            stem = place.with_suffix("").as_posix()
            found.setdefault(_folded(stem) if fold else stem, below[place])
    return found


def _find(index: Mapping[str, Path], place: PurePath) -> Path | None:
    for ending in MASK_ENDINGS:
        stem = place.with_name(place.stem + ending).as_posix()
        mask = index.get(stem) or index.get(_folded(stem))
        if mask is not None:
            return mask
    return None


def _folded(stem: str) -> str:
    return f"{stem.casefold()}/"  # no path ends so: it is no key of another name


def mask_notes(
    name: str, defective: int, without: int, unused: Sequence[Path], shared: Iterable[object] = ()
) -> list[str]:
    """Note masks and defective images without each other, where the category has masks."""
    notes = []
    count = sum(1 for _ in shared)
    if without and (unused or count or without < defective):
        verb = "has" if without == 1 else "have"
        notes.append(
            f"{name}: {without} of {counted(defective, 'defective image')} {verb} no mask."
        )
    if unused:
        masks = "1 mask belongs" if len(unused) == 1 else f"{len(unused)} masks belong"
        notes.append(f"{name}: {masks} to no image, such as {unused[0].name}; ignored.")
    if count:
        masks = "1 mask is" if count == 1 else f"{count} masks are"
        notes.append(
            f"{name}: {masks} called as several images are: used for none of them. Give each image "
            "its own stem, or lay masks out in the images' folders."
        )
    return notes
