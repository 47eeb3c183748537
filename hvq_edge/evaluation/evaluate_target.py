"""Evaluate a run or a bundle on a folder of images, and write what was found."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvq_edge.bundle.judged_images import METRICS_NAME
from hvq_edge.bundle.manifest import MANIFEST_NAME
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import thresholds_of
from hvq_edge.common.atomic import output_error
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.data.dataset import Dataset, find_dataset
from hvq_edge.errors import DatasetError, RunError
from hvq_edge.evaluation.acceptance.model_card import refresh_card
from hvq_edge.evaluation.evaluate import BATCH_SIZE, evaluate, ways_of
from hvq_edge.evaluation.known_images import known_images, known_note, run_around
from hvq_edge.evaluation.metrics.metrics_file import MetricsFile, metrics_file, write_metrics
from hvq_edge.evaluation.metrics.results import Evaluation
from hvq_edge.evaluation.report import write_report
from hvq_edge.run.category_change import CategoryChange
from hvq_edge.run.latest import DEFAULT_RUN
from hvq_edge.run.record import (
    RECORD_NAME,
    REPORT_NAME,
    RunRecord,
    read_run,
    recorded_data,
    where_runs_come_from,
)
from hvq_edge.runtime.engine import EngineInfo
from hvq_edge.runtime.open_engine import AUTO, choose, is_run, open_engine, runs_torch
from hvq_edge.verdict.image_checks import ImageChecks


@dataclass(frozen=True)
class TargetEvaluation:
    """What was evaluated, found and written."""

    info: EngineInfo
    reason: str
    """Why this precision, in words."""
    evaluations: tuple[Evaluation, ...]
    """With the category known, then chosen by the model; one of them where only one applies."""
    content: MetricsFile
    notes: tuple[str, ...]
    """What looked odd in the dataset, test images that the model knows before all."""
    metrics: Path
    report: Path


def evaluate_target(
    target: Path | str = DEFAULT_RUN,
    data: Path | str | None = None,
    *,
    precision: str = AUTO,
    backend: str = AUTO,
    out: Path | str | None = None,
    on_progress: ProgressCallback = silent,
) -> TargetEvaluation:
    """Evaluate a run or a bundle, and write ``metrics.json`` and ``report.html`` (public API).

    Args:
        target: folder of a finished training run (PyTorch, float32; with another precision or
            backend, the bundle in it) or of a bundle.
        data: folder of images with test images; ``None``: what the run was trained on, or for
            a bundle the run whose folder it stands in.
        precision: of the bundle's graph, or ``auto`` (:func:`hvq_edge.runtime.open_engine.choose`).
        backend: ``auto``, ``openvino``, ``onnxruntime`` or, for runs, ``torch``.
        out: folder to write to; ``None``: the run's folder, or ``eval-PRECISION`` in the bundle's.
        on_progress: told after each batch.

    Raises:
        BundleError, RunError, CheckpointError: ``target`` cannot be opened.
        SettingsError: an unknown precision or backend, or one that does not fit ``target``.
        DatasetError: no usable test images, or categories that the model does not know.
        MissingCapability: a library that this needs is not installed.
        OutputError: the results cannot be written.
    """
    target = Path(target)
    data = None if data is None else Path(data)
    out = None if out is None else Path(out)
    if runs_torch(target, precision, backend):
        record = read_run(target)
        categories, changes = record.categories, record.changes
        data = data or recorded_data(target)
        facts = _run_facts(target, record)
        known = known_images(record)
        thresholds: Mapping[str, float] = {}
        checks = ImageChecks(record.image_limits, record.category_limits)
        batch_size = BATCH_SIZE
        reason = "fp32: a training run is evaluated with PyTorch"
        folder = out or target
        title = f"Evaluation of run {_short_name(target)}"
    elif not is_run(target) and not (target / MANIFEST_NAME).exists():
        raise _nothing_at(target)
    else:
        bundle = open_bundle(target)
        target = bundle.path
        data = data or _data_of_parent(bundle)
        categories, training = bundle.manifest.categories, bundle.manifest.training
        changes = training.changes if training else ()
        choice = choose(bundle, precision, backend)
        precision, backend, reason = choice.precision, choice.backend, choice.reason
        facts = _bundle_facts(bundle, reason)
        known = known_images(run_around(bundle), bundle)
        thresholds = thresholds_of(bundle, choice.precision)
        checks = bundle.checks
        batch_size = 1  # as the line does: an engine may round INT8 otherwise in a batch
        folder = out or target / f"eval-{precision}"
        title = f"Evaluation of bundle {_short_name(target)}, {precision}"
    _check_writable(folder)
    dataset = find_dataset(data, on_progress)
    _check_former_names(dataset, categories, changes)
    with open_engine(target, precision=precision, backend=backend) as engine:
        info = engine.info
        evaluations = tuple(
            evaluate(
                engine,
                dataset,
                known_category=given,
                thresholds=thresholds,
                checks=checks,
                batch_size=batch_size,
                on_progress=on_progress,
            )
            for given in ways_of(info)
        )
    # After they were judged: the files were just read, and those that cannot be are left out.
    caution = known_note([result.image.path for result in evaluations[-1].images], known)
    content = metrics_file(target, info, evaluations)
    found = TargetEvaluation(
        info=info,
        reason=reason,
        evaluations=evaluations,
        content=content,
        notes=(
            *((caution,) if caution else ()),
            *dataset.notes,
            *_verdict_notes(evaluations[-1]),
            *_unseen_notes(evaluations[-1]),
        ),
        metrics=folder / METRICS_NAME,
        report=folder / REPORT_NAME,
    )
    write_report(
        found.report,
        evaluations,
        title=title,
        facts={
            **facts,
            "Engine": f"{info.backend}, {info.precision}",
            "Machine": info.device,
            "Images": _dataset_in_words(dataset),
            "Evaluated": f"{content.created}, hvq-edge {content.hvq_edge_version}",
        },
        caution=caution,
    )
    write_metrics(found.metrics, content)
    if out is None and not is_run(target):
        refresh_card(target, create=True)
    return found


def evaluate_precisions(
    target: Path,
    data: Path | None = None,
    *,
    backend: str = AUTO,
    out: Path | None = None,
    on_progress: ProgressCallback = silent,
) -> dict[str, TargetEvaluation]:
    """Evaluate a bundle in each of its precisions, one after the other.

    Args:
        target: folder of the bundle, or of the run around it.
        data: as of :func:`evaluate_target`, as the next one.
        backend: of all of them.
        out: gets a folder ``eval-PRECISION`` of each; ``None``: the bundle's folder does.
        on_progress: told after each batch.

    Raises:
        BundleError: ``target`` is a run that was not exported.
        HvqEdgeError: what :func:`evaluate_target` raises.
    """
    if not is_run(target) and not (target / MANIFEST_NAME).exists():
        raise _nothing_at(target)
    bundle = open_bundle(target)
    return {
        precision: evaluate_target(
            bundle.path,
            data,
            precision=precision,
            backend=backend,
            out=out and out / f"eval-{precision}",
            on_progress=on_progress,
        )
        for precision in bundle.manifest.models
    }


def _nothing_at(target: Path) -> RunError:
    return RunError(
        f"there is neither a training run nor a bundle at {target}.",
        next_step=where_runs_come_from(target, "name the folder of a run or a bundle"),
    )


def _verdict_notes(evaluation: Evaluation) -> Iterator[str]:
    """Say why the line decides nothing on test images, by category."""
    for one in evaluation.categories:
        own = [result for result in evaluation.images if result.image.category == one.category]
        why = Counter(result.refused.partition(":")[0] for result in own if result.refused)
        if why:
            listed = ", ".join(f"{count} {reason}" for reason, count in why.most_common())
            yield (
                f"{one.category}: of {counted(len(own), 'test image')}, {why.total()} without a "
                f"decision on the line, and neither found nor missed: {listed}"
            )
        if one.not_finite:
            yield (
                f"{one.category}: no finite score of {counted(one.not_finite, 'test image')}, and "
                "no metric ranks them: run hvq-edge verify to see where the graph differs from the "
                "model"
            )


def _unseen_notes(evaluation: Evaluation) -> tuple[str, ...]:
    return tuple(
        one.unseen_kind.note(one.category, one.good, one.image_auroc)
        for one in evaluation.categories
        if one.unseen_kind is not None
    )


def _data_of_parent(bundle: Bundle) -> Path:
    run = bundle.path.resolve().parent
    if not (run / RECORD_NAME).is_file():
        raise DatasetError(
            f"the bundle {bundle.path} is not in the folder of the run it came from, so its "
            "images are not known.",
            next_step="give a folder with test images with --data DIR",
        )
    return recorded_data(run)


def _check_former_names(
    dataset: Dataset, categories: Sequence[str], changes: Sequence[CategoryChange]
) -> None:
    """Name the folder that still has the name that a category had once.

    Raises:
        DatasetError: there is one, and none with the category's name.
    """
    now: dict[str, str] = {}
    for change in changes:
        if change.former_name is not None:
            named = {former: change.category for former in now if now[former] == change.former_name}
            now = {**now, **named, change.former_name: change.category}
    for former, name in now.items():
        known = former not in categories and name in categories
        if known and former in dataset.categories and name not in dataset.categories:
            raise DatasetError(
                f"{dataset.root} has no images of {name}, but of {former}, as that category was "
                "called before hvq-edge rename-category.",
                next_step=f"rename the folder {former} to {name}",
            )


def _run_facts(run: Path, record: RunRecord) -> dict[str, str]:
    model = record.settings.model
    return {
        "Run": str(run.resolve()),
        "Model": f"preset {record.settings.preset}, {model.backbone}, {model.tiling} px, "
        f"width {model.width}, {counted(model.layers, 'layer')}, {model.codes} codes",
        "Backbone": record.backbone_weights,
        "Categories": ", ".join(record.categories),
        "Trained": f"{record.created}, {counted(record.epochs_done, 'epoch')}"
        + (f", on {record.data}" if record.data else ""),
        "Checkpoint": f"SHA-256 {record.checkpoint_sha256}",
    }


def _bundle_facts(bundle: Bundle, reason: str) -> dict[str, str]:
    manifest = bundle.manifest
    modes = {
        "auto": "chosen by the model itself",
        "input": "given with each image",
        "one": "one category only",
    }
    return {
        "Bundle": str(bundle.path.resolve()),
        "Model": f"preset {manifest.preset}, {manifest.tiling} px, {manifest.levels} levels, "
        f"{manifest.codes} codes",
        "Precision": reason,
        "Categories": ", ".join(manifest.categories),
        "Category": modes[manifest.category_mode],
        "Exported": manifest.created,
        "Checkpoint": f"SHA-256 {manifest.checkpoint_sha256}",
    }


def _short_name(folder: Path) -> str:
    """Return the folder with its parent: many bundles are just called ``bundle``."""
    return "/".join(folder.resolve().parts[-2:]).lstrip("/")


def _dataset_in_words(dataset: Dataset) -> str:
    return f"{counted(len(dataset.test()), 'test image')} in {dataset.root.resolve()}"


def _check_writable(folder: Path) -> None:
    """Refuse a place that cannot be written to before minutes of work.

    Raises:
        OutputError: it cannot be written.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise output_error(folder, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(existing, os.W_OK):
        raise output_error(folder, OSError(errno.EACCES, os.strerror(errno.EACCES)))
