"""A finished run in, a bundle out: graphs, thresholds, hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from hvq_edge.bundle.integrity.content import CARD_NAME
from hvq_edge.bundle.manifest import (
    MANIFEST_NAME,
    BundleManifest,
    CategoryMode,
    ImageSet,
    KnownDefects,
    Precision,
    TrainingRecord,
    digest_of_set,
    record_of,
    write_manifest,
)
from hvq_edge.bundle.opened import Bundle
from hvq_edge.calibration.images.calibration_image import CalibrationImage
from hvq_edge.calibration.images.own_set import OWN_SET_RULE, own_calibration, suspicious_images
from hvq_edge.calibration.images.training_set import TRAINING_SET_RULE, training_set
from hvq_edge.calibration.int8 import DEFAULT_METHOD
from hvq_edge.calibration.ranges.amax import METHODS, RangeMethod
from hvq_edge.calibration.search.plan import Budget, read_plan
from hvq_edge.common.atomic import atomic_folder
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import licence_of_data
from hvq_edge.data.splits import check_unchanged
from hvq_edge.errors import InputError, OutputError, SettingsError
from hvq_edge.evaluation.acceptance.model_card import write_card
from hvq_edge.evaluation.explain_run import RunInsight
from hvq_edge.explain.exemplars import exemplars_name, write_exemplars
from hvq_edge.export.fold.code_tables import MAX_TABLE_MB
from hvq_edge.export.graph.onnx_graph import compare_with_plain, export_graph
from hvq_edge.export.known_answers import learn_known_answers
from hvq_edge.export.lint.check import check_graph_file
from hvq_edge.export.precision_files import (
    FILE_NAMES,
    Material,
    PrecisionOptions,
    WrittenFiles,
    write_precision_files,
)
from hvq_edge.model.backbone_weights import licence_of_weights
from hvq_edge.model.checkpoint import load_run
from hvq_edge.run.record import ImageRecord, ImageUse, RunRecord
from hvq_edge.runtime.known_answers import ANSWERS_NAME, answers_file, write_known_answers
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.verdict.calibrate.gathering import HELD_OUT, gather_images
from hvq_edge.verdict.decision import as_text
from hvq_edge.verdict.defaults import CONFIDENCE, FALSE_REJECT
from hvq_edge.verdict.tolerance_bound import check_asked

MOST_LEARNT = 200
"""Images of a category that it learnt from which help to place its threshold."""


def export_run(
    run: Path,
    out: Path,
    *,
    int8: bool = False,
    fp16: bool = False,
    category: str = "auto",
    calibration: Path | None = None,
    ranges: str = DEFAULT_METHOD,
    plan: Path | None = None,
    budget: Budget | None = None,
    max_table_mb: float = MAX_TABLE_MB,
    false_reject: float = FALSE_REJECT,
    exemplars: bool = False,
    on_progress: ProgressCallback = silent,
) -> Bundle:
    """Write a bundle; an earlier bundle at ``out`` is replaced when the new one is complete.

    Args:
        run: folder of a finished run.
        out: the bundle's folder.
        int8: write ``model.int8.onnx`` beside ``model.fp32.onnx``.
        fp16: write ``model.fp16.onnx``; with ``int8`` also ``model.int8-fp16.onnx``.
        category: ``auto``, ``input`` or the name of a single category.
        calibration: the user's own good images for the INT8 ranges; default: chosen training
            images.
        ranges: how INT8 ranges are chosen (:mod:`hvq_edge.calibration.ranges.amax`).
        plan: an INT8 plan to keep to (:mod:`hvq_edge.calibration.search.plan`).
        budget: search for the INT8 plan with the fewest layers in float under this.
        max_table_mb: what tables of codes may take in a graph of several categories, in 10^6 bytes.
        false_reject: share of good parts that thresholds are expected to reject.
        exemplars: put what ``hvq-edge explain`` shows into the bundle: product images.
        on_progress: called within every stage.

    Raises:
        GateFailed: the graph breaks a rule (:mod:`hvq_edge.export.lint.check`).
        RunError, CheckpointError: the run cannot be used.
        SettingsError: no such way to choose ranges, both a plan and a budget, or a rate that is not
            between 0 and 1.
        InputError: an unknown category, no images for INT8, or a plan that does not fit.
        DatasetError, ImageError: recorded images are missing or changed.
        OutputError: ``out`` is some other folder, or cannot be written.
    """
    options = PrecisionOptions(int8, fp16, _known_method(ranges), plan, budget)
    _check_plan(options)
    model, record = load_run(run)
    mode, index = _category_mode(category, record)
    if out.exists() and not (out / MANIFEST_NAME).is_file() and any(out.iterdir()):
        raise OutputError(
            f"{out} exists and is not a bundle; it is left as it is.",
            next_step="name a new folder with --out",
        )
    check_asked(false_reject, CONFIDENCE)
    served = [image for image in record.images if _serves(image, mode, category)]
    held_out = [image for image in served if image.use == "held_out"]
    learnt_from = _spread_out([image for image in served if image.use == "fit"], MOST_LEARNT)
    data = Path(record.data) if record.data else None
    if data is not None:
        check_unchanged([*held_out, *learnt_from], data)
    categories = record.categories if index is None else (record.categories[index],)
    images: list[CalibrationImage] = []
    if int8 and calibration is not None:
        digests = {image.sha256 for image in held_out}
        images = own_calibration(calibration, categories, digests)
    elif int8 or (fp16 and data is not None):
        if data is None:
            raise InputError(
                "INT8 ranges need good images, and this run has none on record.",
                next_step="give a folder of good images with --calib DIR",
            )
        images = training_set(run, model, record, data, categories, on_progress)
    with atomic_folder(out) as folder:
        on_progress("graph", 0, 2)
        source = folder / FILE_NAMES["fp32"]
        export_graph(model, source, mode, index, max_table_mb=max_table_mb)
        on_progress("graph", 1, 2)
        graph = compare_with_plain(model, source, mode, index)
        on_progress("graph", 2, 2)
        written = WrittenFiles()
        if int8 or fp16:
            material = Material(
                run=run,
                source=source,
                size=model.tiling.frame_shape,
                mode=mode,
                categories=categories,
                images=images,
                rule=TRAINING_SET_RULE if calibration is None else OWN_SET_RULE,
                held_out=[(Path(str(data)) / p.path, p.category) for p in held_out],
            )
            written = write_precision_files(material, options, on_progress)
        shown_codes = _write_exemplars(run, folder, categories, on_progress) if exemplars else ()
        models: dict[Precision, str] = {"fp32": FILE_NAMES["fp32"], **written.models}
        for name in models.values():
            check_graph_file(folder / name)
        manifest = BundleManifest(
            hvq_edge_version=version("hvq-edge"),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            checkpoint_sha256=str(record.checkpoint_sha256),
            preset=record.settings.preset,
            input_side=model.tiling.side,
            tiles=record.settings.model.tiles,
            tile_overlap=model.tiling.overlap,
            levels=record.settings.model.levels,
            codes=record.settings.model.codes,
            categories=categories,
            category_mode=mode,
            models=models,
            files={
                name: record_of(folder / name)
                for name in (*models.values(), *written.other_files, *shown_codes)
            },
            graph=graph,
            image_limits=record.image_limits,
            category_limits={
                name: limits
                for name, limits in record.category_limits.items()
                if name in categories
            },
            calibration=written.calibration,
            fp16=written.fp16,
            training=_training_record(record, served, data),
        )
        shown = [(data / one.path, one.category) for one in held_out or learnt_from] if data else []
        shown = shown or [(one.path, one.category) for one in images if one.category]
        answers = learn_known_answers(Bundle(folder, manifest), run, shown, on_progress)
        if answers is not None:
            write_known_answers(folder / ANSWERS_NAME, answers)
            files = {**manifest.files, ANSWERS_NAME: record_of(folder / ANSWERS_NAME)}
            manifest = manifest.model_copy(update={"files": files})
        if held_out and data is not None:
            manifest = _with_thresholds(
                Bundle(folder, manifest),
                held_out,
                learnt_from,
                data,
                false_reject,
                record.held_out_from,
                on_progress,
            )
        if calibration is not None:
            manifest = _with_notes(Bundle(folder, manifest), images)
        files = {**manifest.files, CARD_NAME: write_card(Bundle(folder, manifest))}
        manifest = manifest.model_copy(update={"files": files})
        write_manifest(folder, manifest)
    return Bundle(out, manifest)


def _write_exemplars(
    run: Path, folder: Path, categories: Sequence[str], on_progress: ProgressCallback
) -> tuple[str, ...]:
    """Write what the codes of each category stand for; return the files' names."""
    insight = RunInsight(run, on_progress=on_progress)
    names = tuple(exemplars_name(index) for index in range(len(categories)))
    for name, category in zip(names, categories, strict=True):
        write_exemplars(folder / name, insight.exemplars(category))
    return names


