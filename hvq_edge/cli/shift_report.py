"""``hvq-edge log report``: what happened on a line between two moments, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import print_json, print_line, progress_bars
from hvq_edge.cli.options import JsonOption, LanguageOption, LogArgument
from hvq_edge.common.wording import counted

if TYPE_CHECKING:
    from hvq_edge.stream.report.groups import Describe


def shift_report(
    file: LogArgument,
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="2026-11-29 or 2026-11-29T06:00, where this machine is. Default: the day of --to.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TIME",
            help="Likewise; of a day its end. Default: now.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The page to write. Default: shift-report.html beside the log.",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Write the counts by hour, camera and category as well.",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="BUNDLE",
            help="Group rejects that look alike, as this bundle's network sees them.",
            show_default=False,
        ),
    ] = None,
    language: LanguageOption = None,  # noqa: ARG001  # its callback keeps it
    as_json: JsonOption = False,
) -> None:
    """Write the report of a shift: one page that prints.

    Decisions by hour, camera and category, reasons, alarms, changed thresholds, what people said,
    the worst rejects and, with --bundle, rejects that look alike. May run while an inspector
    writes.
    """
    from hvq_edge.common.atomic import write_text
    from hvq_edge.stream.log.files import base_of
    from hvq_edge.stream.log.reader import damage_said
    from hvq_edge.stream.report.page import csv_lines, render_shift
    from hvq_edge.stream.report.shift import gather_shift, moments, shift_values

    begin, end = moments(since, until)
    describe = None if bundle is None else _features_of(bundle)
    with damage_said(file), progress_bars() as bars:
        shift = gather_shift(file, begin, end, describe=describe, on_progress=bars)
    page = out or base_of(file).parent / "shift-report.html"
    write_text(page, render_shift(shift))
    if csv is not None:
        write_text(csv, "".join(csv_lines(shift)))
    if as_json:
        written = {"page": str(page), "csv": None if csv is None else str(csv)}
        print_json({**shift_values(shift), **written})
        return
    total = shift.total
    print_line(
        f"{counted(total.decisions, 'decision')} from {begin:%Y-%m-%d %H:%M} to "
        f"{end:%Y-%m-%d %H:%M}: {total.rejected} rejected, {total.no_decision} without a decision; "
        f"{counted(len(shift.alarms), 'alarm')}."
    )
    if shift.elsewhere:
        print_line(f"None lies in this time: {shift.elsewhere}.")
    print_line(str(page))
    if csv is not None:
        print_line(str(csv))


def _features_of(bundle: Path) -> Describe:
    """Return what says how a region looks to a bundle's network."""
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.common.extras import require

    require("onnx")
    from hvq_edge.export.learn.region_features import RegionFeatures

    return RegionFeatures(open_bundle(bundle))
