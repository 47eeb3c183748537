"""``hvq-edge doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, results
from hvq_edge.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.doctor.finding import CheckResult

_STYLES = {"ok": "green", "note": "yellow", "missing": "bold red"}


def doctor(
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            help="Look at this bundle, or a run's, and its engines too.",
            show_default=False,
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="NAME",
            help="End with exit code 3 unless this line of the table is ok. May be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what this machine can do, and how to get the rest.

    Ends with 0 whatever it finds of what is there, and with 3 where something that --require names
    is not ok.
    """
    from hvq_edge.doctor.examination import checks_for, insist, without_gpu
    from hvq_edge.doctor.finding import examine
    from hvq_edge.errors import InputError

    if bundle is not None and not bundle.exists():
        raise InputError(
            f"no bundle at {bundle}: there is no such folder.",
            next_step="run hvq-edge export, or name another bundle folder",
        )

    with messages.status("Looking ..."):
        findings = examine(checks_for(bundle))
    if as_json:
        print_json({"findings": [finding.to_json() for finding in findings]})
    else:
        results.print(findings_table(without_gpu(findings)))
    insist(require or [], findings)


def findings_table(findings: Sequence[CheckResult]) -> Table:
    """Show findings, a row each with the remedy below."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        said = Text(one.found)
        if one.remedy:
            said.append(f"\n-> {one.remedy}", "dim" if one.state != "missing" else "bold")
        table.add_row(Text(one.name), Text(one.state, _STYLES[one.state]), said)
    return table
