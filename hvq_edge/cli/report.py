"""``hvq-edge report``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.options import (
    BundleOption,
    JsonOption,
    LanguageOption,
    RunOption,
    named_or_given,
)
from hvq_edge.run.latest import DEFAULT_RUN

if TYPE_CHECKING:
    from hvq_edge.evaluation.acceptance.acceptance import Step


def report(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|BUNDLE",
            help="Folder of a bundle, or of the run that has one.",
            callback=named_or_given,
        ),
    ] = DEFAULT_RUN,
    named: BundleOption = None,  # noqa: ARG001  # it is in the target
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Page to write. Default: acceptance.html in the bundle.",
            show_default=False,
        ),
    ] = None,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete",
            help="First do what is missing: verify, evaluate each precision, bench. What is there "
            "is not done again.",
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Test images for --complete. Default: the run's.", show_default=False
        ),
    ] = None,
    run: RunOption = None,
    language: LanguageOption = None,  # noqa: ARG001  # its callback keeps it
    as_json: JsonOption = False,
) -> None:
    """Write a bundle's acceptance report, for somebody to sign.

    It is one page to read and print. It gathers what eval, verify, calibrate and bench have
    measured, and says what is missing.
    """
    from hvq_edge.errors import SettingsError
    from hvq_edge.evaluation.acceptance.complete import Completion
    from hvq_edge.evaluation.acceptance.complete import complete as do_what_is_missing
    from hvq_edge.evaluation.acceptance.page import write_acceptance

    if not complete and (data is not None or run is not None):
        raise SettingsError(
            "--data and --run are for --complete: a report alone measures nothing.",
            next_step="add --complete, or leave them out",
        )
    completed = Completion((), ())
    with progress_bars() as on_progress:
        if complete:
            completed = do_what_is_missing(target, data, run, _say_step, on_progress)
        found, page = write_acceptance(target, out, on_progress)
    if as_json:
        print_json(
            {
                "report": str(page),
                "open_points": [
                    {"what": one.what, "remedy": one.remedy} for one in found.open_points
                ],
                "done": [str(one) for one in completed.done],
                "not_done": [asdict(one) for one in completed.not_done],
            }
        )
        return
    for step in completed.done:
        results.print(f"Done: {step}")
    for one in completed.not_done:
        _say(f"Not done here: {one.what}: {one.why}", one.remedy)
    for point in found.open_points:
        _say(f"Open: {point.what}", point.remedy)
    results.print(f"Report: {page}", markup=False, soft_wrap=True)


def _say_step(step: Step) -> None:
    messages.print(f"Missing, so it is measured now: {step}", markup=False)


def _say(what: str, remedy: str) -> None:
    results.print(what, markup=False, soft_wrap=True)
    if remedy:
        results.print(f"      {remedy}", markup=False, soft_wrap=True)
