"""Images that people judged, and what a bundle says of them before and after."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.data.content import hash_image
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.layouts.folders import good_folders, list_folders, list_images
from hvq_edge.errors import DatasetError
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.known_answers import answers_file
from hvq_edge.runtime.open_engine import AUTO, open_engine
from hvq_edge.verdict.decision import as_text
from hvq_edge.verdict.image_checks import ImageChecks
from hvq_edge.verdict.judgement import judgements, refusal

logger = logging.getLogger(__name__)

DEFECTIVE = "defective"
TREE = """\
DIR/<category>/good/*                 good images
DIR/<category>/defective/<kind>/*     defective ones, in one folder a kind"""


@dataclass(frozen=True)
class JudgedImage:
    """An image and what people said of it."""

    path: Path
    name: str
    """Its path from the folder that was given."""
    category: str
    good: bool
    defect: str
    """Kind of defect; empty: good, or no kind was said."""
    sha256: str


class Outcome(NamedTuple):
    """What an engine says of an image, and why the line would decide nothing on it."""

    category: str
    score: float
    margin: float
    refused: str | None


def opened(
    bundle: Bundle, precision: Precision, backend: str, *, unchecked: bool = False
) -> Engine:
    """Open what judges at a precision; a bundle without known answers is not held against any."""
    # No GPU here: of the CPU engines ONNX Runtime keeps nearest to a float16 file's casts.
    runs_on = "onnxruntime" if backend == AUTO and "fp16" in precision else backend
    unchecked = unchecked or answers_file(bundle) is None
    return open_engine(bundle, precision=precision, backend=runs_on, unchecked=unchecked)


def list_judged(
    folder: Path, categories: Sequence[str], category: str | None = None
) -> list[JudgedImage]:
    """List a folder of images that people judged, each content once a category.

    Args:
        folder: laid out as :data:`TREE`; or ``DIR/<category>``, or ``DIR/<category>/good``.
        categories: of the bundle.
        category: of loose images, or the one to take; ``None``: it follows from the folders'
            names, or the bundle has only one.

    Raises:
        DatasetError: no folder, no image in it, nobody says of which category they are, or the same
            picture is called good and defective.
        ImageError: an image cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}.", next_step=f"lay images out as\n{TREE}")
    seen: dict[tuple[str, str], JudgedImage] = {}
    copies = 0
    for path, name, good, defect in _entries(folder, categories, category):
        shown = as_text(path.relative_to(folder).as_posix())
        image = JudgedImage(path, shown, name, good, defect, hash_image(path))
        first = seen.setdefault((name, image.sha256), image)
        copies += first is not image
        if first.good != good:
            raise DatasetError(
                f"{first.name} and {shown} in {folder} are the same picture, and one is called "
                "good, the other defective.",
                next_step="remove the one that is wrong",
            )
    if copies:
        logger.warning(
            "%s in %s: each picture counts once.", counted(copies, "copy", "copies"), folder
        )
    found = list(seen.values())
    if not found:
        raise DatasetError(
            f"there is no image of {', '.join(categories)} in {folder}.",
            next_step=f"lay images out as\n{TREE}",
        )
    return found


def check_agreed(images: Iterable[JudgedImage]) -> None:
    """Hold against each other what several folders say of a picture.

    Raises:
        DatasetError: it is called good in one and defective in another.
    """
    first: dict[tuple[str, str], JudgedImage] = {}
    for one in images:
        other = first.setdefault((one.category, one.sha256), one)
        if other.good != one.good:
            called = ("good" if image.good else "defective" for image in (other, one))
            raise DatasetError(
                f"{other.path} and {one.path} are the same picture, and it is called "
                f"{' and '.join(called)}.",
                next_step="remove the one that is wrong",
            )


def _entries(
    folder: Path, categories: Sequence[str], category: str | None
) -> Iterable[tuple[Path, str, bool, str]]:
    """Yield path, category, whether it is good, and the kind of its defect."""
    named = [one for one in list_folders(folder) if one.name in categories]
    for one in named:
        if category in (None, one.name):
            yield from _of_category(one, one.name)
    if named:
        return
    name = category
    if name is None:
        own = folder.resolve()
        around = (own.name, own.parent.name if own.name == "good" else "")
        name = next((one for one in around if one in categories), None)
    if name is None and len(categories) == 1:
        name = categories[0]
    if name is None or name not in categories:
        raise DatasetError(
            f"nothing says of which category the images in {folder} are"
            + (f": there is no {name!r}." if name else "."),
            next_step=f"say it with --category: {', '.join(categories)}; or lay the images out as"
            f"\n{TREE}",
        )
    yield from _of_category(folder, name)


def _of_category(folder: Path, name: str) -> Iterable[tuple[Path, str, bool, str]]:
    goods = good_folders(folder)
    kinds = folder / DEFECTIVE
    for place in goods:
        yield from ((path, name, True, "") for path in list_images(place).images)
    if kinds.is_dir():
        for path in list_images(kinds).images:
            kind = path.relative_to(kinds).parts[0] if path.parent != kinds else ""
            yield path, name, False, kind
    if not goods and not kinds.is_dir():
        yield from ((path, name, True, "") for path in list_images(folder, deep=False).images)


def judge(
    engine: Engine,
    checks: ImageChecks,
    images: Sequence[JudgedImage],
    on_progress: ProgressCallback = silent,
    stage: str = "judging",
) -> list[Outcome]:
    """Judge images one at a time, as the line does.

    Raises:
        ImageError: an image cannot be read.
    """
    info = engine.info
    outcomes = []
    for done, image in enumerate(images, start=1):
        frame = fit_image(read_image(image.path), info.frame_shape)
        given: NDArray[np.int32] | None = None
        if info.category_mode == "input":
            given = np.array([info.categories.index(image.category)], np.int32)
        (one,) = judgements(engine.run(frame[None], given), info.categories)
        refused = refusal(one, checks.fault(frame, one))
        outcomes.append(Outcome(one.category, one.score, one.margin, refused))
        on_progress(stage, done, len(images))
    return outcomes