def _training_record(
    record: RunRecord, served: Sequence[ImageRecord], data: Path | None
) -> TrainingRecord:
    def sets(use: ImageUse) -> dict[str, ImageSet]:
        own: dict[str, list[str]] = {}
        for image in served:
            if image.use == use:
                own.setdefault(image.category, []).append(image.sha256)
        return {
            name: ImageSet(images=len(digests), sha256=digest_of_set(digests))
            for name, digests in own.items()
        }

    settings = record.settings.model_dump(mode="json")
    return TrainingRecord(
        created=record.created,
        hvq_edge_version=record.hvq_edge_version,
        epochs=record.epochs_done,
        settings={name: settings[name] for name in ("model", "training")},
        weights=record.backbone_weights,
        weights_licence=licence_of_weights(record.backbone_weights),
        data_licence=licence_of_data(data) if data else "",
        learnt_from=sets("fit"),
        held_out=sets("held_out"),
        known_defects={
            name: _known_defects(record, name)
            for name in sorted({image.category for image in served})
            if any(one.category == name for one in record.known_defects)
        },
        changes=record.changes,
    )


def _known_defects(record: RunRecord, category: str) -> KnownDefects:
    own = [one for one in record.known_defects if one.category == category]
    used = record.known_defects_used.get(category)
    return KnownDefects(
        images=len(own),
        sha256=digest_of_set([one.sha256 for one in own]),
        weighted=used is not None and used.share > 0,
        scores=tuple(one.score for one in own if one.score is not None),
    )


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


