"""Images to judge, and their raw backbone features: read as they are needed, or kept on disk.

A source is an image as a benchmark needs it: one of a folder, the same flipped, or a good one with
a pseudo-defect. Two benchmarks that judge the same sources judge the same pixels.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.accuracy.distillation import Teacher, distil
from hvq_edge.common.atomic import atomic_file, output_error, sha256_of
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data import pseudo_defects
from hvq_edge.data.content import hash_image
from hvq_edge.data.dataset import DatasetImage
from hvq_edge.data.images import read_frame
from hvq_edge.data.pseudo_defects import KINDS, Pixels, pseudo_defect
from hvq_edge.errors import DatasetError
from hvq_edge.model.backbone_weights import load_backbone_weights
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.run.record import ImageRecord, ImageUse
from hvq_edge.run.settings import ModelSettings

PSEUDO_DEFECTS = 3
"""Pseudo-defects for each held-out good image."""
BATCH = 8
"""Images at once, as in ``hvq-edge eval``: the same batches give the same last bits."""
FLIPS = {"horizontal": 1, "vertical": 0}
"""Axis of a frame that a flip turns round."""


@dataclass(frozen=True)
class Source:
    """One image to judge."""

    key: str
    """Decides the pixels: the content's hash, and what was done to it."""
    category: str
    read: Callable[[int], Pixels]
    """Side in pixels -> uint8 ``[side, side, 3]``, RGB. Raises ImageError."""


def training_sources(
    records: Sequence[ImageRecord], data: Path, use: ImageUse
) -> tuple[Source, ...]:
    """Good training images of one use, in the record's order."""
    return tuple(
        Source(one.sha256, one.category, _reader(data / one.path))
        for one in records
        if one.use == use
    )


def sources_of(images: Sequence[DatasetImage]) -> tuple[Source, ...]:
    """Test images, in their order.

    Raises:
        ImageError: a file cannot be read.
    """
    return tuple(Source(hash_image(one.path), one.category, _reader(one.path)) for one in images)


def pseudo_sources(held_out: Sequence[Source]) -> tuple[Source, ...]:
    """:data:`PSEUDO_DEFECTS` damaged copies of each held-out good image.

    Kinds take turns, so that each is drawn about equally often; the texture of another held-out
    image, of any category, is what kind ``texture`` lays on.

    Raises:
        DatasetError: fewer than two held-out images.
    """
    if len(held_out) < 2:
        raise DatasetError(
            f"pseudo-defects need two held-out good images; there are {len(held_out)}.",
            next_step="train with more images",
        )
    code = sha256_of(Path(pseudo_defects.__file__))
    kinds = list(KINDS)
    sources = []
    for i, good in enumerate(held_out):
        for j in range(PSEUDO_DEFECTS):
            number = i * PSEUDO_DEFECTS + j
            kind = kinds[number % len(kinds)]
            step = np.random.default_rng((1, number)).integers(1, len(held_out))
            other = held_out[(i + int(step)) % len(held_out)]
            key = f"{good.key} {other.key} {kind} {number} {code}"
            sources.append(Source(key, good.category, _damager(good, other, kind, number)))
    return tuple(sources)


def flipped(source: Source, direction: str) -> Source:
    """Return the same image turned round along one of :data:`FLIPS`."""

    def read(side: int) -> Pixels:
        return np.ascontiguousarray(np.flip(source.read(side), FLIPS[direction]))

    return replace(source, key=f"{source.key} {direction}", read=read)


def category_index(sources: Sequence[Source], categories: Sequence[str]) -> NDArray[np.int64]:
    """Index of each source's category, int64 ``[sources]``."""
    return np.array([categories.index(source.category) for source in sources], dtype=np.int64)


@dataclass(frozen=True)
class Streamed:
    """Raw features computed in float32 as they are needed.

    Args:
        model: its backbone is used, in its own ``tap_resize``.
        sources: the images.
        categories: names in the order of the category index.
    """

    model: HVQTrans
    sources: Sequence[Source]
    categories: Sequence[str]

    def batches(self, k: int) -> Iterator[Tensor]:
        """Yield raw features of one category's images, ``[batch, tokens, channels]``."""
        own = [source for source in self.sources if source.category == self.categories[k]]
        for frames in _frames_ahead(own, self.model.settings.input_side):
            yield raw_features(self.model, frames)


@dataclass(frozen=True)
class Stored:
    """Raw features in float16, usually a memory map.

    Args:
        features: ``[images, tokens, channels]``.
        category: int64 ``[images]``.
        device: where they are needed.
    """

    features: NDArray[np.float16]
    category: NDArray[np.int64]
    device: str = "cpu"

    def batches(self, k: int) -> Iterator[Tensor]:
        """As :meth:`Streamed.batches`."""
        own = np.flatnonzero(self.category == k)
        for start in range(0, len(own), BATCH):
            batch = self.features[own[start : start + BATCH]].astype(np.float32)
            yield torch.from_numpy(batch).to(self.device)


