"""Judged images as a folder to learn from: ``CATEGORY/good`` and ``CATEGORY/defective/KIND``."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hvq_edge.common.atomic import atomic_file, output_error
from hvq_edge.stream.log.reviews import Review
from hvq_edge.stream.review.candidates import Candidate


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


def save_judged(
    judged: Iterable[tuple[Candidate, Review, Path | None]], folder: Path
) -> SavedImages:
    """Copy judged images to where they belong; what was judged anew since leaves its former place.

    Args:
        judged: decisions with their reviews and image files.
        folder: made where it is missing.

    Raises:
        OutputError: an image cannot be written.
    """
    saved = SavedImages(Counter(), Counter(), 0, 0)
    gone = nameless = 0
    for candidate, review, file in judged:
        if review.judgement == "skip":
            continue
        category = candidate.category
        if category is None or "/" in category or category.startswith("."):
            nameless += 1
            continue
        if file is None:
            gone += 1
            continue
        of_category = folder / category
        place = of_category / "good"
        if review.judgement == "defective":
            place = of_category / "defective" / str(review.defect)
            saved.defective[category, str(review.defect)] += 1
        else:
            saved.good[category] += 1
        _leave(of_category, file.name, place)
        _copy(file, place / file.name)
    return SavedImages(saved.good, saved.defective, gone, nameless)


def _leave(of_category: Path, name: str, place: Path) -> None:
    """Remove an image from where an earlier review had put it."""
    for former in (of_category / "good" / name, *of_category.glob(f"defective/*/{_plain(name)}")):
        if former.parent != place:
            try:
                former.unlink(missing_ok=True)
            except OSError as error:
                raise output_error(former, error) from error


def _copy(file: Path, place: Path) -> None:
    if place.exists() and place.stat().st_size == file.stat().st_size:
        return  # of an earlier call: a recording's name is of one image for ever
    with atomic_file(place) as temporary:
        shutil.copyfile(file, temporary)


def _plain(name: str) -> str:
    """Return a name as a pattern of itself."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in name)
