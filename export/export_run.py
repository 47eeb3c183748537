"""A finished run in, a bundle out: graphs, thresholds, hashes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from hvq_edge.atomic import atomic_folder
from hvq_edge.bundle import (
    MANIFEST_NAME,
    Bundle,
    BundleManifest,
    CalibrationRecord,
    CategoryMode,
    Precision,
    record_of,
    write_manifest,
)
from hvq_edge.calibration.choose_pictures import RULE as CALIBRATION_RULE
from hvq_edge.calibration.choose_pictures import choose_calibration
from hvq_edge.calibration.int8 import METHOD, quantise
from hvq_edge.calibration.thresholds import learn_thresholds
from hvq_edge.data.content import hash_picture
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.splits import check_unchanged
from hvq_edge.errors import InputError, OutputError
from hvq_edge.export.fold_plan import MAX_TABLE_MB
from hvq_edge.export.graph_numbers import compare_with_plain
from hvq_edge.export.lint import check
from hvq_edge.export.onnx_graph import export_graph
from hvq_edge.model.checkpoint import load_run
from hvq_edge.progress import ProgressCallback, silent
from hvq_edge.run_record import PictureRecord, RunRecord
from hvq_edge.runtime.open_engine import open_engine


def export_run(
    run: Path,
    out: Path,
    *,
    int8: bool = False,
    category: str = "auto",
    calibration: Path | None = None,
    max_table_mb: float = MAX_TABLE_MB,
    on_progress: ProgressCallback = silent,
) -> Bundle:
    """Write a bundle; an earlier bundle at ``out`` is replaced when the new one is complete.

    Args:
        run: folder of a finished run.
        out: the bundle's folder.
        int8: write ``model.int8.onnx`` beside ``model.fp32.onnx``.
        category: ``auto``, ``input`` or the name of a single category.
        calibration: the user's own good pictures for the INT8 ranges; default: chosen training
            pictures.
        max_table_mb: what tables of codes may take in a graph of several categories, in 10^6 bytes.
        on_progress: called within every stage.

    Raises:
        GateFailed: the graph breaks a rule (:mod:`hvq_edge.export.lint`).
        RunError, CheckpointError: the run cannot be used.
        InputError: an unknown category, or no pictures for INT8.
        DatasetError, PictureError: recorded pictures are missing or changed.
        OutputError: ``out`` is some other folder, or cannot be written.
    """
    model, record = load_run(run)
    mode, index = _category_mode(category, record)
    if out.exists() and not (out / MANIFEST_NAME).is_file() and any(out.iterdir()):
        raise OutputError(
            f"{out} exists and is not a bundle; it is left as it is.",
            next_step="name a new folder with --out",
        )
    held_out = [p for p in record.pictures if p.use == "held_out" and _serves(p, mode, category)]
    data = Path(record.data) if record.data else None
    if data is not None:
        check_unchanged(held_out, data)
    pictures: list[tuple[Path, str, str]] = []  # path, category, SHA-256
    rule = CALIBRATION_RULE
    if int8:
        pictures, rule = _calibration_pictures(record, data, mode, category, calibration)

    categories = record.categories if index is None else (record.categories[index],)
    with atomic_folder(out) as folder:
        on_progress("graph", 0, 2)
        models: dict[Precision, str] = {"fp32": "model.fp32.onnx"}
        export_graph(model, folder / models["fp32"], mode, index, max_table_mb=max_table_mb)
        on_progress("graph", 1, 2)
        graph = compare_with_plain(model, folder / models["fp32"], mode, index)
        on_progress("graph", 2, 2)
        if int8:
            models["int8"] = "model.int8.onnx"
            given = [categories.index(name) for _, name, _ in pictures] if mode == "input" else None
            quantise(
                folder / models["fp32"],
                folder / models["int8"],
                [path for path, _, _ in pictures],
                record.settings.model.input_side,
                given,
                on_progress,
            )
        for name in models.values():
            check(folder / name)
        manifest = BundleManifest(
            hvq_edge_version=version("hvq-edge"),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            checkpoint_sha256=str(record.checkpoint_sha256),
            preset=record.settings.preset,
            input_side=record.settings.model.input_side,
            levels=record.settings.model.levels,
            codes=record.settings.model.codes,
            categories=categories,
            category_mode=mode,
            models=models,
            files={name: record_of(folder / name) for name in models.values()},
            graph=graph,
            picture_limits=record.picture_limits,
            calibration=CalibrationRecord(
                method=METHOD, rule=rule, pictures=tuple(digest for _, _, digest in pictures)
            )
            if int8
            else None,
        )
        if held_out and data is not None:
            manifest = _with_thresholds(Bundle(folder, manifest), held_out, data, on_progress)
        write_manifest(folder, manifest)
    return Bundle(out, manifest)


def _category_mode(category: str, record: RunRecord) -> tuple[CategoryMode, int | None]:
    if category == "auto":
        return "auto", None
    if category == "input":
        return "input", None
    if category not in record.categories:
        raise InputError(
            f"the model has no category {category!r}; it has {', '.join(record.categories)}.",
            next_step="give one of these with --category, or auto, or input",
        )
    return "one", record.categories.index(category)


def _serves(picture: PictureRecord, mode: CategoryMode, category: str) -> bool:
    return mode != "one" or picture.category == category


def _calibration_pictures(
    record: RunRecord,
    data: Path | None,
    mode: CategoryMode,
    category: str,
    own: Path | None,
) -> tuple[list[tuple[Path, str, str]], str]:
    if own is not None:
        good = [p for p in find_dataset(own).train_good() if p.category in record.categories]
        if not good:
            raise InputError(
                f"{own} has no good pictures of {', '.join(record.categories)}.",
                next_step="name its folders as the categories the model was trained with",
            )
        found = [(p.path, p.category, hash_picture(p.path)) for p in good]
        rule = "all good pictures of the folder given with --calib"
    elif data is None:
        raise InputError(
            "INT8 ranges need good pictures, and this run has none on record.",
            next_step="give a folder of good pictures with --calib DIR",
        )
    else:
        chosen = choose_calibration([p for p in record.pictures if _serves(p, mode, category)])
        check_unchanged(chosen, data)
        found = [(data / p.path, p.category, p.sha256) for p in chosen]
        rule = CALIBRATION_RULE
    return [entry for entry in found if mode != "one" or entry[1] == category], rule


def _with_thresholds(
    bundle: Bundle,
    held_out: Sequence[PictureRecord],
    data: Path,
    on_progress: ProgressCallback,
) -> BundleManifest:
    paths = [Path(picture.path) for picture in held_out]
    names = [picture.category for picture in held_out]
    thresholds = {}
    for precision in bundle.manifest.models:
        with open_engine(bundle, precision=precision) as engine:
            thresholds[precision] = learn_thresholds(engine, data, paths, names, on_progress)
    digests = tuple(picture.sha256 for picture in held_out)
    update = {"thresholds": thresholds, "threshold_pictures": digests}
    return bundle.manifest.model_copy(update=update)