class FeatureStore:
    """Raw float16 features on disk, computed once for a backbone, input side and ``tap_resize``.

    Any number of processes may share it: one computes, the others wait and map the result.

    Args:
        folder: of the files.
        settings: of the model; only what decides raw features matters.
        device: where the backbone runs.
        teacher: whose features the backbone learnt to tell from ``taught_on``; none: it is as
            published.
        taught_on: good images.
    """

    def __init__(
        self,
        folder: Path,
        settings: ModelSettings,
        device: str = "cpu",
        teacher: Teacher | None = None,
        taught_on: Sequence[Source] = (),
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.device = device
        self.teacher = teacher
        self.taught_on = taught_on

    @cached_property
    def name(self) -> str:
        """Names the backbone, input side and ``tap_resize``."""
        s = self.settings
        padded = f"-padded-{s.padding_side}" if s.padding_side else ""
        fine = "-fine" if s.fine_prototypes else ""
        taught = f"-{self.teacher.name}" if self.teacher else ""
        return f"{s.backbone}-{s.input_side}-{s.tap_resize}{padded}{fine}{taught}"

    def features(
        self, name: str, sources: Sequence[Source], on_progress: ProgressCallback = silent
    ) -> NDArray[np.float16]:
        """Return float16 ``[sources, tokens, channels]``, a read-only memory map.

        Raises:
            ImageError: an image cannot be read.
            CheckpointError, MissingCapability: no weights of the backbone.
            OutputError: the features cannot be written.
        """
        digest = hashlib.sha256("\n".join(source.key for source in sources).encode())
        path = self.folder / self.name / f"{name}-{digest.hexdigest()[:16]}.npy"
        if not path.exists():
            with locked(path.with_suffix(".lock")):
                if not path.exists():
                    self._write(path, name, sources, on_progress)
        features: NDArray[np.float16] = np.load(path, mmap_mode="r")
        return features

    def _write(
        self, path: Path, name: str, sources: Sequence[Source], on_progress: ProgressCallback
    ) -> None:
        model, side = self._model, self.settings.input_side
        shape = (len(sources), self.settings.grid**2, model.raw_channels)
        done = 0
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f2", "fortran_order": False, "shape": shape}
            )
            for frames in _frames_ahead(sources, side):
                file.write(raw_features(model, frames).cpu().numpy().astype("<f2").tobytes())
                done += len(frames)
                on_progress(f"features {name} {self.name}", done, len(sources))

    @cached_property
    def _model(self) -> HVQTrans:
        model = HVQTrans(self.settings, 1)
        load_backbone_weights(model.backbone, self.settings.backbone)
        model.to(self.device).eval()
        if self.teacher is not None:
            self._teach(model, self.teacher)
        return model

    def _teach(self, model: HVQTrans, teacher: Teacher) -> None:
        """Distil the teacher into the model's backbone, or take what an earlier call made."""
        path = self.folder / self.name / "taught.pt"
        if not path.exists():
            its = self.settings.model_copy(
                update={
                    "backbone": teacher.backbone,
                    "input_side": teacher.side,
                    "fine_prototypes": 0,
                }
            )
            told = FeatureStore(self.folder, its, self.device).features("fit", self.taught_on)
            frames = _frames_ahead(self.taught_on, self.settings.input_side)
            distil(model.backbone, frames, told)
            with atomic_file(path) as temporary:
                torch.save(model.backbone.state_dict(), temporary)
        model.backbone.load_state_dict(load_tensors(path))


@torch.inference_mode()
def raw_features(model: HVQTrans, frames: NDArray[np.uint8]) -> Tensor:
    """Raw features of frames, uint8 ``[batch, side, side, 3]`` -> ``[batch, tokens, channels]``."""
    return model.raw_features(torch.from_numpy(frames).to(model.feature_mean.device))


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that other processes respect; it ends with the process, however that ends.

    Args:
        path: an empty file that stands for the lock; made if absent.
        wait: until another process gives it back.

    Yields:
        Whether it is held; always true where ``wait``.

    Raises:
        OutputError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise output_error(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _reader(path: Path) -> Callable[[int], Pixels]:
    return lambda side: read_frame(path, side)


def _damager(good: Source, other: Source, kind: str, seed: int) -> Callable[[int], Pixels]:
    return lambda side: pseudo_defect(good.read(side), other.read(side), kind, seed).frame


def _frames_ahead(sources: Sequence[Source], side: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of each batch; the next one is read meanwhile."""
    with ThreadPoolExecutor(2) as readers:

        def submit(start: int) -> list[Callable[[], Pixels]]:
            batch = sources[start : start + BATCH]
            return [readers.submit(source.read, side).result for source in batch]

        following = submit(0)
        for start in range(0, len(sources), BATCH):
            reading, following = following, submit(start + BATCH)
            yield np.stack([read() for read in reading])
