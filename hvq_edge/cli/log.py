"""``hvq-edge log``: prove, read and export the decision log of an inspector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hvq_edge.cli.console import messages, one_line, print_json, results
from hvq_edge.cli.options import JsonOption, LogArgument
from hvq_edge.cli.shift_report import shift_report
from hvq_edge.common.wording import counted, spreadsheet_name, without_nul

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.stream.log.chain import LogRow
    from hvq_edge.stream.log.verification import LogVerification

group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

MOST_SAID = 300
"""Characters of what an event says."""
CSV_COLUMNS = (
    "id",
    "time",
    "kind",
    "session",
    "camera",
    "frame",
    "image",
    "part",
    "category",
    "score",
    "verdict",
    "reason",
    "latency_ms",
    "regions",
    "more",
    "hash",
)
PartOption = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="NUMBER",
        help="Only decisions on the part with this serial number.",
        show_default=False,
    ),
]


@group.callback()
def _log() -> None:
    """Verify, show and export the log of decisions."""


@group.command("verify")
def verify(
    file: LogArgument,
    head: Annotated[
        Path | None,
        typer.Option(
            "--head",
            help="The head written aside, from the place where it is kept. Default: beside FILE.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that no row of a log was changed, removed or added.

    A row that was moved is found as well. What was changed ends it with exit code 1.

    Follows the log over all its files. May run while an inspector writes.
    """
    from hvq_edge.errors import GateFailed
    from hvq_edge.stream.log.verification import verify_log

    found = verify_log(file, head)
    if as_json:
        from dataclasses import asdict

        print_json({"whole": found.whole, **asdict(found)})
    else:
        results.print(_summary(found), markup=False, soft_wrap=True)
    if not found.whole:
        rows = [fault.row for fault in found.faults if fault.row is not None]
        first = f", the first at row {min(rows)}" if rows else ""
        steps = dict.fromkeys(fault.next_step for fault in found.faults)
        raise GateFailed(
            f"the log is not as it was written: {counted(len(found.faults), 'fault')}{first}.",
            next_step="; ".join(("keep all files as they are", *steps)),
        )


