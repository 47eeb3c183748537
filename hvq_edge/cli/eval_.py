"""``hvq-edge eval``: metrics of a run or a bundle on test pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.options import (
    DEFAULT_RUN,
    BackendOption,
    DataOption,
    JsonOption,
    PrecisionOption,
)

if TYPE_CHECKING:
    from hvq_edge.evaluation.evaluate_target import TargetEvaluation


def evaluate(
    data: DataOption,
    target: Annotated[
        Path,
        typer.Argument(metavar="RUN|BUNDLE", help="Folder of a training run or of a bundle."),
    ] = DEFAULT_RUN,
    precision: PrecisionOption = "auto",
    backend: BackendOption = "auto",
    minimum: Annotated[
        float | None,
        typer.Option(
            "--min",
            min=0.0,
            max=1.0,
            help="Exit with 1 if a mean image AUROC is below this, for example 0.95.",
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
    """Measure how well a run or a bundle tells defective pictures from good ones."""
    from hvq_edge.evaluation.evaluate_target import evaluate_target
    from hvq_edge.evaluation.table import metrics_table

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
            results.print()
            results.print(metrics_table(evaluation, wide=results.width >= 100))
        results.print(f"\nReport:  {found.report}", markup=False, soft_wrap=True)
        results.print(f"Metrics: {found.metrics}", markup=False, soft_wrap=True)
    if minimum is not None:
        _hold(found, minimum)


def _hold(found: TargetEvaluation, minimum: float) -> None:
    """Compare every mean image AUROC with the limit.

    Raises:
        GateFailed: one is below it.
        DatasetError: there is none.
    """
    from hvq_edge.errors import DatasetError, GateFailed
    from hvq_edge.evaluation.table import way_in_words

    for evaluation in found.evaluations:
        mean = evaluation.mean.image_auroc
        if mean is None:
            raise DatasetError(
                f"{evaluation.data} has no category with both good and defective test pictures, so "
                "there is no image AUROC to compare with --min.",
                next_step="add the missing test pictures, or leave --min out",
            )
        if mean < minimum:
            raise GateFailed(
                f"the mean image AUROC is {mean:.4f} ({way_in_words(evaluation)}), below "
                f"{minimum:g}.",
                next_step=f"look at the worst pictures in {found.report}",
            )
