"""One row of the ablations: features, training, what is fitted after it, evidence.

Everything that rows share is computed once and kept in one folder: raw features by backbone, input
side and ``tap_resize``, feature prototypes by what they are made from, trained weights by row.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from benchmarks.accuracy.ablation_rows import ROWS, Row
from benchmarks.accuracy.ablation_variants import VARIANTS
from benchmarks.accuracy.distillation import Teacher
from benchmarks.accuracy.evidence import OURS, Evidence, ToJudge, code_use, gather, map_of
from benchmarks.accuracy.flips import allowed_flips, flip_distances, with_flips
from benchmarks.accuracy.image_sources import (
    FLIPS,
    FeatureStore,
    Source,
    Stored,
    category_index,
    flipped,
    locked,
    pseudo_sources,
    sources_of,
    training_sources,
)
from hvq_edge.common.atomic import atomic_file
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import DatasetImage
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.image_score import score_window
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.run.record import ImageRecord
from hvq_edge.run.settings import Settings
from hvq_edge.run.tiling import GRID_STRIDE
from hvq_edge.training.batches import Images
from hvq_edge.training.fit_prototypes import fit_prototypes
from hvq_edge.training.statistics import (
    fit_feature_statistics,
    fit_level,
    fit_map_scale,
    fit_residual_whitening,
)
from hvq_edge.training.trainer import held_out_loss, train_epochs
from hvq_edge.training.training_state import EpochResult

_FITTED_AFTER = (
    "backbone.",
    "prototypes.",
    "fine_prototypes.",
    "classifier",
    "residual_whitening",
    "map_",
    "level_",
)
"""Parts of a state dict that training does not change."""


class RowResult(BaseModel):
    """A finished row."""

    model_config = ConfigDict(frozen=True)

    name: str
    settings: Settings
    evidence: Evidence
    held_out_loss: float
    """Of the weights that were judged."""
    images_per_second: float | None
    """Median over the epochs; ``None`` where another row's weights were used."""
    seconds_training: float | None
    steps: int
    """Of the training that the weights come from."""
    flip_distances: dict[str, dict[str, float]] | None = None
    """By direction and category; see :func:`flips.flip_distances`."""
    code_use: tuple[tuple[float, float], ...] = ()
    """By level, level 0 first: share of the codes that any image learnt from uses, and their
    perplexity, means over the categories. Rows of an older version have none."""
    fit_images: int = 0
    """Images learnt from."""
    device: str


@dataclass(frozen=True)
class Plan:
    """What all rows have in common."""

    data: Path
    settings: Settings
    """Of the base row."""
    categories: tuple[str, ...]
    records: tuple[ImageRecord, ...]
    """Good training images and their use."""
    images: tuple[DatasetImage, ...]
    """Test images."""


class Material(NamedTuple):
    """A row's images."""

    fit: Images
    fit_name: str
    """Tells sets of images to learn from apart."""
    held_out: Images
    judged: ToJudge
    flip_distances: dict[str, dict[str, float]] | None


class Trained(NamedTuple):
    """What training gave."""

    state: dict[str, Tensor]
    speed: float
    """Images a second."""
    seconds: float
    steps: int


