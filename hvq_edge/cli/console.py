"""What the command line shows: results on standard output, all else on standard error."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console

from hvq_edge.common.progress import ProgressCallback
from hvq_edge.errors import OutputError

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    from hvq_edge.bundle.precision import Precision

_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters but tab and line feed, marks that change the direction of text, and halves of
characters: the name of a file or a category could move the cursor with them, hide a part of itself
or of what stands beside it, or be no text that can be written at all."""


class SafeConsole(Console):
    """Shows such characters as Python writes them: an escape as a backslash and ``x1b``.

    Only what Rich itself sends, colours and the movements of a live line, reaches the terminal.
    """

    def render_str(self, text: str, **given: Any) -> Text:  # noqa: ANN401  # Rich's
        """Make a text of a string: replaced here, a table gives it the room that it takes."""
        return super().render_str(shown(text), **given)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render, then replace what is no text to be shown."""
        for segment in super().render(renderable, options):
            if segment.control is None and _UNSHOWN.search(segment.text):
                yield segment._replace(text=shown(segment.text))
            else:
                yield segment


def shown(text: str) -> str:
    """Return a text with its control characters written as escapes."""
    return _UNSHOWN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return a text that stays on its line: line feeds and tabs are escapes as well."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


LEAST_COLUMNS = 80
"""What tables need."""


def _console(stream: TextIO | None, elsewhere: int | None, *, stderr: bool) -> SafeConsole:
    """Return a console as wide as its terminal; Rich would take a dumb one for 80 columns."""
    width, height = elsewhere, None
    if stream and stream.isatty():
        width = None
        if not stderr and shutil.get_terminal_size().columns < LEAST_COLUMNS:
            width = LEAST_COLUMNS  # the terminal wraps lines, where Rich would drop columns
        if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
            width, height = shutil.get_terminal_size()
    return SafeConsole(highlight=False, width=width, height=height, stderr=stderr)


messages = _console(sys.stderr, None, stderr=True)
# A file or a pipe is no narrow screen: tables keep their columns there.
results = _console(sys.stdout, 100, stderr=False)
LINE_EVERY_S = 30.0
"""Where no bar is drawn, a stage that takes long is heard of this often."""

SLOWEST_STEP_S = 3600.0
"""Steps that take longer, as the epochs of a training may, get no estimate of the time left."""


class NotPrinted(OutputError):
    """Standard output has no room or is broken; said once, and nothing more goes there."""


class _Results(io.FileIO):
    """Standard output: what fails is a sentence of ours, and nothing fails a second time.

    A reader or a terminal that has gone is left to whoever prints.
    """

    _lost = False

    def write(self, data: Any, /) -> int:  # noqa: ANN401  # any buffer
        if self._lost:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            is_device = stat.S_ISCHR(os.fstat(self.fileno()).st_mode)
            if error.errno == errno.EPIPE or (error.errno == errno.EIO and is_device):
                raise
            from hvq_edge.common.atomic import output_error

            self._lost = True
            said = output_error(Path("standard output"), error)
            raise NotPrinted(said.cause, next_step=said.next_step) from error


class _Messages(io.FileIO):
    """Standard error: what cannot be said there changes nothing of what a command does."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401  # any buffer
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def guard_output() -> None:
    """Let this process outlive a standard output or standard error that cannot be written.

    A character that the terminal's encoding lacks, as a line of a table in Latin-1, is an escape.
    """
    sys.stdout = _guarded(sys.stdout, _Results)
    sys.stderr = _guarded(sys.stderr, _Messages)


def _guarded(stream: TextIO, kind: type[io.FileIO]) -> TextIO:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(kind(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,
        line_buffering=stream.isatty() or kind is _Messages,
    )


def print_line(line: str) -> None:
    """Print a line of results as it is, however long."""
    results.print(line, markup=False, highlight=False, soft_wrap=True)


def folded(by_precision: Mapping[Precision, str], of: int = 0) -> str:
    """Say what holds at each precision: once where it is the same at all of them.

    Args:
        by_precision: what is said.
        of: how many precisions there are; 0: all of them are given.
    """
    named: dict[str, list[str]] = {}
    for precision, said in by_precision.items():
        named.setdefault(said, []).append(precision)
    if len(named) <= 1 and len(by_precision) >= of:
        return "".join(named)
    return ", ".join(f"{said} ({' and '.join(those)})" for said, those in named.items())


def print_json(value: Any) -> None:  # noqa: ANN401  # anything json.dumps takes
    """Print one JSON document, alone, on standard output."""
    # In another encoding a character may be missing, and JSON has escapes of its own.
    written = json.dumps(value, ensure_ascii=not results.encoding.startswith("utf"))
    # JSON leaves C1 controls and directions as they are: as escapes they say the same.
    safe = _UNSHOWN.sub(lambda match: f"\\u{ord(match[0]):04x}", written)
    results.file.write(safe + "\n")
    results.file.flush()


@contextmanager
def progress_bars() -> Iterator[ProgressCallback]:
    """Show one bar a stage on standard error; where none can be drawn, a line now and then."""
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
    ended: set[str] = set()
    said_at = time.monotonic()
    drawn = messages.is_terminal and not messages.is_dumb_terminal
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
        disable=not drawn,
        expand=True,
        speed_estimate_period=SLOWEST_STEP_S,
    ) as bars:

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            nonlocal said_at
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note="", clock="")
            elif stage in ended:  # another round of it: its clock begins again
                bars.reset(tasks[stage])
            ended.discard(stage)
            if done == total:
                ended.add(stage)
            clock = "took" if done == total else "ETA"
            bars.update(tasks[stage], completed=done, total=total, note=note, clock=clock)
            due = done == total or time.monotonic() - said_at > LINE_EVERY_S
            if due and not drawn:
                said_at = time.monotonic()
                messages.print(f"{stage}: {done}/{total} {note}".rstrip())

        yield report
