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

SLOWEST_STEP_S = 3600.0
"""Steps that take longer, as the epochs of a training may, get no estimate of the time left."""


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
        TimeRemainingColumn,
    )
    from rich.table import Column

    tasks: dict[str, TaskID] = {}
    said_at = time.monotonic()
    # Of a narrow line the note is cut, never the count and the time that is left.
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=8),
        MofNCompleteColumn(),
        TextColumn("{task.fields[clock]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", table_column=rest),
        console=messages,
        disable=not messages.is_terminal,
        expand=True,
        speed_estimate_period=SLOWEST_STEP_S,
    ) as bars:

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            nonlocal said_at
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note="", clock="")
            clock = "took" if done == total else "ETA"
            bars.update(tasks[stage], completed=done, total=total, note=note, clock=clock)
            due = done == total or time.monotonic() - said_at > LINE_EVERY_S
            if due and not messages.is_terminal:
                said_at = time.monotonic()
                messages.print(f"{stage}: {done}/{total} {note}".rstrip())

        yield report
