"""Judged images as a folder to learn from: ``CATEGORY/good`` and ``CATEGORY/defective/KIND``."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hvq_edge.common.atomic import atomic_file, output_error
from hvq_edge.errors import OutputError
from hvq_edge.stream.log.reviews import Review
from hvq_edge.stream.review.candidates import Candidate
from hvq_edge.stream.review.images import names_of

_PLACES = ("good", "defective")


@dataclass(frozen=True)
class SavedImages:
    """What was written."""

    good: Counter[str]
    """By category."""
    defective: Counter[tuple[str, str]]
    """By category and kind."""
    gone: int
    """Judged decisions whose image is no longer there."""
    without_category: int
    """Judged decisions that the line gave no category."""
    others: tuple[str, ...]
    """Images that were there and are of none of these reviews, from the folder on: they stay."""


def save_judged(
    judged: Iterable[tuple[Candidate, Review, Path | None]], folder: Path
) -> SavedImages:
    """Copy judged images to where they belong; what was judged anew since leaves its former place.

    Args:
        judged: decisions with their reviews and image files.
        folder: made where it is missing; else it holds what an earlier call wrote.

    Raises:
        OutputError: the folder is one of something else, or an image cannot be written.
    """
    _check_layout(folder)
    good: Counter[str] = Counter()
    defective: Counter[tuple[str, str]] = Counter()
    gone = nameless = 0
    places: set[Path] = set()
    for candidate, review, file in judged:
        category = candidate.category
        if category is None or "/" in category or category.startswith("."):
            nameless += review.judgement != "skip"
            continue
        of_category = folder / category
        former = [one for name in names_of(candidate) for one in _copies(of_category, name)]
        if review.judgement == "skip":
            _leave(former, None)
            continue
        source = file or next(iter(former), None)  # the line's own may have made room since
        if source is None:
            gone += 1
            continue
        place = of_category / "good"
        if review.judgement == "defective":
            place = of_category / "defective" / str(review.defect)
            defective[category, str(review.defect)] += 1
        else:
            good[category] += 1
        place = place / source.name
        _copy(source, place)
        _leave(former, place)
        places.add(place)
    others = (path for path in _files_in(folder) if path not in places)
    named = tuple(sorted(path.relative_to(folder).as_posix() for path in others))
    return SavedImages(good, defective, gone, nameless, named)


def _check_layout(folder: Path) -> None:
    """Check that a folder has nothing but what this writes: else both would be learnt as one.

    Raises:
        OutputError: it has, or it cannot be read.
    """
    try:
        inside = _entries(folder)
        foreign = [one for one in inside if not one.is_dir()]
        for category in inside:
            if category.is_dir():
                foreign += [one for one in _entries(category) if one.name not in _PLACES]
    except OSError as error:
        raise output_error(folder, error) from error
    if foreign:
        named = ", ".join(one.relative_to(folder).as_posix() for one in foreign[:3])
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise OutputError(
            f"{folder} holds something else: {named}{more}.",
            next_step="name a folder that is new, or that hvq-edge review --save made",
        )


def _entries(folder: Path) -> list[Path]:
    """Return what a person sees in a folder; nothing where there is none."""
    if not folder.exists():
        return []
    return sorted(one for one in folder.iterdir() if not one.name.startswith("."))


def _files_in(folder: Path) -> list[Path]:
    """Return the files of the layout that are there."""
    patterns = ("*/good/*", "*/defective/*", "*/defective/*/*")
    found = (path for pattern in patterns for path in folder.glob(pattern))
    return [path for path in found if not path.name.startswith(".") and path.is_file()]


def _copies(of_category: Path, name: str) -> list[Path]:
    """Return where earlier reviews had put an image."""
    found = [of_category / "good" / name, *of_category.glob(f"defective/*/{_plain(name)}")]
    return [path for path in found if path.is_file()]


def _leave(former: Iterable[Path], place: Path | None) -> None:
    """Remove an image from where earlier reviews had put it."""
    for path in former:
        if path != place:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise output_error(path, error) from error


def _copy(file: Path, place: Path) -> None:
    if place.exists() and place.stat().st_size == file.stat().st_size:
        return  # of an earlier call: a recording's name is of one image for ever
    with atomic_file(place) as temporary:
        shutil.copyfile(file, temporary)


def _plain(name: str) -> str:
    """Return a name as a pattern of itself."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in name)
