"""The image of a benchmark: bars of milliseconds, drawn as SVG without a plotting library."""

from __future__ import annotations

from pathlib import Path

from hvq_edge.bench.report import BenchReport, Timing
from hvq_edge.common import svg
from hvq_edge.common.atomic import write_text

WIDTH = 860.0
LEFT, BAR, ROW, ABOVE = 250.0, 330.0, 24.0, 64.0
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222; }
.small { font-size: 11px; fill: #666; } .head { font-size: 16px; font-weight: 600; }
.bar { fill: #3b7dd8; } .reference { fill: #999; } .whisker { stroke: #222; stroke-width: 1.5; }
.warning { fill: #b3261e; } .paper { fill: #fff; }
@media (prefers-color-scheme: dark) {
  text { fill: #eee; } .small { fill: #aaa; } .whisker { stroke: #eee; } .paper { fill: #16181c; }
  .warning { fill: #ff8a80; }
}
"""


def write_bench(report: BenchReport, path: Path) -> None:
    """Write a report, and its image beside it.

    Args:
        report: what was measured.
        path: of the JSON file.

    Raises:
        OutputError: they cannot be written.
    """
    write_text(path, report.model_dump_json(indent=2) + "\n")
    write_text(path.with_suffix(".svg"), bench_svg(report))


def bench_svg(report: BenchReport) -> str:
    """Draw a report.

    One bar an entrant and batch, up to the median of an image's share of the batch, with a line
    to the 99th percentile; beside it the ratio to the reference with its spread.
    """
    longest = max((_each(timing, timing.p99) for timing in report.timings), default=1.0)
    scale = BAR / max(longest, 1e-9)
    parts: list[str] = []
    y = ABOVE
    for batch in report.batches:
        parts.append(svg.text((8, y + 4), f"batch {batch}: milliseconds an image", "small"))
        y += 12
        for timing in (one for one in report.timings if one.batch == batch):
            parts += _row(timing, report.reference, y, scale)
            y += ROW
        y += 18
    for warning in report.warnings:
        for line in _lines(f"Warning: {warning}."):
            parts.append(svg.text((8, y), line, "warning"))
            y += 16
    facts = (
        f"{report.machine}, {report.cpus} processors, hvq-edge {report.hvq_edge_version}, "
        f"{report.rounds} rounds; line: to the 99th percentile; ratio to {report.reference} with "
        "10th and 90th percentile of the rounds"
    )
    for line in _lines(facts):
        parts.append(svg.text((8, y), line, "small"))
        y += 15
    head = svg.text((8, 28), "Latency on this machine", "head")
    return svg.document(WIDTH, y, "Latency of each engine on this machine", _STYLE, [head, *parts])


def _row(timing: Timing, reference: str, y: float, scale: float) -> list[str]:
    middle, far = _each(timing, timing.p50) * scale, _each(timing, timing.p99) * scale
    own = timing.name == reference
    ratio = timing.ratio
    said = f"{_each(timing, timing.p50):.1f} ms" + (
        "" if own else f"   ×{ratio.median:.2f} ({ratio.low:.2f} … {ratio.high:.2f})"
    )
    centre = y + ROW / 2 - 3
    name = timing.name if len(timing.name) <= 34 else f"{timing.name[:33]}…"
    kind, end = "reference" if own else "bar", LEFT + far
    return [
        svg.text((LEFT - 8, y + 13), name, anchor="end"),
        svg.tag("rect", kind, x=LEFT, y=y, width=max(middle, 1), height=ROW - 6, rx=2),
        svg.line((LEFT + middle, centre), (end, centre), "whisker"),
        svg.line((end, centre - 4), (end, centre + 4), "whisker"),
        svg.text((end + 8, y + 13), said),
    ]


def _each(timing: Timing, milliseconds: float) -> float:
    return milliseconds / timing.batch


def _lines(text: str, most: int = 110) -> list[str]:
    """Break a text into lines."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
