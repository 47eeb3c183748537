"""``hvq-edge eval``: metrics of a run or a bundle on test images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.options import BackendOption, JsonOption, PrecisionOption
from hvq_edge.run.latest import DEFAULT_RUN


def evaluate(
    target: Annotated[
        Path,
        typer.Argument(metavar="RUN|BUNDLE", help="Folder of a training run or of a bundle."),
    ] = DEFAULT_RUN,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of images: MVTec layout (train/good, test/...), VisA with its split "
            "file, or good/ beside others. Default: the run's; for a bundle, its parent's.",
            show_default=False,
        ),
    ] = None,
    precision: PrecisionOption = "auto",
    backend: BackendOption = "auto",
    minimum: Annotated[
        list[str] | None,
        typer.Option(
            "--min",
            metavar="[METRIC=]SHARE",
            help="Exit with 1 if a mean is below this: 0.95 (of the image AUROC), or "
            "pixel_aupro=0.9 for any metric of metrics.json. May be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for metrics.json and report.html. Default: the run's folder, or "
            "eval-PRECISION in the bundle's.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how well a run or a bundle tells defects from good."""
    from hvq_edge.evaluation.acceptance.gates import hold_gates, parse_gates
    from hvq_edge.evaluation.evaluate_target import evaluate_target
    from hvq_edge.evaluation.table import metrics_tables

    gates = parse_gates(minimum or ())
    with progress_bars() as on_progress:
        found = evaluate_target(
            target, data, precision=precision, backend=backend, out=out, on_progress=on_progress
        )
    for note in found.notes:
        messages.print(f"Note: {note}", markup=False, soft_wrap=True)
    for fault in {
        fault.path: fault for one in found.evaluations for fault in one.unreadable
    }.values():
        messages.print(f"Left out: {fault.cause}", markup=False, soft_wrap=True)
    if as_json:
        print_json(found.content.model_dump(mode="json"))
    else:
        info = found.info
        results.print(
            f"{target}: {found.reason}; {info.backend} on {info.device}",
            markup=False,
            soft_wrap=True,
        )
        for evaluation in found.evaluations:
            for table in metrics_tables(evaluation, results.width):
                results.print()
                results.print(table)
        results.print(f"\nReport:  {found.report}", markup=False, soft_wrap=True)
        results.print(f"Metrics: {found.metrics}", markup=False, soft_wrap=True)
    hold_gates(found.evaluations, gates, next_step=f"look at the worst images in {found.report}")
