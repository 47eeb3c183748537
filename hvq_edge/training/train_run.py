"""A whole training run: pictures in, a run's folder out."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.quality import learn_limits
from hvq_edge.data.splits import check_unchanged, split_training
from hvq_edge.errors import RunError
from hvq_edge.model.backbone_weights import load_backbone_weights
from hvq_edge.model.checkpoint import save_checkpoint
from hvq_edge.model.device import choose_device
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.progress import ProgressCallback, silent
from hvq_edge.run_record import RECORD_NAME, RunRecord, read_run, write_run
from hvq_edge.settings import Settings
from hvq_edge.training.codebook_start import start_codebooks
from hvq_edge.training.features import cache_features
from hvq_edge.training.statistics import fit_classifier, fit_feature_statistics, fit_map_scale
from hvq_edge.training.trainer import STATE_NAME, EpochResult, train_epochs


def start_run(
    data: Path,
    run: Path,
    settings: Settings,
    *,
    backbone_weights: str | None = None,
    on_progress: ProgressCallback = silent,
) -> RunRecord:
    """Begin a run: find the pictures, split them, write ``run.json``.

    Args:
        data: folder of pictures.
        run: folder of the new run.
        settings: checked settings.
        backbone_weights: file or URL; ``None``: the published ones.
        on_progress: called after each picture hashed.

    Raises:
        RunError: ``run`` already holds a run.
        DatasetError: ``data`` has no usable layout or too few good pictures.
        OutputError: ``run`` cannot be written.
    """
    if (run / RECORD_NAME).exists():
        kept = read_run(run, finished=False)
        finished = kept.checkpoint_sha256 is not None
        raise RunError(
            f"{run} already holds a {'finished' if finished else 'begun'} run.",
            next_step="choose another folder with --out"
            if finished
            else f"continue it with hvq-edge train --resume --out {run}, or choose another --out",
        )
    dataset = find_dataset(data)
    training = settings.training
    pictures = split_training(dataset, training.held_out, training.seed, on_progress)
    # The weights are read before anything is written: a missing file is found at once.
    weights = load_backbone_weights(
        _new_model(settings, 1).backbone, settings.model.backbone, backbone_weights
    )
    record = RunRecord(
        hvq_edge_version=version("hvq-edge"),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=settings,
        categories=tuple(sorted({picture.category for picture in pictures})),
        backbone_weights=weights,
        data=str(data.resolve()),
        pictures=pictures,
    )
    write_run(run, record)
    return record


def continue_run(
    run: Path,
    *,
    backbone_weights: str | None = None,
    device: str = "auto",
    pictures_checked: bool = False,
    on_progress: ProgressCallback = silent,
) -> RunRecord:
    """Train a begun run to its end; a finished one is returned as it is.

    Args:
        run: folder that :func:`start_run` wrote.
        backbone_weights: as given to :func:`start_run`.
        device: ``auto`` or a torch device.
        pictures_checked: :func:`start_run` has hashed the pictures a moment ago.
        on_progress: called within every stage.

    Raises:
        RunError, DatasetError, PictureError, CheckpointError, OutputError, MissingCapability.
    """
    record = read_run(run, finished=False)
    if record.checkpoint_sha256 is not None or record.data is None:
        return record
    data = Path(record.data)
    if not pictures_checked:
        check_unchanged(record.pictures, data, on_progress)
    settings = record.settings
    model = _new_model(settings, len(record.categories)).to(choose_device(device))
    weights = load_backbone_weights(model.backbone, settings.model.backbone, backbone_weights)
    if weights != record.backbone_weights:
        raise RunError(
            f"this run began with the backbone weights {record.backbone_weights}, "
            f"these are {weights}.",
            next_step="give the same file with --backbone-weights",
        )

    seconds = {}
    began = time.perf_counter()
    fit = [picture for picture in record.pictures if picture.use == "fit"]
    features, qualities = cache_features(run, model, data, fit, weights, on_progress)
    seconds["seconds_features"] = time.perf_counter() - began
    category = np.array([record.categories.index(picture.category) for picture in fit])

    began = time.perf_counter()
    if not (run / STATE_NAME).exists():
        if settings.model.standardise_features:
            fit_feature_statistics(model, features)
        if settings.training.codebook_start == "pictures":
            start_codebooks(model, features, category, settings.training.seed)

    def report(result: EpochResult) -> None:
        note = f"loss {result.feature_loss:.4f}"
        on_progress("training", result.epoch, settings.training.epochs, note)

    last = train_epochs(run, model, features, category, settings.training, report)
    seconds["seconds_training"] = time.perf_counter() - began

    fit_classifier(model, features, category)
    if settings.model.map_scale == "good_pictures":
        fit_map_scale(model, features, category)
    losses = {"feature_loss": last.feature_loss, "commitment": last.commitment}
    record = record.model_copy(
        update={
            "picture_limits": learn_limits(qualities),
            "checkpoint_sha256": save_checkpoint(run, model),
            "epochs_done": last.epoch,
            "metrics": {**losses, **seconds},
        }
    )
    write_run(run, record)
    (run / STATE_NAME).unlink(missing_ok=True)
    return record


def _new_model(settings: Settings, categories: int) -> HVQTrans:
    torch.manual_seed(settings.training.seed)
    training = settings.training
    return HVQTrans(
        settings.model,
        categories,
        codebook_decay=training.codebook_decay,
        codebook_epsilon=training.codebook_epsilon,
    )
