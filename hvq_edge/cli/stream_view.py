"""What ``hvq-edge stream`` shows a person: a line a reject, a live counter, a summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hvq_edge.cli.console import NotPrinted, messages, one_line, print_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from hvq_edge.stream.inspector import Inspector
    from hvq_edge.stream.sources.source import Frame
    from hvq_edge.verdict.decision import Decision

_STYLES = {"reject": "bold red", "no_decision": "yellow"}


@contextmanager
def inspection_goes_on() -> Iterator[None]:
    """Warn where the disk of standard output is full: that ends printing, not inspection."""
    try:
        yield
    except NotPrinted as error:
        what = f"Warning: {error.cause} Inspection goes on, and nothing more is printed."
        messages.print(what, markup=False, soft_wrap=True)


class PrintedJson:
    """A sink that prints a JSON line for each decision; the reader of a pipe sees it at once."""

    def write(self, decision: Decision, frame: Frame) -> None:  # noqa: ARG002  # of the protocol
        """Print the decision."""
        with inspection_goes_on():
            print_json(decision.fields())

    def close(self) -> None:
        """Nothing is left to do."""


class DecisionLines:
    """A sink that prints a line for each reject, and for each run of frames without a decision.

    A camera that is out for an hour makes one line, not thousands.

    Args:
        console: where to.
        several: cameras: each line names its own.
        passes: print a line for a pass too.
    """

    def __init__(self, console: Console, *, several: bool = False, passes: bool = False) -> None:
        self._console = console
        self._several = several
        self._passes = passes
        self._kinds: dict[str, str] = {}

    def write(self, decision: Decision, frame: Frame) -> None:
        """Print the decision if it is worth a line."""
        kind = decision.reason.split(":")[0] if decision.verdict == "no_decision" else ""
        from hvq_edge.stream.sources.source import is_video_frame

        name = "" if is_video_frame(frame.name) else frame.name
        repeated = bool(kind) and kind == self._kinds.get(decision.camera) and not name
        self._kinds[decision.camera] = kind
        camera = decision.camera if self._several else ""
        if (self._passes or decision.verdict != "pass") and not repeated:
            line = decision_line(decision, name, camera)
            with inspection_goes_on():
                self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        """Nothing is left to do."""


def decision_line(decision: Decision, name: str, camera: str = "") -> Text:
    """Return the line for one decision.

    Args:
        decision: the decision.
        name: of the frame's file, if it has one.
        camera: named where there are several.
    """
    from rich.text import Text

    line = Text(f"{camera}  " if camera else "")
    line.append(f"frame {decision.frame:>6}  ")
    line.append(f"{decision.verdict.replace('_', ' '):<11}", _STYLES.get(decision.verdict, ""))
    category, grade = decision.category or "", decision.grade or ""
    part = f"part {decision.part}" if decision.part else ""
    words = (category, grade, decision.reason, part, f"({name})" if name else "")
    line.append("  " + one_line("  ".join(word for word in words if word)))
    return line


@contextmanager
def live_counter(inspector: Inspector, *, shown: bool) -> Iterator[None]:
    """Show the counts in one line on standard error while the run lasts."""
    from rich.live import Live
    from rich.text import Text

    def line() -> Text:
        statistics = inspector.statistics()
        counts = statistics.counts
        latency = statistics.stages["total"].percentile(50)
        return Text(
            f"{counts.decided} decided: {counts.passed} pass, {counts.rejected} reject, "
            f"{counts.no_decision} no decision, {counts.dropped} dropped, "
            f"{counts.decided / max(statistics.seconds, 1e-9):.1f} a second"
            + (f", {latency:.1f} ms" if latency is not None else "")
        )

    if not shown:
        yield
        return
    with Live(console=messages, get_renderable=line, transient=True, redirect_stdout=False):
        yield


def print_summary(console: Console, inspector: Inspector, out: Path | None) -> None:
    """Print counts, rate, latencies, and where the files are."""
    from rich.table import Table
    from rich.text import Text

    statistics = inspector.statistics()
    names = ", ".join(camera.name for camera in statistics.cameras)
    table = Table(title=Text(f"Inspection of {names}"), title_justify="left", show_header=False)
    table.add_column()
    columns = [camera.counts for camera in statistics.cameras]
    if len(columns) > 1:
        columns.append(statistics.counts)
        table.show_header = True
        for heading in [*(camera.name for camera in statistics.cameras), "together"]:
            table.add_column(Text(heading), justify="right")
    else:
        table.add_column(justify="right")
    policies = " and ".join(sorted(set(inspector.policies)))
    table.add_row("frames", *(str(counts.frames) for counts in columns))
    table.add_row("pass", *(str(counts.passed) for counts in columns))
    table.add_row("reject", *(str(counts.rejected) for counts in columns))
    table.add_row("no decision", *(str(counts.no_decision) for counts in columns))
    table.add_row(f"dropped (policy {policies})", *(str(counts.dropped) for counts in columns))
    seconds = max(statistics.seconds, 1e-9)
    table.add_row("decisions a second", *(f"{counts.decided / seconds:.1f}" for counts in columns))
    gaps = [camera.gaps for camera in statistics.cameras]
    if any(gaps):
        table.add_row("gaps", *(str(count) for count in gaps))
    for kind in statistics.cameras[0].transport.counts:
        faults = [camera.transport.counts[kind] for camera in statistics.cameras]
        if any(faults):
            table.add_row(f"{kind} on the way", *(str(count) for count in faults))
    unread = [camera.unread_parts for camera in statistics.cameras]
    if any(unread):
        table.add_row("serial number not read", *(str(count) for count in unread))
    empty = [""] * (len(columns) - 1)
    for percent in (50, 95, 99):
        latency = statistics.stages["total"].percentile(percent)
        shown = "-" if latency is None else f"{latency:.1f} ms"
        table.add_row(f"latency p{percent}", *empty, shown)
    console.print(table)
    for sink in statistics.sinks:
        if sink.fault or sink.dropped:
            what = f"{sink.name}: {sink.dropped} dropped, {sink.waiting} waiting"
            console.print(
                what + (f": {sink.fault}" if sink.fault else ""), markup=False, soft_wrap=True
            )
    for camera in statistics.cameras:
        if camera.unlike:
            console.print(f"{camera.name}: {camera.unlike}", markup=False, soft_wrap=True)
        if camera.drift:
            console.print(f"{camera.name}: {camera.drift}", markup=False, soft_wrap=True)
    if out is None:
        return
    for pattern in ("decisions.sqlite", "decisions.jsonl", "rejects", "annotated*.mp4", "videos"):
        for path in sorted(out.glob(pattern)):
            console.print(str(path), markup=False, soft_wrap=True)
