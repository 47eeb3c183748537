"""A whole training run: images in, a run's folder out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from hvq_edge.common.atomic import output_error
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.known_defects import known_defects
from hvq_edge.data.splits import check_unchanged, split_training
from hvq_edge.errors import RunError
from hvq_edge.model.backbone_weights import load_backbone_weights
from hvq_edge.model.checkpoint import save_checkpoint
from hvq_edge.model.device import choose_device
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import (
    RECORD_NAME,
    ImageRecord,
    ImageUse,
    RunRecord,
    read_run,
    write_run,
)
from hvq_edge.run.settings import Settings
from hvq_edge.training import processes
from hvq_edge.training.batches import Images
from hvq_edge.training.category_limits import FrameLooks, learn_category_limits
from hvq_edge.training.closed_form import MOST_VARIED
from hvq_edge.training.codebook_start import start_codebooks
from hvq_edge.training.event_log import EVENTS_FOLDER, EventLog, scalars_of
from hvq_edge.training.features import cache_features, features_of_versions
from hvq_edge.training.fit_prototypes import fit_prototypes
from hvq_edge.training.known_defects.images import learn_known_defects, warn_of_unused
from hvq_edge.training.statistics import (
    fit_classifier,
    fit_feature_statistics,
    fit_level,
    fit_map_scale,
    fit_residual_whitening,
)
from hvq_edge.training.trainer import train_epochs
from hvq_edge.training.training_state import STATE_NAME, EpochResult
from hvq_edge.verdict.frame_quality import FrameQuality, learn_limits

logger = logging.getLogger(__name__)


def start_run(
    data: Path,
    run: Path,
    settings: Settings,
    *,
    defects: Path | None = None,
    backbone_weights: str | None = None,
    on_progress: ProgressCallback = silent,
) -> RunRecord:
    """Begin a run: find the images, split them, write ``run.json``.

    Args:
        data: folder of images.
        run: folder of the new run.
        settings: checked settings.
        defects: folder of known defects besides those in ``data``.
        backbone_weights: file or URL; ``None``: the published ones.
        on_progress: called after each image hashed.

    Raises:
        RunError: ``run`` already holds a run.
        DatasetError: ``data`` has no usable layout or too few good images.
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
    dataset = find_dataset(data, on_progress)
    for note in dataset.notes:
        logger.warning("%s", note)
    training = settings.training
    split = split_training(dataset, training.held_out, training.seed, on_progress)
    known = known_defects(dataset, defects, on_progress)
    warn_of_unused(known, settings)
    # The weights are read before anything is written: a missing file is found at once.
    weights = load_backbone_weights(
        _new_model(settings, 1).backbone, settings.model.backbone, backbone_weights
    )
    record = RunRecord(
        hvq_edge_version=version("hvq-edge"),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=settings,
        categories=tuple(sorted({image.category for image in split.images})),
        backbone_weights=weights,
        data=str(data.resolve()),
        images=split.images,
        known_defects=known,
        held_out_from=split.held_out_from,
    )
    state = run / STATE_NAME
    try:  # of a run whose record was deleted: this one would go on from its weights
        state.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(state, error) from error
    write_run(run, record)
    return record


def continue_run(
    run: Path,
    *,
    backbone_weights: str | None = None,
    device: str = "auto",
    images_checked: bool = False,
    on_progress: ProgressCallback = silent,
) -> RunRecord:
    """Train a begun run to its end; a finished one is returned as it is.

    Args:
        run: folder that :func:`start_run` wrote.
        backbone_weights: as given to :func:`start_run`.
        device: ``auto`` or a torch device.
        images_checked: :func:`start_run` has hashed the images a moment ago.
        on_progress: called within every stage.

    Raises:
        RunError, DatasetError, ImageError, CheckpointError, OutputError, MissingCapability.
    """
    record = read_run(run, finished=False)
    if record.checkpoint_sha256 is not None or record.data is None:
        return record
    data = Path(record.data)
    if not images_checked:
        check_unchanged((*record.images, *record.known_defects), data, on_progress)
    settings = record.settings
    model = _new_model(settings, len(record.categories))
    weights = load_backbone_weights(model.backbone, settings.model.backbone, backbone_weights)
    if weights != record.backbone_weights:
        raise RunError(
            f"this run began with the backbone weights {record.backbone_weights}, "
            f"these are {weights}.",
            next_step="give the same file with --backbone-weights",
        )

    with processes.joined(choose_device(device)) as own_device:
        return _train(run, record, model.to(own_device), on_progress)


