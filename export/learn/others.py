"""What shows that other categories keep their outputs when one joins the graphs, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.progress import ProgressCallback
from hvq_edge.common.wording import counted
from hvq_edge.data.images import read_frame
from hvq_edge.errors import GateFailed, InputError
from hvq_edge.export.learn.judged import JudgedImage
from hvq_edge.export.learn.known_good import known_good
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.known_answers import read_known_answers

_KNOWN = "a known image"


class Other(NamedTuple):
    """An image of a category that was there before."""

    name: str
    category: str
    frame: Path | NDArray[np.uint8]


def others_at_hand(
    before: Bundle, judged: Sequence[JudgedImage], on_progress: ProgressCallback
) -> list[Other]:
    """List what shows that other categories keep their outputs: all that is at hand of them."""
    names = before.manifest.categories
    answers = read_known_answers(before)
    found = []
    if answers is not None:
        for frame, index in zip(answers.frames, answers.category, strict=True):
            found.append(Other(_KNOWN, names[index], frame))
    held_out = known_good(before, names, None, on_progress).values()
    good = (*judged, *(image for one in held_out for image in one.images))
    return found + [Other(image.name, image.category, image.path) for image in good]


def _identical(one: object, other: object) -> bool:
    assert isinstance(one, np.ndarray)
    assert isinstance(other, np.ndarray)
    return np.array_equal(one, other, equal_nan=True)


def compare_others(
    name: str,
    precision: Precision,
    others: Sequence[Other],
    was: Engine,
    now: Engine,
    on_progress: ProgressCallback,
) -> list[str]:
    """Hold every output on images of other categories against what it was, to the last bit.

    Args:
        name: of the category that joined.
        precision: of both engines.
        others: images of the categories that were there.
        was: of the bundle before.
        now: of the new one, by the same library.
        on_progress: called after each image.

    Returns:
        What the user should know: a sentence each without its full stop.

    Raises:
        GateFailed: an output is another.
        InputError: known answers would be taken for the new category.
    """
    taken: list[Other] = []
    told = was.info.category_mode == "input"
    for done, one in enumerate(others, start=1):
        frame = (
            one.frame
            if isinstance(one.frame, np.ndarray)
            else read_frame(one.frame, was.info.frame_shape)
        )
        given = np.array([was.info.categories.index(one.category)], np.int32) if told else None
        first, second = was.run(frame[None], given), now.run(frame[None], given)
        if int(second["category"][0]) == len(was.info.categories):
            taken.append(one)
        elif not all(map(_identical, first.values(), second.values())):
            raise GateFailed(
                f"{one.name} of {one.category} gets other outputs at {precision}, although only "
                f"{name} was added.",
                next_step="report this: an added category must not touch the others",
            )
        on_progress(f"others {precision}", done, len(others))
    sure = [one for one in taken if one.name == _KNOWN]
    if sure:
        raise InputError(
            f"{counted(len(sure), 'known image')} of {sure[0].category} would be taken for {name} "
            f"at {precision}: they are too like each other.",
            next_step="train both together (hvq-edge train), or export with --category input, "
            "where the caller says which category it is",
        )
    if not taken:
        return []
    shown = ", ".join(sorted({one.category for one in taken}))
    return [
        f"{name} at {precision}: {len(taken)} of {counted(len(others), 'image')} of other "
        f"categories ({shown}) would now be taken for it"
    ]
