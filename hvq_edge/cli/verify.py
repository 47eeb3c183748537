"""``hvq-edge verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import print_json, progress_bars, results
from hvq_edge.cli.options import DEFAULT_RUN, JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.export.verify import Verification


def verify(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Bundle folder that hvq-edge export wrote.")
    ] = DEFAULT_RUN / "bundle",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder with test pictures. Default: the training data's."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="The run it came from. Default: BUNDLE's parent.")
    ] = None,
    pictures: Annotated[
        int, typer.Option("--pictures", min=1, help="Compare at most so many, balanced.")
    ] = 96,
    as_json: JsonOption = False,
) -> None:
    """Compare every graph with the PyTorch model on real pictures, with Polygraphy.

    Ends with exit code 1 when an output, the codes or the decisions are outside their limits.
    """
    from hvq_edge.errors import DatasetError, GateFailed
    from hvq_edge.export.verify import verify_bundle
    from hvq_edge.run_record import read_run

    run = run or bundle.parent
    if data is None:
        recorded = read_run(run).data
        if recorded is None:
            raise DatasetError(
                f"the run {run} has no pictures on record.",
                next_step="give a folder with test pictures with --data DIR",
            )
        data = Path(recorded)
    with progress_bars() as bars:
        verification = verify_bundle(bundle, run, data, most_pictures=pictures, on_progress=bars)
    if as_json:
        print_json(verification.model_dump(mode="json"))
    else:
        results.print(verify_table(verification))
    if not verification.passed:
        faults = [
            f"{precision} on {fault}"
            for precision, verdict in verification.precisions.items()
            for fault in verdict.faults
        ]
        raise GateFailed(
            "the bundle differs from the PyTorch model by more than is allowed: "
            + "; ".join(faults)
            + ".",
            next_step=f"see {bundle / 'verify.json'} for the pictures whose decision changed",
        )


def verify_table(verification: Verification) -> Table:
    """Show each comparison as a row, within 80 columns."""
    from rich.table import Table

    table = Table(
        title=f"Against PyTorch on {verification.pictures} pictures",
        title_justify="left",
        box=None,
        padding=(0, 1),
        pad_edge=False,
    )
    for heading in ("model", "engine"):
        table.add_column(heading, vertical="bottom", no_wrap=True)
    headings = (
        "map\nerror",
        "corre-\nlation",
        "score\nerror",
        "equal\ncodes",
        "equal\ncat.",
        "verdicts\nchanged",
    )
    for heading in headings:
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in verification.comparisons:
        table.add_row(
            row.precision,
            row.runner,
            f"{row.map_error:.1e}",
            f"{row.map_correlation:.5f}",
            f"{row.score_error_max:.2g}",
            f"{min(row.code_agreement):.1%}",
            f"{row.category_agreement:.1%}",
            f"{len(row.decisions_changed)}",
            "passed" if row.passed else "FAILED",
        )
    return table
