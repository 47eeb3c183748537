"""What a bundle has learnt since it was exported (``hvq-edge learn``): its records, read here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hvq_edge.bundle.manifest import AddedCategory, Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.records import Strict, parsed_record
from hvq_edge.errors import BundleError
from hvq_edge.verdict.judgement import Verdict

LEARNT_NAME = "learnt.json"
"""In the bundle's folder: :class:`WhatChanged`."""
PROTOTYPES_NAME = "learnt-prototypes.npz"
"""Beside it: the prototypes of every category that learnt, in float32, for whoever holds the
graphs against the model of the run."""
ADDED_NAME = "added-categories.npz"
"""Beside it: what belongs to categories that joined the graphs, for the same."""
CENTRES = "classifier.centres"
"""The table of what a category looks like as a whole, in the graph and in these files."""
_LARGEST = 256 << 20

Seen = Literal["learnt", "judged", "held out"]
"""Why an image is in the regression set: it was learnt now, people judged it, or it is a held-out
good image."""


class Side(Strict):
    """What a bundle says of an image."""

    score: float | None
    """``None``: not finite."""
    threshold: float | None
    """``None``: the category has none."""
    verdict: Verdict
    reason: str


class Compared(Strict):
    """One image of the regression set, judged by the bundle before and by the new one."""

    image: str
    """Its path from the folder that was given."""
    category: str
    good: bool
    defect: str = ""
    """Kind of defect, as its folder is called."""
    seen: Seen
    before: Side
    after: Side
    """Of an image that was learnt: as judged while only the others were learnt, where there were
    others."""
    identical: bool
    """Category, score and margin are the same to the last bit."""

    @property
    def flipped(self) -> bool:
        """Whether the verdict is another."""
        return self.before.verdict != self.after.verdict


class WhatChanged(Strict):
    """The content of ``learnt.json``."""

    format: Literal["hvq-edge-learnt/1"] = "hvq-edge-learnt/1"
    before: str
    """SHA-256 of ``bundle.json`` of the bundle that learnt."""
    rows: dict[Precision, tuple[Compared, ...]]
    warnings: tuple[str, ...] = ()


class Counted(Strict):
    """How many images of a group get which verdict, before and after."""

    images: int = Field(ge=0)
    rejected_before: int
    rejected_after: int
    undecided_before: int
    undecided_after: int


def count(rows: tuple[Compared, ...], category: str, good: bool, *seen: Seen) -> Counted:
    """Count the verdicts on a category's good or defective images."""
    own = [
        row
        for row in rows
        if row.category == category and row.good == good and (not seen or row.seen in seen)
    ]

    def verdicts(side: str, verdict: Verdict) -> int:
        return sum(getattr(row, side).verdict == verdict for row in own)

    return Counted(
        images=len(own),
        rejected_before=verdicts("before", "reject"),
        rejected_after=verdicts("after", "reject"),
        undecided_before=verdicts("before", "no_decision"),
        undecided_after=verdicts("after", "no_decision"),
    )


def what_changed(bundle: Bundle) -> WhatChanged | None:
    """Return what the last learning changed; ``None``: the bundle never learnt.

    Raises:
        BundleError: the file is missing or changed.
    """
    if LEARNT_NAME not in bundle.manifest.files:
        return None
    return parsed_record(bundle.path / LEARNT_NAME, bundle.read(LEARNT_NAME), WhatChanged)


def prototypes_learnt(bundle: Bundle) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Yield table, category and prototypes ``[prototypes, channels]`` of all that was learnt.

    Raises:
        BundleError: the file is missing, changed, or not what it is called.
    """
    if PROTOTYPES_NAME not in bundle.manifest.files:
        return
    arrays = _arrays(bundle, PROTOTYPES_NAME, "no prototypes")
    for key, values in arrays.items():
        table, _, index = key.rpartition(".")
        try:
            yield table, bundle.manifest.categories[int(index)], values
        except (ValueError, IndexError) as error:
            raise _no(bundle, PROTOTYPES_NAME, "no prototypes", error) from error


def categories_added(
    bundle: Bundle,
) -> Iterator[tuple[int, AddedCategory, dict[str, NDArray[np.float32]]]]:
    """Yield index, record and tensors of each category that joined the graphs after the export.

    Raises:
        BundleError: the file is missing, changed, or not what it is called.
    """
    added = bundle.manifest.added
    if not added:
        return
    arrays = _arrays(bundle, ADDED_NAME, "no categories")
    for one in added:
        index = bundle.category_index(one.category)
        prefix = f"{index}."
        state = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        yield index, one, state


def _arrays(bundle: Bundle, name: str, what: str) -> dict[str, NDArray[np.float32]]:
    from hvq_edge.runtime.known_answers import BROKEN_ARCHIVE, unpacked

    content = bundle.read(name)
    try:
        found = unpacked(content, _LARGEST)
        return {key: values.astype(np.float32) for key, values in found.items()}
    except BROKEN_ARCHIVE as error:
        raise _no(bundle, name, what, error) from error


def _no(bundle: Bundle, name: str, what: str, error: Exception) -> BundleError:
    return BundleError(
        f"{bundle.path / name} holds {what}: {error}.",
        next_step="copy the bundle again, or make it again from the one before",
    )