def _serves(image: ImageRecord, mode: CategoryMode, category: str) -> bool:
    return mode != "one" or image.category == category


def _check_plan(options: PrecisionOptions) -> None:
    """Refuse what is wrong with a plan before minutes of work."""
    if options.plan is not None and options.budget is not None:
        raise SettingsError(
            "an INT8 plan to keep to and a budget to search under were both given.",
            next_step="leave out --plan, or --max-drop and --min-code-agreement",
        )
    if (options.plan is not None or options.budget is not None) and not options.int8:
        raise SettingsError(
            "a plan or a budget is about INT8, which was not asked for.",
            next_step="add --int8",
        )
    if options.plan is not None:
        read_plan(options.plan)


def _known_method(name: str) -> RangeMethod:
    for method in METHODS:
        if name == method:
            return method
    raise SettingsError(
        f"INT8 ranges {name!r} are none of {', '.join(METHODS)}.",
        next_step="use one of these names with --ranges",
    )


def _with_thresholds(
    bundle: Bundle,
    held_out: Sequence[ImageRecord],
    learnt_from: Sequence[ImageRecord],
    data: Path,
    false_reject: float,
    held_out_from: Mapping[str, str],
    on_progress: ProgressCallback,
) -> BundleManifest:
    thresholds = {}
    unchecked = answers_file(bundle) is None  # which was said
    for precision in bundle.manifest.models:
        # No GPU here: of the CPU engines ONNX Runtime keeps nearest to a float16 file's casts.
        backend = "onnxruntime" if "fp16" in precision else "auto"
        with open_engine(
            bundle, precision=precision, backend=backend, unchecked=unchecked
        ) as engine:
            unseen, learnt = (
                gather_images(
                    engine,
                    bundle.checks,
                    data,
                    [Path(image.path) for image in images],
                    [image.category for image in images],
                    on_progress,
                    stage,
                )
                for images, stage in ((held_out, ""), (learnt_from, f"learnt from {precision}"))
            )
            thresholds[precision] = unseen.thresholds(
                asked=false_reject,
                learnt=learnt,
                source=HELD_OUT,
                other_sources=held_out_from,
            )
    digests = tuple(image.sha256 for image in held_out)
    update = {"thresholds": thresholds, "threshold_images": digests}
    return bundle.manifest.model_copy(update=update)


def _spread_out(images: Sequence[ImageRecord], most: int) -> list[ImageRecord]:
    """Return at most so many images of each category, evenly spread."""
    own: dict[str, list[ImageRecord]] = {}
    for image in images:
        own.setdefault(image.category, []).append(image)
    return [one for several in own.values() for one in several[:: -(-len(several) // most)]]


def _with_notes(bundle: Bundle, images: Sequence[CalibrationImage]) -> BundleManifest:
    """Name images of the user's own set that do not look good to the float32 graph."""
    manifest = bundle.manifest
    unchecked = answers_file(bundle) is None
    with open_engine(bundle, precision="fp32", unchecked=unchecked) as engine:
        found = suspicious_images(engine, bundle, images)
    notes = tuple(
        f"calibration image {as_text(one.path.name)} {one.reason}: if that part is not good, take "
        "it out and export again"
        for one in found
    )
    return manifest.model_copy(update={"notes": (*manifest.notes, *notes)})