@group.command("show")
def show(
    file: LogArgument,
    last: Annotated[
        int | None,
        typer.Option(
            "--last",
            min=1,
            help="So many rows. Default: 20; with --part all.",
            show_default=False,
        ),
    ] = None,
    verdict: Annotated[
        list[str] | None,
        typer.Option(
            "--verdict",
            help="Only decisions with this verdict: pass, reject or no_decision. May be repeated.",
            show_default=False,
        ),
    ] = None,
    part: PartOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the last rows of a log; of a part also its recorded images."""
    from hvq_edge.stream.log.chain import fields_of, names_of
    from hvq_edge.stream.log.files import base_of
    from hvq_edge.stream.log.reader import damage_said, last_rows
    from hvq_edge.stream.sinks.files.reject_images import recorded_files

    count = 20 if last is None and part is None else last
    rows = last_rows(file, count, _verdicts(verdict), _part(part))
    with damage_said(file):
        recorded: list[list[Path]] = []
        if part is not None:
            decisions = [{**row._asdict(), **names_of(row)} for row in rows]
            recorded = recorded_files(base_of(file).parent / "rejects", decisions)
        if as_json:
            for number, row in enumerate(rows):
                found = {"recorded": [str(path) for path in recorded[number]]} if recorded else {}
                print_json({"id": row.id, **fields_of(row), **found, "hash": row.hash})
        elif rows:
            results.print(_table(rows))
            for path in (path for several in recorded for path in several):
                results.print(str(path), markup=False, soft_wrap=True)
        else:
            messages.print("The log has no such row.")


@group.command("export")
def export(
    file: LogArgument,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            help="The file to write. Default: CSV on standard output.",
            show_default=False,
        ),
    ] = None,
    part: PartOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all rows of a log as CSV or JSON lines.

    JSON lines go to standard output, with --json.
    """
    from hvq_edge.stream.log.chain import fields_of
    from hvq_edge.stream.log.reader import all_rows, damage_said

    rows = all_rows(file, _part(part))
    if as_json:
        with damage_said(file):
            for row in rows:
                print_json({"id": row.id, **fields_of(row), "hash": row.hash})
        return
    if csv is None:
        for line in _csv_lines(file, rows):
            results.file.write(line)
        return
    from hvq_edge.common.atomic import atomic_file

    with atomic_file(csv) as temporary, temporary.open("w", encoding="utf-8") as out:
        count = -1  # the header
        for line in _csv_lines(file, rows):
            out.write(line)
            count += 1
    messages.print(f"{counted(count, 'row')} in {csv}", markup=False, soft_wrap=True)


group.command("report")(shift_report)


def _verdicts(given: Sequence[str] | None) -> list[str] | None:
    from hvq_edge.errors import InputError

    known = ("pass", "reject", "no_decision")
    for verdict in given or ():
        if verdict not in known:
            raise InputError(
                f"--verdict {verdict} is none of {', '.join(known)}.", next_step="name one of these"
            )
    return list(given) if given else None


def _part(given: str | None) -> str | None:
    from hvq_edge.errors import InputError
    from hvq_edge.stream.sources.source import MOST_CHARACTERS, part_number

    if given is None:
        return None
    number = part_number(given)
    if not number:
        raise InputError(
            f"--part: a serial number has 1 to {MOST_CHARACTERS} characters.",
            next_step="name one that hvq-edge log show prints",
        )
    return number


def _summary(found: LogVerification) -> str:
    lines = [f"{fault.file}: {fault.what}." for fault in found.faults]
    lines.append(
        f"{counted(found.rows, 'row')} in {counted(len(found.files), 'file')}: "
        f"{counted(found.decisions, 'decision')} in {counted(found.sessions, 'session')}, "
        f"{found.lost_sessions} of them ended by a kill or a power cut."
    )
    if found.whole:
        lines.append(
            f"Whole: rows {found.first_id} to {found.last_id}, last hash {found.last_hash}."
        )
    lines += [f"Note: {note}." for note in found.notes]
    return "\n".join(lines)


def _table(rows: Sequence[LogRow]) -> Table:
    """Show rows; what an event says is cut where it is long: --json has it whole."""
    from rich.table import Table
    from rich.text import Text

    from hvq_edge.stream.log.chain import NAMES, SESSION_START, names_of

    times = [_moment(row.time) for row in rows]
    days = {time.partition(" ")[0] for time in times}
    of_one_day = len(days) == 1
    clock = f"{days.pop()} UTC" if of_one_day else "time (UTC)"
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    named = [names_of(row) for row in rows]
    names = [name for name in NAMES if any(one[name] for one in named)]
    for name in ("row", clock, "camera", "frame", *names, "what", "score", "why"):
        number = name in ("row", "frame", "score")
        table.add_column(
            name,
            justify="right" if number else "left",
            no_wrap=number or name in (clock, "what"),
            overflow="fold",
        )
    for row, time, of_row in zip(rows, times, named, strict=True):
        decision, start = row.verdict is not None, row.kind == SESSION_START
        said = (row.reason or "") if decision else _said(row.more)
        table.add_row(
            str(row.id),
            time.partition(" ")[2] if of_one_day else time.partition(".")[0],
            Text(row.camera or ""),
            "" if row.frame is None else str(row.frame),
            *(Text(one_line(of_row[name] or "")) for name in names),
            Text((row.verdict if decision else row.kind) or ""),
            "" if row.score is None else f"{row.score:.4g}",
            Text(one_line(said), overflow="ellipsis" if start else "fold", no_wrap=start),
        )
    return table


def _said(more: str) -> str:
    """Return what an event says in words; what is no JSON object, as it stands."""
    import json

    with suppress(ValueError, TypeError, RecursionError):
        details = json.loads(more)
        if isinstance(details, dict):
            more = ", ".join(f"{name}: {_value(value)}" for name, value in details.items())
    return more if len(more) <= MOST_SAID else f"{more[: MOST_SAID - 1]}…"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(_value, value))
    return "none" if value is None else str(value)


def _csv_lines(file: Path, rows: Iterable[LogRow]) -> Iterable[str]:
    import csv
    import io
    from itertools import chain, islice

    from hvq_edge.stream.log.chain import names_of
    from hvq_edge.stream.log.reader import damage_said

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")

    def line(values: Iterable[Any]) -> str:
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(without_nul(value) if isinstance(value, str) else value for value in values)
        return buffer.getvalue()

    rows = iter(rows)
    with damage_said(file):  # reading alone: what fails where a line is written is no damage
        first = list(islice(rows, 1))  # opens the log: where there is none, nothing is written
        yield line(CSV_COLUMNS)
        for row in chain(first, rows):
            names = {
                name: value and spreadsheet_name(value)  # the column "more" has it as it is
                for name, value in names_of(row).items()
            }
            fields = {**row._asdict(), **names, "time": _moment(row.time)}
            yield line(fields[name] for name in CSV_COLUMNS)


def _moment(seconds: float) -> str:
    from datetime import timezone

    from hvq_edge.stream.log.chain import moment_of

    moment = moment_of(seconds, timezone.utc)
    return moment.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
