"""Measured ranges kept beside a run: measured once for one graph, set of images and method."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from hvq_edge.calibration.ranges.range_methods import Method
from hvq_edge.calibration.ranges.ranges import MeasuredRanges
from hvq_edge.common.atomic import sha256_of, write_text
from hvq_edge.common.records import kept_record

CACHE_FOLDER = "int8-ranges"
"""Below a run's folder."""
_VERSION = 2
"""Raised whenever the same images and graph would give other ranges."""


def key_of(
    graph: Path,
    tensors: Sequence[str],
    images: Sequence[str],
    categories: Sequence[int] | None,
    method: Method,
) -> str:
    """Return what names a measurement: 64 hexadecimal digits.

    A changed weight changes the graph's hash, and so never meets ranges of another one
    (TensorRT's calibration caches do not know what they were measured on).

    Args:
        graph: the float32 file.
        tensors: names of the tensors.
        images: SHA-256 of each image, in order: the order decides which ones are read.
        categories: category index of each image, for a graph with a ``category`` input.
        method: how ranges are chosen.
    """
    parts = [_VERSION, sha256_of(graph), list(tensors), list(images), categories, method]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def cached_ranges(
    folder: Path | None, key: str, measure: Callable[[], MeasuredRanges]
) -> MeasuredRanges:
    """Return kept ranges, else measure them and keep them.

    Args:
        folder: where they are kept; ``None``: nowhere.
        key: from :func:`key_of`.
        measure: called where nothing is kept, or what is kept cannot be read.

    Raises:
        OutputError: they cannot be written.
    """
    if folder is None:
        return measure()
    path = folder / f"{key}.json"
    if (kept := kept_record(path, MeasuredRanges)) is not None:
        return kept
    found = measure()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, found.model_dump_json() + "\n")
    return found
