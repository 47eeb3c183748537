"""The public way to export: all that ``hvq-edge export`` does, from Python."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from hvq_edge.bundle.opened import Bundle
from hvq_edge.calibration.int8 import DEFAULT_METHOD
from hvq_edge.calibration.search.plan import Budget
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.records import faults_of
from hvq_edge.errors import SettingsError
from hvq_edge.export.export_run import export_run
from hvq_edge.export.fold.code_tables import MAX_TABLE_MB
from hvq_edge.export.triton_repository import known_triton_backend, write_triton_repository
from hvq_edge.run.latest import DEFAULT_RUN
from hvq_edge.run.record import BUNDLE_FOLDER
from hvq_edge.verdict.defaults import FALSE_REJECT


def export_bundle(
    run: Path | str = DEFAULT_RUN,
    out: Path | str | None = None,
    *,
    int8: bool = False,
    fp16: bool = False,
    category: str = "auto",
    calibration: Path | str | None = None,
    ranges: str = DEFAULT_METHOD,
    plan: Path | str | None = None,
    max_drop: float | None = None,
    min_code_agreement: float | None = None,
    false_reject: float = FALSE_REJECT,
    max_table_mb: float = MAX_TABLE_MB,
    triton: Path | str | None = None,
    triton_backend: str = "native",
    exemplars: bool = False,
    on_progress: ProgressCallback = silent,
) -> Bundle:
    """Write a finished run as a bundle: ONNX graphs, thresholds, hashes (public API).

    An earlier bundle at ``out`` is replaced when the new one is complete.

    Args:
        run: folder of a finished run.
        out: the bundle's folder; default: ``bundle`` in the run's.
        int8: write ``model.int8.onnx`` beside ``model.fp32.onnx``.
        fp16: write ``model.fp16.onnx``; with ``int8`` also ``model.int8-fp16.onnx``.
        category: ``auto``: the graph chooses it; ``input``: the caller gives it; or the name of
            one category, whose codebooks are folded in.
        calibration: folder of good images for the INT8 ranges; default: training images.
        ranges: ``minmax``, ``percentile``, ``entropy`` or ``mse``.
        plan: keep the layers in float that this ``int8-plan.toml`` of a bundle names.
        max_drop: search for the fewest layers in float that cost at most so many points of image
            AUROC; default in a search: 0.1.
        min_code_agreement: search as well: at least this share of equal codes; default in a search:
            0.99.
        false_reject: share of good parts that thresholds are expected to reject.
        max_table_mb: what tables may take in a graph of several categories, in 10^6 bytes.
        triton: write the graphs as models of a Triton server's repository in this folder too.
        triton_backend: what the server runs them with: see :func:`write_triton_repository`.
        exemplars: put cells of good training images into the bundle, so that ``hvq-edge explain``
            works on a device. They are product images, for whoever gets the bundle to see.
        on_progress: called within every stage.

    Raises:
        GateFailed: the graph breaks a rule of ``export/lint``.
        RunError, CheckpointError: the run cannot be used.
        SettingsError: an option that means nothing, or two that do not go together.
        InputError: an unknown category, no images for INT8, or a plan that does not fit.
        DatasetError, ImageError: recorded images are missing or changed.
        OutputError: ``out`` is some other folder, or cannot be written.
    """
    backend = known_triton_backend(triton_backend)  # before minutes of work
    if triton is None and backend != "native":
        raise SettingsError(
            "a Triton backend was named, and no repository.", next_step="give triton the folder too"
        )
    bundle = export_run(
        Path(run),
        Path(out) if out is not None else Path(run) / BUNDLE_FOLDER,
        int8=int8,
        fp16=fp16,
        category=category,
        calibration=Path(calibration) if calibration is not None else None,
        ranges=ranges,
        plan=Path(plan) if plan is not None else None,
        budget=_budget(max_drop=max_drop, min_code_agreement=min_code_agreement),
        max_table_mb=max_table_mb,
        false_reject=false_reject,
        exemplars=exemplars,
        on_progress=on_progress,
    )
    if triton is not None:
        write_triton_repository(bundle, Path(triton), backend=backend)
    return bundle


def _budget(**limits: float | None) -> Budget | None:
    """Return what a search has to keep to; ``None``: nothing is to be searched."""
    given = {name: value for name, value in limits.items() if value is not None}
    try:
        return Budget.model_validate(given) if given else None
    except ValidationError as error:
        raise SettingsError(
            f"{'; '.join(faults_of(error, Budget))}.", next_step="give numbers in these ranges"
        ) from error