def _train(
    run: Path, record: RunRecord, model: HVQTrans, on_progress: ProgressCallback
) -> RunRecord:
    settings = record.settings
    if processes.rank() > 0:
        on_progress = silent
    began = time.perf_counter()
    fit, looks = cached_images(run, record, model, "fit", on_progress)
    held_out, _ = cached_images(run, record, model, "held_out", on_progress)
    seconds = {"seconds_features": time.perf_counter() - began}

    began = time.perf_counter()
    resumed = (run / STATE_NAME).exists()
    if not resumed:
        if settings.model.standardise_features:
            fit_feature_statistics(model, fit.features)
        if settings.training.codebook_start == "images":
            start_codebooks(model, fit.features, fit.category, settings.training.seed)
    processes.wait_for_all()  # all have looked for the state before the first writes one
    last = _train_with_events(run, model, fit, held_out, settings, on_progress)
    seconds["seconds_training"] = time.perf_counter() - began

    began = time.perf_counter()
    if processes.rank() == 0:
        fit_classifier(model, fit.features, fit.category, held_out.features, held_out.category)
        fit_prototypes(model, fit.features, fit.category, settings.training.seed, on_progress)
        assert record.data is not None
        with varied_images(run, record, model, Path(record.data), on_progress) as (varied, borne):
            if settings.model.whiten_distance:
                fit_residual_whitening(model, fit, *varied)
                good = (fit, varied, held_out)
                record = learn_known_defects(run, record, model, *good, on_progress)
            if settings.model.map_scale == "good_images":
                fit_map_scale(model, fit, *varied)
        if settings.model.image_level == "learnt":
            fit_level(model, fit, held_out)
        used = [image for image in record.images if image.use == "fit"]
        seconds["seconds_statistics"] = time.perf_counter() - began
        losses = {
            "feature_loss": last.feature_loss,
            "commitment": last.commitment,
            "held_out_loss": last.held_out_loss,
        }
        record = record.model_copy(
            update={
                "image_limits": learn_limits(looks.qualities, chain.from_iterable(borne.values())),
                "category_limits": learn_category_limits(used, looks, borne),
                "checkpoint_sha256": save_checkpoint(run, model),
                "epochs_done": last.epoch,
                "metrics": {**losses, **seconds},
            }
        )
        write_run(run, record)
        (run / STATE_NAME).unlink(missing_ok=True)
    processes.wait_for_all()
    return record if processes.rank() == 0 else read_run(run)


def _train_with_events(
    run: Path,
    model: HVQTrans,
    fit: Images,
    held_out: Images,
    settings: Settings,
    on_progress: ProgressCallback,
) -> EpochResult:
    log: EventLog | None = None

    def report(result: EpochResult) -> None:
        nonlocal log
        note = f"loss {result.feature_loss:.4f}, held out {result.held_out_loss:.4f}"
        on_progress("training", result.epoch, settings.training.epochs, note)
        if processes.rank() == 0:
            log = log or EventLog(run / EVENTS_FOLDER, result.epoch)
            log.write(result.epoch, scalars_of(model, result, settings.training))

    try:
        return train_epochs(run, model, fit, held_out, settings.training, report)
    finally:
        if log is not None:
            log.close()


def cached_images(
    run: Path,
    record: RunRecord,
    model: HVQTrans,
    use: ImageUse,
    on_progress: ProgressCallback,
) -> tuple[Images, FrameLooks]:
    """Compute the features of a run's images of one use, or map those of an earlier call.

    Args:
        run: folder that keeps them.
        record: of the run, with ``data``.
        model: its backbone is used.
        use: of the images.
        on_progress: called after each batch.
    """
    assert record.data is not None
    images = [image for image in record.images if image.use == use]
    name = "features" if use == "fit" else "features_held_out"
    arguments = (run, model, Path(record.data), images, record.backbone_weights, on_progress)
    if processes.rank() > 0:
        processes.wait_for_all()  # the first process writes the cache, the others map it
    features, looks = cache_features(*arguments, name=name)
    if processes.rank() == 0:
        processes.wait_for_all()
    category = np.array([record.categories.index(image.category) for image in images])
    return Images(features, category), looks


@contextmanager
def varied_images(
    scratch: Path,
    record: RunRecord,
    model: HVQTrans,
    data: Path,
    on_progress: ProgressCallback = silent,
) -> Iterator[tuple[tuple[Images, ...], dict[str, list[FrameQuality]]]]:
    """Compute the features of versions of the images learnt from, where the settings have any.

    Args:
        scratch: folder that holds their features meanwhile.
        record: of the run.
        model: its backbone is used.
        data: what the images' paths are relative to.
        on_progress: called after each batch.

    Yields:
        One group of images, none without versions; and by category how the frames look.
    """
    versions = record.settings.training.versions
    if not versions:
        yield (), {}
        return
    images: list[ImageRecord] = []
    for name in record.categories:
        own = [one for one in record.images if one.use == "fit" and one.category == name]
        images += own[:: max(1, -(-len(own) // MOST_VARIED))]
    names = [image.category for image in images for _ in range(versions)]
    index = np.array([record.categories.index(name) for name in names])
    with features_of_versions(scratch, model, data, images, versions, on_progress) as found:
        borne: dict[str, list[FrameQuality]] = {}
        for name, quality in zip(names, found.qualities, strict=True):
            borne.setdefault(name, []).append(quality)
        yield (Images(found.features, index),), borne


def _new_model(settings: Settings, categories: int) -> HVQTrans:
    torch.manual_seed(settings.training.seed)
    training = settings.training
    return HVQTrans(
        settings.model,
        categories,
        codebook_decay=training.codebook_decay,
        codebook_epsilon=training.codebook_epsilon,
        codebook_learning=training.codebook_learning,
    )
