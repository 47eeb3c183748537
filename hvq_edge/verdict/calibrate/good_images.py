"""The good images of a folder, for thresholds: each once, none that the model was made with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.data.content import hash_image
from hvq_edge.data.dataset import Dataset, find_dataset
from hvq_edge.data.layouts import mvtec, visa
from hvq_edge.data.layouts.folders import good_folders, list_folders, list_images
from hvq_edge.errors import DatasetError, InputError, RunError
from hvq_edge.run.record import RunRecord, read_run

TREE = """\
DIR/*.png                     good images of one category, or of all where the graph chooses it
DIR/<category>/*.png          one folder a category, or in it good/, train/good/, ..."""


_DEEPEST = 6
"""Folders above one with images in which its dataset is looked for: VisA has five."""


class GoodImage(NamedTuple):
    """An image of a good part."""

    path: Path
    category: str | None
    """``None``: the graph says."""
    sha256: str


class GoodImages(NamedTuple):
    """What a folder holds."""

    images: tuple[GoodImage, ...]
    notes: tuple[str, ...]
    """What was left out and why, a sentence each."""


def find_good_images(
    folder: Path,
    bundle: Bundle,
    run: Path | None = None,
    on_progress: ProgressCallback = silent,
) -> GoodImages:
    """List the good images of a folder that may set thresholds.

    Images that the model was fitted on score lower than new ones, and those that set the INT8
    ranges suit them better: both are left out, by content. Copies count once.

    Args:
        folder: laid out as :data:`TREE`.
        bundle: whose thresholds are to be learnt.
        run: the training run that it came from, where it is at hand.
        on_progress: called after each image that was read for its hash.

    Raises:
        DatasetError: no folder, or no good images in it.
        InputError: nothing is left, or the graph must be told the category and the folder does not.
        ImageError: an image cannot be read.
    """
    categories = bundle.manifest.categories
    found = _listed(folder, categories)
    calibrated = set(bundle.manifest.calibration.images if bundle.manifest.calibration else ())
    record = _record(bundle, run)
    fitted = {image.sha256 for image in record.images if image.use == "fit"} if record else set()
    since = {digest for _, digest in bundle.manifest.learnt_since_export}
    kept: dict[str, GoodImage] = {}
    copies, ranged, learnt, later = 0, 0, 0, 0
    for done, (path, category) in enumerate(found, start=1):
        digest = hash_image(path)
        on_progress("reading good images", done, len(found))
        if digest in kept:
            copies += 1
        elif digest in calibrated:
            ranged += 1
        elif digest in fitted:
            learnt += 1
        elif digest in since:
            later += 1
        else:
            kept[digest] = GoodImage(path, category, digest)
    tested = _count_tested([image.path for image in kept.values()], folder, record)
    reasons = (
        (
            tested,
            "is a test image: what is counted on it is then no test of these thresholds",
            "are test images: what is counted on them is then no test of these thresholds",
        ),
        (
            copies,
            "is a copy of another: each counts once",
            "are copies of others: each counts once",
        ),
        (
            ranged,
            "sets the INT8 ranges: left out, or the upper bound would be too low",
            "set the INT8 ranges: left out, or the upper bound would be too low",
        ),
        (
            learnt,
            "was learnt from in training: left out, it scores lower than new ones",
            "were learnt from in training: left out, they score lower than new ones",
        ),
        (
            later,
            "was learnt from since the export: left out, it scores lower than new ones",
            "were learnt from since the export: left out, they score lower than new ones",
        ),
    )
    notes = tuple(
        f"{count} of {counted(len(found), 'image')} {why[0] if count == 1 else why[1]}"
        for count, *why in reasons
        if count
    )
    if not kept:
        raise InputError(
            f"no image in {folder} can set a threshold: {'; '.join(notes)}.",
            next_step="take new images of good parts, which the model has not seen",
        )
    if bundle.manifest.category_mode == "input" and any(p.category is None for p in kept.values()):
        raise InputError(
            f"the bundle {bundle.path} must be told the category of each image, and {folder} "
            "does not say it.",
            next_step=f"lay the images out as\n{TREE}",
        )
    return GoodImages(tuple(kept.values()), notes)


def _listed(folder: Path, categories: Sequence[str]) -> list[tuple[Path, str | None]]:
    if not folder.is_dir():
        raise DatasetError(
            f"there is no folder {folder}.", next_step="name a folder of good images with --good"
        )
    named = {one.name: one for one in list_folders(folder) if one.name in categories}
    if named:
        return [(path, name) for name, own in named.items() for path in _good_in(own)]
    own_name = folder.resolve().name
    category = own_name if own_name in categories else None
    if category is None and len(categories) == 1:
        category = categories[0]
    found = _good_in(folder)
    if not found:
        raise DatasetError(
            f"there are no good images in {folder}.",
            next_step=f"lay them out as\n{TREE}\nwith the categories {', '.join(categories)}",
        )
    return [(path, category) for path in found]


def _good_in(folder: Path) -> list[Path]:
    """Return the images below ``good`` where there is one, else those right in the folder."""
    above = (folder / "train", folder / "validation", folder / "test", folder)
    places = [place for one in above for place in good_folders(one)]
    if places:
        return [path for place in places for path in list_images(place).images]
    return list(list_images(folder, deep=False).images)


def _record(bundle: Bundle, run: Path | None) -> RunRecord | None:
    """Return the record of the training that the bundle came from; ``None``: it is not at hand."""
    try:
        record = read_run(run or bundle.path.parent)
    except RunError:
        if run is not None:
            raise
        return None  # on a device the run is not there
    return record if record.checkpoint_sha256 == bundle.manifest.checkpoint_sha256 else None


def _count_tested(paths: Sequence[Path], folder: Path, record: RunRecord | None) -> int:
    """Count the images that the dataset they lie in has for testing."""
    dataset = _dataset_around(folder.resolve(), record)
    if dataset is None:  # then a name is all that tells
        return sum(path.parent.parent.name == "test" for path in paths)
    tested = {image.path.resolve() for image in dataset.test()}
    return sum(path.resolve() in tested for path in paths)


def _dataset_around(folder: Path, record: RunRecord | None) -> Dataset | None:
    """Return the dataset that a folder is, or is a part of; ``None``: there is none."""
    around = (folder, *folder.parents)
    data = record.data if record is not None else None
    roots = [place for place in around if data is not None and place == Path(data)]
    roots += [folder, *(place for place in around[1:_DEEPEST] if mvtec.is_category(place))]
    roots += [place for place in around[1:_DEEPEST] if visa.is_dataset(place)]
    for root in roots:
        try:
            dataset = find_dataset(root)
        except InputError:
            continue
        # Good images alone are no dataset: nobody tests with a share of them.
        if dataset.layout != "plain" or any(not image.good for image in dataset.images):
            return dataset
    return None
