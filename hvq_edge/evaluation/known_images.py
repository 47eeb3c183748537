"""Test images that the model knows: what is measured on them promises nothing for new parts.

The plain layout chooses its test images from all that lie in the folder, so images added since a
training bring some of those that it learnt from into the test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.wording import counted
from hvq_edge.data.content import hash_image, in_threads
from hvq_edge.errors import HvqEdgeError, ImageError
from hvq_edge.run.record import RunRecord, read_run


def run_around(bundle: Bundle) -> RunRecord | None:
    """Return the record of the run that a bundle was exported from, where it stands around it."""
    try:
        record = read_run(bundle.path.resolve().parent)
    except HvqEdgeError:  # on a device the run is not there
        return None
    return record if record.checkpoint_sha256 == bundle.manifest.checkpoint_sha256 else None


def known_images(record: RunRecord | None, bundle: Bundle | None = None) -> set[str]:
    """Return the SHA-256 of each image that was learnt from, or held out for thresholds.

    Args:
        record: of the run, as far as it is at hand.
        bundle: what it says is known, too; ``None``: the run itself is meant.
    """
    known: set[str] = set()
    if record is not None:
        known |= {one.sha256 for one in (*record.images, *record.known_defects)}
    if bundle is not None:
        manifest = bundle.manifest
        known |= {*manifest.threshold_images, *(one for _, one in manifest.learnt_since_export)}
        known |= {digest for one in manifest.added for digest in one.held_out}
        known |= set(manifest.calibration.images if manifest.calibration else ())
    return known


def hashes_of(paths: Sequence[Path]) -> Iterator[str | None]:
    """Yield the SHA-256 of each image file; ``None``: it cannot be read."""
    return in_threads(_hash, paths)


def known_note(paths: Sequence[Path], known: set[str]) -> str:
    """Say how many test images are known, and what to do; empty: none is.

    Args:
        paths: of the test images.
        known: of :func:`known_images`.
    """
    count = sum(one in known for one in hashes_of(paths)) if known else 0
    if not count:
        return ""
    return (
        f"{count} of {counted(len(paths), 'test image')} served training or thresholds too: these "
        "results are better than those on new parts. If images were added to the folder since the "
        "training, train again on it; else test with new ones (--data)."
    )


def _hash(path: Path) -> str | None:
    try:
        return hash_image(path)
    except ImageError:
        return None
