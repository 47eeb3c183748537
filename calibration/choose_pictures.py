"""Which training pictures set the INT8 ranges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest

from hvq_edge.run_record import PictureRecord

DEFAULT_COUNT = 64
RULE = (
    "an equal number from each category, from the pictures the model was fitted on (never from "
    "those kept for thresholds), in the order of their SHA-256"
)


def choose_calibration(
    pictures: Sequence[PictureRecord], count: int = DEFAULT_COUNT
) -> tuple[PictureRecord, ...]:
    """Choose pictures balanced over categories.

    A category with few pictures gives all it has, and the others make up for it. The order of
    hashes is a fixed, random-like choice: adding a picture changes at most one of those chosen.

    Args:
        pictures: of a run.
        count: how many in all, at most.
    """
    fit = sorted((p for p in pictures if p.use == "fit"), key=lambda p: (p.category, p.sha256))
    by_category: dict[str, list[PictureRecord]] = {}
    for picture in fit:
        by_category.setdefault(picture.category, []).append(picture)
    in_turn = chain.from_iterable(zip_longest(*by_category.values()))
    return tuple(picture for picture in in_turn if picture is not None)[:count]
