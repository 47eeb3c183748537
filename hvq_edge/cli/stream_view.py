"""What ``hvq-edge stream`` shows a person: a line a reject, a live counter, a summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from hvq_edge.stream.decisions import Decision
    from hvq_edge.stream.inspector import Inspector
    from hvq_edge.stream.sinks.recording import Recording
    from hvq_edge.stream.sources.source import Frame

_STYLES = {"reject": "bold red", "no_decision": "yellow"}


class DecisionLines:
    """A sink that prints a line for each reject, and for each run of frames without a decision.

    A camera that is out for an hour makes one line, not thousands.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._kind = ""

    def write(self, decision: Decision, frame: Frame) -> None:
        """Print the decision if it is worth a line."""
        kind = decision.reason.split(":")[0] if decision.verdict == "no_decision" else ""
        repeated = bool(kind) and kind == self._kind and not frame.name
        self._kind = kind
        if decision.verdict == "pass" or repeated:
            return
        self._console.print(decision_line(decision, frame.name), soft_wrap=True)

    def close(self) -> None:
        """Nothing is left to do."""


def decision_line(decision: Decision, name: str) -> Text:
    """Return the line for one decision; ``name`` is the frame's file, if it has one."""
    from rich.text import Text

    line = Text(f"frame {decision.frame:>6}  ")
    line.append(f"{decision.verdict.replace('_', ' '):<11}", _STYLES.get(decision.verdict, ""))
    parts = (decision.category or "", decision.reason, f"({name})" if name else "")
    line.append("  " + "  ".join(part for part in parts if part))
    return line


@contextmanager
def live_counter(inspector: Inspector, *, shown: bool) -> Iterator[Callable[[], float]]:
    """Show the counts in one line on standard error while the run lasts.

    Yields:
        A function that returns the seconds since the start.
    """
    from rich.live import Live
    from rich.text import Text

    from hvq_edge.cli.console import messages

    start = time.monotonic()

    def seconds() -> float:
        return time.monotonic() - start

    def line() -> Text:
        counts = inspector.counts
        latency = inspector.latency.percentile(50)
        return Text(
            f"{counts.decided} decided: {counts.passed} pass, {counts.rejected} reject, "
            f"{counts.no_decision} no decision, {counts.dropped} dropped, "
            f"{counts.decided / max(seconds(), 1e-9):.1f} a second"
            + (f", {latency:.1f} ms" if latency is not None else "")
        )

    if not shown:
        yield seconds
        return
    with Live(console=messages, get_renderable=line, transient=True, redirect_stdout=False):
        yield seconds


def print_summary(
    console: Console,
    inspector: Inspector,
    seconds: float,
    source: str,
    out: Path | None,
    recording: Recording | None,
) -> None:
    """Print counts, rate, latencies, and where the files are."""
    from rich.table import Table
    from rich.text import Text

    counts = inspector.counts
    table = Table(title=Text(f"Inspection of {source}"), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "frames": str(counts.frames),
        "pass": str(counts.passed),
        "reject": str(counts.rejected),
        "no decision": str(counts.no_decision),
        f"dropped (policy {inspector.policy})": str(counts.dropped),
        "decisions a second": f"{counts.decided / max(seconds, 1e-9):.1f}",
    }
    for percent in (50, 95, 99):
        latency = inspector.latency.percentile(percent)
        rows[f"latency p{percent}"] = "-" if latency is None else f"{latency:.1f} ms"
    for label, value in rows.items():
        table.add_row(label, value)
    console.print(table)
    if out is None or recording is None:
        return
    if recording.fault is not None:
        console.print(
            f"Recording ended early: {recording.fault.cause}", markup=False, soft_wrap=True
        )
    for name in ("decisions.jsonl", "rejects", "annotated.mp4"):
        if (out / name).exists():
            console.print(str(out / name), markup=False, soft_wrap=True)
