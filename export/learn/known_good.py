"""What a bundle's thresholds rest on already: held-out good images, or the scores they had."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.content import hash_image
from hvq_edge.data.layouts.folders import list_images
from hvq_edge.errors import DatasetError, HvqEdgeError, ImageError
from hvq_edge.export.learn.judged import JudgedImage
from hvq_edge.run.record import RunRecord, read_run
from hvq_edge.verdict.calibration_scores import CalibrationScores
from hvq_edge.verdict.threshold import GoodPart


@dataclass(frozen=True)
class Known:
    """The good images of one category that the model knows."""

    images: tuple[JudgedImage, ...]
    """Those that set its thresholds and are at hand."""
    digests: frozenset[str]
    """Of these, of all that set thresholds and, where the run is at hand, of those learnt from."""


def known_good(
    bundle: Bundle,
    categories: Collection[str],
    data: Path | None,
    on_progress: ProgressCallback = silent,
) -> dict[str, Known]:
    """Find the images that set the thresholds of categories, by content.

    Args:
        bundle: that learns.
        categories: of it.
        data: folder of the training data; ``None``: the run around the bundle says it.
        on_progress: called after each file that was read.

    Raises:
        DatasetError: ``data`` is no folder.
    """
    if data is not None and not data.is_dir():
        raise DatasetError(f"there is no folder {data}.", next_step="name it with --data")
    record = _record(bundle)
    setting = set(bundle.manifest.threshold_images)
    found: dict[str, Known] = {}
    for name in sorted(categories):
        own = [] if record is None else [one for one in record.images if one.category == name]
        images: dict[str, JudgedImage] = {}
        candidates = list(_candidates(record, name, data))
        for done, (path, root) in enumerate(candidates, start=1):
            on_progress(f"held-out images of {name}", done, len(candidates))
            try:
                digest = hash_image(path)
            except ImageError:  # gone or unreadable: it is not at hand
                continue
            if digest in setting:
                # A category may have been added from a folder outside the training data.
                shown = path.relative_to(root) if path.is_relative_to(root) else path
                images[digest] = JudgedImage(path, shown.as_posix(), name, True, "", digest)
        digests = setting | {one.sha256 for one in own}
        found[name] = Known(tuple(images.values()), frozenset(digests))
    return found


def former_parts(scores: CalibrationScores) -> list[GoodPart]:
    """Return good parts with the scores of a table, each as often as it stands for scores.

    Below the tail the table keeps some scores only: those between count as the next larger one.
    """
    above = (scores.count, *scores.above)
    return [
        GoodPart(score, "a good part known before")
        for score, more, less in zip(scores.scores, above, scores.above, strict=False)
        for _ in range(more - less)
    ]


def _record(bundle: Bundle) -> RunRecord | None:
    try:
        record = read_run(bundle.path.resolve().parent)
    except HvqEdgeError:  # on a device the run is not there
        return None
    return record if record.checkpoint_sha256 == bundle.manifest.checkpoint_sha256 else None


def _candidates(
    record: RunRecord | None, name: str, data: Path | None
) -> Iterator[tuple[Path, Path]]:
    """Yield files that may be held-out images of a category, and the folder they are named in."""
    root = data or (Path(record.data) if record is not None and record.data else None)
    if root is None:
        return
    if record is not None:
        for image in record.images:
            if image.category == name and image.use == "held_out":
                yield root / image.path, root
    elif (root / name).is_dir():
        for path in list_images(root / name).images:
            yield path, root
