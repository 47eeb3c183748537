"""``hvq-edge eval``: metrics of a run or a bundle on test images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.options import (
    BackendOption,
    BundleOption,
    JsonOption,
    LanguageOption,
    ProviderOption,
    named_or_given,
)
from hvq_edge.run.latest import DEFAULT_RUN

if TYPE_CHECKING:
    from hvq_edge.evaluation.evaluate_target import TargetEvaluation


def evaluate(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|BUNDLE",
            help="Folder of a training run or of a bundle.",
            callback=named_or_given,
        ),
    ] = DEFAULT_RUN,
    named: BundleOption = None,  # noqa: ARG001  # it is in the target
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of images: MVTec layout (train/good, test/...), VisA with its split "
            "file, or good/ beside others. Default: the run's; for a bundle, its parent's.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="auto, fp32, int8, for GPUs fp16 or int8-fp16, or all: each that the bundle has.",
        ),
    ] = "auto",
    backend: BackendOption = "auto",
    provider: ProviderOption = None,  # noqa: ARG001  # it is in the backend
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
            help="Folder for metrics.json and report.html, of --precision all for one each. "
            "Default: the run's folder, or eval-PRECISION in the bundle's.",
            show_default=False,
        ),
    ] = None,
    language: LanguageOption = None,  # noqa: ARG001  # its callback keeps it
    as_json: JsonOption = False,
) -> None:
    """Measure how well a run or bundle tells defects from good.

    With --precision all, each precision of a bundle, and the table shows them beside each other.
    """
    from hvq_edge.evaluation.acceptance.gates import hold_gates, parse_gates
    from hvq_edge.evaluation.evaluate_target import evaluate_precisions, evaluate_target
    from hvq_edge.evaluation.table import comparison_table, metrics_tables

    gates = parse_gates(minimum or ())
    every = precision == "all"
    found: dict[str, TargetEvaluation]
    with progress_bars() as bars:
        if every:
            found = evaluate_precisions(target, data, backend=backend, out=out, on_progress=bars)
        else:
            one = evaluate_target(
                target, data, precision=precision, backend=backend, out=out, on_progress=bars
            )
            found = {one.info.precision: one}
    notes = (line for one in found.values() for line in _notes(one))
    for line in dict.fromkeys(notes):  # of several precisions, what holds for all is said once
        messages.print(line, markup=False, soft_wrap=True)
    if as_json:
        contents = {name: one.content.model_dump(mode="json") for name, one in found.items()}
        print_json(contents if every else next(iter(contents.values())))
    else:
        for one in found.values():
            _print(f"{target}: {one.reason}; {one.info.backend} on {one.info.device}")
        if every:
            tables = [comparison_table({name: one.evaluations[-1] for name, one in found.items()})]
        else:
            tables = [
                table for each in one.evaluations for table in metrics_tables(each, results.width)
            ]
        for table in tables:
            results.print()
            results.print(table)
        results.print()
        for one in found.values():
            _print(f"Report:  {one.report}")
            _print(f"Metrics: {one.metrics}")
    for one in found.values():
        hold_gates(one.evaluations, gates, next_step=f"look at the worst images in {one.report}")


def _notes(found: TargetEvaluation) -> Iterator[str]:
    yield from (f"Note: {note}" for note in found.notes)
    faults = {fault.path: fault for one in found.evaluations for fault in one.unreadable}
    yield from (f"Left out: {fault.cause}" for fault in faults.values())


def _print(line: str) -> None:
    results.print(line, markup=False, soft_wrap=True)
