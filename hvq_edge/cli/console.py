"""What the command line shows: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from hvq_edge.common.progress import ProgressCallback

messages = Console(stderr=True, highlight=False)
# A file or a pipe is no narrow screen: tables keep their columns there.
results = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
LINE_EVERY_S = 30.0
"""Without a terminal, a stage that takes long is heard of this often."""


def print_json(value: Any) -> None:  # noqa: ANN401  # anything json.dumps takes
    """Print one JSON document, alone, on standard output."""
    results.file.write(json.dumps(value, ensure_ascii=False) + "\n")
    results.file.flush()


@contextmanager
def progress_bars() -> Iterator[ProgressCallback]:
    """Show one bar a stage on standard error; without a terminal, a line now and then."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    tasks: dict[str, TaskID] = {}
    said_at = time.monotonic()
    with Progress(
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=messages,
        disable=not messages.is_terminal,
    ) as bars:

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            nonlocal said_at
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note=note)
            bars.update(tasks[stage], completed=done, total=total, note=note)
            due = done == total or time.monotonic() - said_at > LINE_EVERY_S
            if due and not messages.is_terminal:
                said_at = time.monotonic()
                messages.print(f"{stage}: {done}/{total} {note}".rstrip())

        yield report
