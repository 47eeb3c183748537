"""What a run knows of why an image scores what it scores: parts of its map, codes, exemplars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import read_frame
from hvq_edge.data.splits import check_unchanged
from hvq_edge.errors import BundleError, DatasetError, InputError
from hvq_edge.explain.exemplars import (
    Cells,
    Exemplars,
    choose_exemplars,
    exemplars_name,
    jpeg,
    read_exemplars,
    write_exemplars,
)
from hvq_edge.model.attribution import attribute, codebook_names, nearest_codes, part_names
from hvq_edge.model.checkpoint import load_run
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import ImageRecord, RunRecord
from hvq_edge.run.tiling import FrameShape
from hvq_edge.runtime.engine import Frames
from hvq_edge.verdict.decision import Decision

MOST_IMAGES = 200
"""Good training images of a category that are looked at, evenly spread."""
_BATCH = 8


class RunInsight:
    """The model of a run, and the exemplars of its codes, made when they are first asked for.

    Args:
        run: folder of a finished run.
        bundle: that is explained; it must come from this run. ``None``: the run itself is.
        on_progress: called while exemplars are made.

    Raises:
        RunError, CheckpointError: the run cannot be used.
        BundleError: the bundle comes from another training.
    """

    def __init__(
        self, run: Path, bundle: Bundle | None = None, on_progress: ProgressCallback = silent
    ) -> None:
        self._run = run
        self._on_progress = on_progress
        self._model, self.record = load_run(run, bundle=bundle)
        self._has_learnt = bundle is not None and bundle.manifest.changed_since_export
        if bundle is not None and (
            bundle.manifest.checkpoint_sha256 != self.record.checkpoint_sha256
        ):
            raise BundleError(
                f"the bundle {bundle.path} does not come from the run {run}.",
                next_step="name the run that it was exported from with --run RUN",
            )

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of what it can tell of."""
        return self.record.categories

    def cells(self, fitted: Frames, decision: Decision) -> Cells:
        """Take an image's map apart, in float32 whatever the precision that judged.

        Args:
            fitted: uint8 ``[height, width, 3]``, RGB, as ``fit_image`` gives.
            decision: on it, which says what it was judged as.
        """
        index = torch.tensor([self._index(str(decision.category))])
        found = attribute(self._model, torch.from_numpy(fitted[None]), index)
        settings = self._model.settings
        return Cells(
            parts=dict(zip(part_names(settings), found.parts[:, 0].numpy(), strict=True)),
            codes={
                name: one.code[0].numpy()
                for name, one in zip(codebook_names(settings), found.nearest, strict=True)
            },
            distances={
                name: one.distance[0].numpy()
                for name, one in zip(codebook_names(settings), found.nearest, strict=True)
            },
        )

    def exemplars(self, category: str) -> Exemplars:
        """Return the exemplars of a category: those that the run keeps, else new ones.

        A bundle that has learnt since has other prototypes: its exemplars are made anew, of the
        training images, and not kept.

        Raises:
            InputError: no such category.
            DatasetError: the run has no images on record, or they are missing or changed.
            ImageError: an image cannot be read.
            OutputError: the run's folder cannot be written.
        """
        if self._has_learnt:
            return make_exemplars(self._model, self.record, category, self._on_progress)
        path = self._run / exemplars_name(self._index(category))
        kept = _kept(path)
        if kept is not None and (
            (kept.checkpoint_sha256, kept.category) == (self.record.checkpoint_sha256, category)
        ):
            return kept
        made = make_exemplars(self._model, self.record, category, self._on_progress)
        write_exemplars(path, made)
        return made

    def _index(self, category: str) -> int:
        if category not in self.categories:
            raise InputError(
                f"the model has no category {category!r}; it has {', '.join(self.categories)}.",
                next_step="give one of these with --category",
            )
        return self.categories.index(category)


def make_exemplars(
    model: HVQTrans, record: RunRecord, category: str, on_progress: ProgressCallback = silent
) -> Exemplars:
    """Look at the images that a category learnt from, and choose the exemplars of its codes.

    Args:
        model: of the run, in eval mode.
        record: of the run.
        category: one of its categories.
        on_progress: called after each batch.

    Raises:
        DatasetError: the run has no images on record, or they are missing or changed.
        ImageError: an image cannot be read.
    """
    if record.data is None:
        raise DatasetError(
            "this run has no training images on record, so nothing shows what its codes stand for.",
            next_step="explain images with a run that hvq-edge train made",
        )
    data = Path(record.data)
    own = [one for one in record.images if one.use == "fit" and one.category == category]
    if not own:
        raise DatasetError(
            f"the run has no images of {category} on record: it was added to the bundle, with "
            "codes of another category.",
            next_step="add it to the run as well (hvq-edge add-category) and explain with that",
        )
    own = own[:: -(-len(own) // MOST_IMAGES)]
    check_unchanged(own, data)
    shape = model.tiling.frame_shape
    label = record.categories.index(category)
    indices: list[list[NDArray[np.int64]]] = []
    distances: list[list[NDArray[np.float32]]] = []
    for start in range(0, len(own), _BATCH):
        frames = _frames(own[start : start + _BATCH], data, shape)
        labels = torch.full((len(frames),), label)
        found = nearest_codes(model, torch.from_numpy(frames), labels)
        indices.append([one.code.numpy() for one in found])
        distances.append([one.distance.numpy() for one in found])
        on_progress("exemplars", start + len(frames), len(own))
    books = [
        choose_exemplars(name, codes, np.concatenate(index), np.concatenate(distance))
        for name, codes, index, distance in zip(
            codebook_names(model.settings),
            _sizes(model),
            zip(*indices, strict=True),
            zip(*distances, strict=True),
            strict=True,
        )
    ]
    used = np.unique(np.concatenate([book.image[book.image >= 0] for book in books]))
    for book in books:
        there = book.image >= 0
        book.image[there] = np.searchsorted(used, book.image[there])
    shown = [own[number] for number in used]
    return Exemplars(
        category=category,
        checkpoint_sha256=str(record.checkpoint_sha256),
        looked_at=len(own),
        shape=shape,
        images=tuple(jpeg(read_frame(data / one.path, shape)) for one in shown),
        sha256=tuple(one.sha256 for one in shown),
        codebooks=tuple(books),
    )


def _sizes(model: HVQTrans) -> list[int]:
    settings = model.settings
    return [settings.codes] * settings.levels + [settings.prototypes] * bool(settings.prototypes)


def _frames(images: list[ImageRecord], data: Path, shape: FrameShape) -> Frames:
    return np.stack([read_frame(data / one.path, shape) for one in images])


def _kept(path: Path) -> Exemplars | None:
    """Return what an earlier call kept; ``None``: nothing that can be read."""
    try:
        return read_exemplars(path.read_bytes())
    except (OSError, ValueError):
        return None
