"""Which good training images the model learns from, and which set thresholds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.data.content import (
    ImageContent,
    choose_share,
    hash_image,
    in_threads,
    read_content,
)
from hvq_edge.data.copies import same_images
from hvq_edge.data.dataset import Dataset
from hvq_edge.data.days import days_of
from hvq_edge.data.findings import LEAST_TO_FIT, level_findings, sentence_of
from hvq_edge.data.layouts.folders import DatasetImage
from hvq_edge.errors import DatasetError, ImageError
from hvq_edge.run.record import ImageRecord, RecordedImage
from hvq_edge.verdict.defaults import FALSE_REJECT

logger = logging.getLogger(__name__)

LEAST_OF_A_DAY = round(1 / FALSE_REJECT)
"""Images of a day that set a threshold in place of a random share. Of so many one is expected above
it at the usual rate; fewer would hardly tell whether that day's parts score otherwise."""

_NAMED_IN_MESSAGES = 3


class Split(NamedTuple):
    """The good training images, divided."""

    images: tuple[ImageRecord, ...]
    """One for every good training image, in the order of ``dataset.images``."""
    held_out_from: dict[str, str]
    """Where held-out images were taken that are no random share, by category."""


class AnotherDay(NamedTuple):
    """Good training images of a category that were taken on another day than the rest."""

    contents: frozenset[str]
    """Of the images; empty: that is not known, or too few would be left to learn from."""
    source: str
    """When or where they were taken, in words; empty likewise."""
    days: tuple[tuple[date, int], ...] = ()
    """The days that the files say, with their images, the first day first; empty: not of all."""
    said_by: str = ""
    """What says the days, in words."""


def split_training(
    dataset: Dataset, held_out: float, seed: int, on_progress: ProgressCallback = silent
) -> Split:
    """Divide the good training images of each category into ``fit`` and ``held_out``.

    Good images of another day tell best what new good parts score. So ``held_out`` are those that
    the layout keeps apart (``validation/good``); else those of the latest day, where files say it
    and two or more days have :data:`LEAST_OF_A_DAY` different images; else a random share.

    By content, as :func:`hvq_edge.data.content.choose_share` does: copies of an image, in another
    format too, land on the same side, so no threshold is set by an image that was learnt; names
    and order do not matter; and an added image moves at most one other where there are no copies.
    What ``hvq-edge data check`` finds in these images is logged.

    Args:
        dataset: what :func:`hvq_edge.data.dataset.find_dataset` returns.
        held_out: wanted share of ``held_out``, more than 0 and less than 1.
        seed: another seed gives another split.
        on_progress: told of every image read.

    Returns:
        The division; all copies of an image are on the same side.

    Raises:
        MissingCapability: Pillow is not installed.
        DatasetError: a category has too few different images for both uses.
        ImageError: images cannot be read; says how many and names the first.
    """
    images = dataset.train_good()
    contents: list[ImageContent] = []
    for content in in_threads(read_content, [image.path for image in images]):
        contents.append(content)
        on_progress("Reading images", len(contents), len(images))
    unreadable = [content.fault for content in contents if content.fault is not None]
    if unreadable:
        raise _unreadable(unreadable)
    for finding in level_findings(images, contents):
        logger.warning("%s", sentence_of(finding, dataset.root))
    copies = same_images(
        [image.path for image in images], contents, [image.category for image in images]
    )
    hashes = {image.path: copy for image, copy in zip(images, copies, strict=True)}
    kept: dict[str, frozenset[str]] = {}
    sources: dict[str, str] = {}
    for category in dataset.categories:
        own = dataset.train_good(category)
        found = of_another_day(own, hashes)
        if found.source:
            sources[category] = found.source
        kept[category] = _checked(category, own, hashes, found.contents, held_out, seed)
    records = tuple(
        ImageRecord(
            path=image.path.relative_to(dataset.root).as_posix(),
            category=image.category,
            sha256=content.sha256,
            use="held_out" if hashes[image.path] in kept[image.category] else "fit",
        )
        for image, content in zip(images, contents, strict=True)
    )
    return Split(records, sources)


