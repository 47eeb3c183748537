"""``hvq-edge report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hvq_edge.cli.console import print_json, progress_bars, results
from hvq_edge.cli.options import JsonOption
from hvq_edge.run.latest import DEFAULT_RUN


def report(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|BUNDLE", help="Folder of a bundle, or of the run that has one."
        ),
    ] = DEFAULT_RUN,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Page to write. Default: acceptance.html in the bundle.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the acceptance report of a bundle, for somebody to sign.

    It is one page to read and print. It gathers what eval, verify, calibrate and bench have
    measured, and says what is missing.
    """
    from hvq_edge.evaluation.acceptance.page import write_acceptance

    with progress_bars() as on_progress:
        found, page = write_acceptance(target, out, on_progress)
    if as_json:
        points = [{"what": one.what, "remedy": one.remedy} for one in found.open_points]
        print_json({"report": str(page), "open_points": points})
        return
    for point in found.open_points:
        results.print(f"Open: {point.what}", markup=False, soft_wrap=True)
        if point.remedy:
            results.print(f"      {point.remedy}", markup=False, soft_wrap=True)
    results.print(f"Report: {page}", markup=False, soft_wrap=True)
