"""The feature cache: the frozen backbone runs once an image, training reads the result.

A memory-mapped float16 array in the run's folder, which may be larger than memory. It is written to
a temporary file and renamed, and carries the key of what it was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvq_edge.common.atomic import atomic_file, write_text
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.versions import KINDS, version_of
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import ImageRecord
from hvq_edge.verdict.image_limits import FrameQuality, measure
from hvq_edge.verdict.likeness.look import Look, look_at
from hvq_edge.verdict.placement import SIDE, small_grey

_BATCH = 8


@dataclass(frozen=True)
class FrameLooks:
    """What the limits of usable frames are learnt from, measured where a frame is in hand."""

    qualities: list[FrameQuality]
    looks: list[Look]
    greys: NDArray[np.uint8]
    """``[images, 56, 56]``: :func:`hvq_edge.verdict.placement.small_grey` of each frame."""


def cache_features(
    run: Path,
    model: HVQTrans,
    data: Path,
    images: Sequence[ImageRecord],
    weights: str,
    on_progress: ProgressCallback = silent,
    *,
    versions: int = 1,
    name: str = "features",
) -> tuple[NDArray[np.float16], FrameLooks]:
    """Compute raw backbone features of training images, or map those of an earlier call.

    Args:
        run: folder that keeps the cache.
        model: its backbone is used, on the device where it is.
        data: what the images' paths are relative to.
        images: in the order of the result.
        weights: description of the backbone's weights; part of the cache's key.
        on_progress: called after each batch.
        versions: of each image (:mod:`hvq_edge.data.versions`); 1: the image alone.
        name: of the cache's three files.

    Returns:
        float16 ``[images * versions, tokens, channels]``, read-only memory map, the versions of an
        image one after the other and itself first; and the looks of the images themselves.

    Raises:
        ImageError: an image cannot be read.
        OutputError: the cache cannot be written.
    """
    settings = model.settings
    network = (settings.backbone, settings.input_side, settings.padding_side, settings.tap_resize)
    key = _key(images, weights, *network, Look._fields, versions, _strengths(versions))
    path, grey_path = run / f"{name}.npy", run / f"{name}_grey.npy"
    key_path = run / f"{name}.json"
    kept = _read_key(key_path)
    if kept is not None and kept["key"] == key and path.exists() and grey_path.exists():
        qualities = [FrameQuality(*values) for values in kept["qualities"]]
        looks = FrameLooks(qualities, [Look(*v) for v in kept["looks"]], np.load(grey_path))
        return np.load(path, mmap_mode="r"), looks

    device = model.feature_mean.device
    shape = (len(images) * versions, settings.grid**2, model.feature_mean.shape[0])
    looks = FrameLooks([], [], np.zeros((len(images), SIDE, SIDE), np.uint8))
    # Written, not mapped: a full disk is then an error to report and not a SIGBUS.
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as file,
        ThreadPoolExecutor(2) as readers,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": shape}
        )
        read = partial(_read, data, settings.input_side, versions)
        for start, frames, seen in _frames_ahead(readers, images, read):
            own = frames[::versions]
            looks.looks.extend(seen)
            looks.qualities.extend(measure(frame) for frame in own)
            looks.greys[start : start + len(own)] = [small_grey(frame) for frame in own]
            for first in range(0, len(frames), _BATCH):
                some = torch.from_numpy(frames[first : first + _BATCH]).to(device)
                with torch.inference_mode():
                    features = model.raw_features(some)
                file.write(features.cpu().numpy().astype("<f2").tobytes())
            on_progress("backbone features", start + len(own), len(images))
    with atomic_file(grey_path) as temporary, temporary.open("wb") as file:
        np.save(file, looks.greys)
    values = [(q.brightness, q.contrast, q.sharpness) for q in looks.qualities]
    kept = {"key": key, "qualities": values, "looks": looks.looks}
    write_text(key_path, json.dumps(kept))
    return np.load(path, mmap_mode="r"), looks


_Read = Callable[[ImageRecord], tuple[list[NDArray[np.uint8]], Look]]


def _frames_ahead(
    readers: Executor, images: Sequence[ImageRecord], read: _Read
) -> Iterator[tuple[int, NDArray[np.uint8], list[Look]]]:
    """Yield (position, frames, their looks) of each batch; the next one decodes meanwhile."""

    def submit(start: int) -> list[Future[tuple[list[NDArray[np.uint8]], Look]]]:
        return [readers.submit(read, image) for image in images[start : start + _BATCH]]

    following = submit(0)
    for start in range(0, len(images), _BATCH):
        reading, following = following, submit(start + _BATCH)
        frames, looks = zip(*(reader.result() for reader in reading), strict=True)
        yield start, np.concatenate(frames), list(looks)


def _read(
    data: Path, side: int, versions: int, record: ImageRecord
) -> tuple[list[NDArray[np.uint8]], Look]:
    """Return an image's versions as frames, itself first, and how it looks."""
    image = read_image(data / record.path)
    seed = int(record.sha256[:12], 16)
    frames = [fit_image(version_of(image, side, number, seed), side) for number in range(versions)]
    return frames, look_at(image, frames[0])


def _read_key(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and {"key", "qualities"} <= value.keys() else None


def _strengths(versions: int) -> object:
    return [(name, kind.strengths) for name, kind in KINDS.items()] if versions > 1 else None


def _key(images: Sequence[ImageRecord], *parts: object) -> str:
    digest = hashlib.sha256(repr(parts).encode())
    for image in images:
        digest.update(image.sha256.encode())
    return digest.hexdigest()