def check_unchanged(
    records: Sequence[RecordedImage], data: Path, on_progress: ProgressCallback = silent
) -> None:
    """Check that every recorded image is still there with the same content.

    Args:
        records: the images of a run.
        data: the folder that the records are relative to.
        on_progress: told of every image hashed.

    Raises:
        DatasetError: images are missing or have another content; says how many and names some.
        ImageError: an image cannot be read.
    """
    missing: list[Path] = []
    different: list[Path] = []
    for done, record in enumerate(records, start=1):
        path = data / record.path
        try:
            there = path.is_file()
        except OSError as error:  # a folder above it is closed to this user
            raise ImageError(
                f"{path} cannot be read: {error.strerror}.",
                next_step=f"run the command as a user who may read {data}",
            ) from error
        if not there:
            missing.append(path)
        elif hash_image(path) != record.sha256:
            different.append(path)
        on_progress("Checking images", done, len(records))
    if missing or different:
        raise _changed(data, len(records), missing=missing, different=different)


def of_another_day(images: Sequence[DatasetImage], hashes: Mapping[Path, str]) -> AnotherDay:
    """Find the images of a category that set its threshold in place of a random share.

    Args:
        images: the good training images of one category.
        hashes: of their contents, by path (:func:`hvq_edge.data.copies.same_images`).

    Raises:
        MissingCapability: Pillow is not installed.
    """
    apart = frozenset(hashes[image.path] for image in images if image.kept_apart)
    if apart:
        return AnotherDay(apart, "good images of validation/good")
    found = days_of([image.path for image in images])
    if found is None or not images:
        return AnotherDay(frozenset(), "")
    contents: dict[date, set[str]] = {}
    for image, day in zip(images, found.days, strict=True):
        contents.setdefault(day, set()).add(hashes[image.path])
    days = tuple((day, found.days.count(day)) for day in sorted(contents))
    enough = [day for day, own in sorted(contents.items()) if len(own) >= LEAST_OF_A_DAY]
    latest = frozenset(contents[enough[-1]] if len(enough) > 1 else ())
    if not latest or 2 * len(latest) > len(set().union(*contents.values())):
        # Else the smaller part would be learnt from.
        return AnotherDay(frozenset(), "", days, found.said_by)
    source = f"good images of {enough[-1]}, another day by {found.said_by}"
    return AnotherDay(latest, source, days, found.said_by)


def _checked(
    category: str,
    images: Sequence[DatasetImage],
    hashes: dict[Path, str],
    chosen: frozenset[str],
    held_out: float,
    seed: int,
) -> frozenset[str]:
    """Return the contents held out: those chosen, else a random share.

    Raises:
        DatasetError: too few different images are left on either side.
    """
    contents = [hashes[image.path] for image in images]
    different = len(set(contents))
    chosen = chosen or choose_share(contents, held_out, str(seed), leave=LEAST_TO_FIT)
    left = sum(content not in chosen for content in contents)
    if not chosen or different < 2 or left < LEAST_TO_FIT:
        raise DatasetError(
            f"the category {category!r} has {counted(len(contents), 'good training image')}, "
            f"{different} of them different: at least "
            f"{LEAST_TO_FIT + 1} are needed, not all the same, {LEAST_TO_FIT} of them to learn "
            "from.",
            next_step=f"add good images of {category}; a useful model needs some dozens",
        )
    return chosen


def _unreadable(errors: Sequence[ImageError]) -> ImageError:
    others = len(errors) - 1
    more = f" {counted(others, 'more image')} cannot be read." if others else ""
    return ImageError(f"{errors[0].cause}{more}", next_step=errors[0].next_step)


def _changed(
    data: Path, total: int, *, missing: Sequence[Path], different: Sequence[Path]
) -> DatasetError:
    faults = []
    for paths, what in ((missing, "missing"), (different, "of another content than recorded")):
        if paths:
            names = ", ".join(
                (path.relative_to(data) if path.is_relative_to(data) else path).as_posix()
                for path in paths[:_NAMED_IN_MESSAGES]
            )
            more = ", ..." if len(paths) > _NAMED_IN_MESSAGES else ""
            faults.append(f"{len(paths)} of {total} are {what} ({names}{more})")
    return DatasetError(
        f"the images in {data} are not those that the run was trained with: {'; '.join(faults)}.",
        next_step="put the images back, or train again with those that are there now",
    )