class Workshop:
    """Trains and judges rows in a folder that several processes may share.

    Args:
        plan: what all rows have in common.
        folder: for features, prototypes and weights.
        device: of models and features.
        rows: where those are whose weights others use.
        teacher: whose features the backbone learns to tell first; none: it is as published.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        device: str,
        rows: Sequence[Row] = ROWS,
        teacher: Teacher | None = None,
    ) -> None:
        self.plan = plan
        self._teacher = teacher
        self._rows = rows
        self.folder = folder
        self.device = device
        self._fit = training_sources(plan.records, plan.data, "fit")
        self._held_out = training_sources(plan.records, plan.data, "held_out")
        self._pseudo = pseudo_sources(self._held_out)
        self._test = sources_of(plan.images)

    def run(self, row: Row, on_progress: ProgressCallback = silent) -> RowResult:
        """Train a row, or take the weights it names, and gather its evidence.

        Raises:
            HvqEdgeError: training diverged, or an image, weights or the folder cannot be used.
        """
        settings = row.settings(self.plan.settings)
        material = self._material(row, settings, on_progress)
        source = row
        if row.weights_of:
            source = next(one for one in self._rows if one.name == row.weights_of)
        trained = self._trained(source, material, on_progress)
        model = self._new_model(settings)
        model.load_state_dict(trained.state, strict=False)
        model.eval().requires_grad_(False)
        variant = VARIANTS[row.variant]
        with variant.always(model):
            self._fit_after_training(model, material, settings)
            model.score_window = score_window(settings.model.grid, GRID_STRIDE, row.pooling).to(
                self.device
            )
            use = code_use(model, material.fit)
            loss = held_out_loss(model, material.held_out, settings.training.batch_size)
            found = gather(map_of(model), material.judged, on_progress)
        own = not row.weights_of
        return RowResult(
            name=row.name,
            settings=settings,
            evidence=found[OURS],
            held_out_loss=loss,
            images_per_second=trained.speed if own else None,
            seconds_training=trained.seconds if own else None,
            steps=trained.steps,
            flip_distances=material.flip_distances,
            code_use=use,
            fit_images=len(material.fit.features),
            device=self.device,
        )

    def _material(self, row: Row, settings: Settings, on_progress: ProgressCallback) -> Material:
        store = FeatureStore(
            self.folder / "features", settings.model, self.device, self._teacher, self._fit
        )
        names = self.plan.categories

        def features(name: str, sources: Sequence[Source]) -> NDArray[np.float16]:
            return store.features(name, sources, on_progress)

        def stored(name: str, sources: Sequence[Source]) -> Stored:
            return Stored(features(name, sources), category_index(sources, names), self.device)

        fit = Images(features("fit", self._fit), category_index(self._fit, names))
        held_out = stored("held-out", self._held_out)
        judged = ToJudge(
            categories=names,
            test=stored("test", self._test),
            images=self.plan.images,
            held_out=held_out,
            pseudo=stored("pseudo-defects", self._pseudo),
            side=settings.model.input_side,
        )
        to_stop = Images(held_out.features, held_out.category)
        if not row.flips:
            return Material(fit, store.name, to_stop, judged, None)

        turned = {
            direction: features(
                f"held-out-{direction}", [flipped(one, direction) for one in self._held_out]
            )
            for direction in FLIPS
        }
        distances = flip_distances(fit, to_stop, turned, names, self.device)
        chosen = {
            direction: np.isin(np.array(names)[fit.category], allowed)
            for direction, allowed in allowed_flips(distances).items()
            if allowed
        }
        added = {
            direction: features(
                f"fit-{direction}",
                [
                    flipped(one, direction)
                    for one, is_in in zip(self._fit, own, strict=True)
                    if is_in
                ],
            )
            for direction, own in chosen.items()
        }
        return Material(
            with_flips(fit, added, chosen), f"{store.name} flipped", to_stop, judged, distances
        )

    def _trained(self, row: Row, material: Material, on_progress: ProgressCallback) -> Trained:
        """Train a row, or read what an earlier training gave."""
        path = self.folder / "weights" / f"{row.slug}.pt"
        if not path.exists():
            with locked(path.with_suffix(".lock")):
                if not path.exists():
                    trained = self._train(row, material, on_progress)
                    with atomic_file(path) as temporary:
                        torch.save(trained._asdict(), temporary)
        return Trained(**load_tensors(path))

    def _train(self, row: Row, material: Material, on_progress: ProgressCallback) -> Trained:
        settings = row.settings(self.plan.settings)
        training, fit = settings.training, material.fit
        if row.flips:  # as many steps as the other rows: not longer trained, only otherwise
            epochs = round(training.epochs * len(self._fit) / len(fit.features))
            training = training.model_copy(update={"epochs": max(1, epochs)})
        variant = VARIANTS[row.variant]
        speeds: list[float] = []

        def report(result: EpochResult) -> None:
            speeds.append(result.images_per_second)
            note = f"loss {result.feature_loss:.4f}, held out {result.held_out_loss:.4f}"
            on_progress(f"training: {row.name}", result.epoch, training.epochs, note)

        model = self._new_model(settings)
        began = time.perf_counter()
        with variant.always(model), tempfile.TemporaryDirectory() as state:
            if settings.model.standardise_features:
                fit_feature_statistics(model, fit.features)
            if training.codebook_start == "images":
                variant.start(model, fit.features, fit.category, training.seed)
            with variant.training(model):
                train_epochs(Path(state), model, fit, material.held_out, training, report)
        kept = {
            name: value.cpu()
            for name, value in model.state_dict().items()
            if not name.startswith(_FITTED_AFTER)
        }
        steps = len(speeds) * math.ceil(len(fit.features) / training.batch_size)
        return Trained(kept, statistics.median(speeds), time.perf_counter() - began, steps)

    def _new_model(self, settings: Settings) -> HVQTrans:
        """Random weights from the seed, as a run of ``hvq-edge train`` starts."""
        training = settings.training
        torch.manual_seed(training.seed)
        model = HVQTrans(
            settings.model,
            len(self.plan.categories),
            codebook_decay=training.codebook_decay,
            codebook_epsilon=training.codebook_epsilon,
            codebook_learning=training.codebook_learning,
        )
        return model.to(self.device)

    def _fit_after_training(self, model: HVQTrans, material: Material, settings: Settings) -> None:
        """What a run fits in closed form once training has ended, without versions of the images.

        The category is always known.
        """
        fit = material.fit
        self._fit_prototypes(model, material, settings.training.seed)
        if settings.model.whiten_distance:
            fit_residual_whitening(model, fit)
        if settings.model.map_scale == "good_images":
            fit_map_scale(model, fit)
        if settings.model.image_level == "learnt":
            fit_level(model, fit, material.held_out)

    def _fit_prototypes(self, model: HVQTrans, material: Material, seed: int) -> None:
        """k-means once for the same features: training has no part in it."""
        fitted = nn.ModuleDict(
            {
                name: module
                for name in ("prototypes", "fine_prototypes")
                if (module := getattr(model, name)) is not None
            }
        )
        if not fitted:
            return
        settings = model.settings
        digest = hashlib.sha256(
            repr(
                (
                    material.fit_name,
                    settings.prototypes,
                    settings.prototype_window,
                    settings.fine_prototypes,
                    "whole tokens",
                    seed,
                )
            ).encode()
        )
        for statistic in (model.feature_mean, model.feature_std):
            digest.update(statistic.cpu().numpy().tobytes())
        path = self.folder / "prototypes" / f"{digest.hexdigest()[:16]}.pt"
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                fit_prototypes(model, material.fit.features, material.fit.category, seed)
                with atomic_file(path) as temporary:
                    torch.save(fitted.state_dict(), temporary)
                return
        fitted.load_state_dict(load_tensors(path))
