"""The good images of a folder, for thresholds: each once, none that the model was made with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hvq_edge.bundle.manifest import Bundle
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.content import hash_image
from hvq_edge.data.layouts.folders import good_folders, list_folders, list_images
from hvq_edge.errors import DatasetError, InputError, RunError
from hvq_edge.run.record import read_run

TREE = """\
DIR/*.png                     good images of one category, or of all where the graph chooses it
DIR/<category>/*.png          one folder a category, or in it good/, train/good/, ..."""


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
    fitted = _fitted(bundle, run)
    kept: dict[str, GoodImage] = {}
    copies, ranged, learnt = 0, 0, 0
    for done, (path, category) in enumerate(found, start=1):
        digest = hash_image(path)
        on_progress("reading good images", done, len(found))
        if digest in kept:
            copies += 1
        elif digest in calibrated:
            ranged += 1
        elif digest in fitted:
            learnt += 1
        else:
            kept[digest] = GoodImage(path, category, digest)
    tested = sum(image.path.parent.parent.name == "test" for image in kept.values())
    reasons = (
        (tested, "are test images: what is counted on them is then no test of these thresholds"),
        (copies, "are copies of others: each counts once"),
        (ranged, "set the INT8 ranges: left out, or the upper bound would be too low"),
        (learnt, "were learnt from in training: left out, they score lower than new ones"),
    )
    notes = tuple(f"{count} of {len(found)} images {why}" for count, why in reasons if count)
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


def _fitted(bundle: Bundle, run: Path | None) -> set[str]:
    """Return the hashes of images that the bundle's own run was fitted on; empty: unknown."""
    try:
        record = read_run(run or bundle.path.parent)
    except RunError:
        if run is not None:
            raise
        return set()  # on a device the run is not there
    if record.checkpoint_sha256 != bundle.manifest.checkpoint_sha256:
        return set()
    return {image.sha256 for image in record.images if image.use == "fit"}
