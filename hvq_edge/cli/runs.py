"""``hvq-edge runs``: the runs below a folder, with what they reached."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, results
from hvq_edge.cli.options import JsonOption
from hvq_edge.run.latest import DEFAULT_RUN

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.run.runs import BrokenRun, RunRow


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that holds runs.")
    ] = DEFAULT_RUN.parent,
    as_json: JsonOption = False,
) -> None:
    """List training runs, the newest first, with their numbers.

    These are losses, and test metrics once hvq-edge eval has run. A run that cannot be read is
    listed with its fault.
    """
    from hvq_edge.run.latest import OR_DEMO
    from hvq_edge.run.runs import as_entry, list_runs

    found = list_runs(folder)
    if as_json:
        print_json({"folder": str(folder), "runs": [as_entry(run) for run in found]})
        return
    if not found:
        messages.print(
            f"There are no runs in {folder} yet. Next: hvq-edge train --data DIR, or {OR_DEMO}",
            markup=False,
            soft_wrap=True,
        )
        return
    results.print(runs_table(found, wide=results.width >= 100))
    for run in found:
        if run.fault is not None:
            # Validation faults run over many lines; --json has them whole.
            fault = textwrap.shorten(run.fault, 240, placeholder=" …")
            results.print(f"{run.name}: {fault}", markup=False, soft_wrap=True)


def runs_table(rows: Sequence[RunRow | BrokenRun], *, wide: bool) -> Table:
    """Lay out runs as a table.

    Args:
        rows: one a run.
        wide: with date and commitment loss; else the table fits into 80 characters.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from hvq_edge.run.runs import BrokenRun

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    table.add_column("run (* latest)", overflow="fold", min_width=14, vertical="bottom")
    for heading in ("created", "model") if wide else ("model",):
        table.add_column(heading, no_wrap=True, vertical="bottom")
    losses = ("loss", "commit-\nment") if wide else ("loss",)
    for heading in ("cat.", "epochs", "time", *losses, "image\nAUROC", "pixel\nAUROC"):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for row in rows:
        name = Text(f"{row.name} *" if row.latest else row.name)  # as it is: no markup
        date = [_date(row.created)] if wide else []
        if isinstance(row, BrokenRun):
            table.add_row(name, *date, "unreadable")
        else:
            table.add_row(name, *date, *_cells(row, wide=wide))
    return table


def _cells(row: RunRow, *, wide: bool) -> list[str]:
    from hvq_edge.evaluation.table import percent

    # The first evaluation, as in the table of hvq-edge eval: the category known, where it was.
    metrics = next(iter(row.evaluations.values()), {})
    seconds = row.metrics.get("seconds_training")
    return [
        f"{row.preset} {row.backbone.removeprefix('efficientnet_')}",
        str(len(row.categories)),
        _epochs(row),
        _duration(seconds) if row.finished else "begun",
        _loss(row.metrics.get("feature_loss")),
        *([_loss(row.metrics.get("commitment"))] if wide else []),
        percent(metrics.get("image_auroc")),
        percent(metrics.get("pixel_auroc")),
    ]


def _date(created: str) -> str:
    """Show a date to the minute, in the time zone of the user."""
    from hvq_edge.run.runs import moment_of

    moment = moment_of(created)
    return created if moment.year == 1 else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _epochs(row: RunRow) -> str:
    if row.epochs_planned is None:
        return "–"
    done = "?" if row.epochs_done is None else row.epochs_done
    return f"{done}/{row.epochs_planned}"


def _duration(seconds: float | None) -> str:
    """Show a duration in at most two units: ``45 s``, ``12 min``, ``3 h 05``."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02}"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
