"""The image of robustness: a row a disturbance, three dots for its strengths in each panel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.accuracy.robustness_result import Robustness, Row
from hvq_edge.common import svg

NAMES, GAP, ROW, ABOVE, BELOW = 230.0, 48.0, 40.0, 104.0, 62.0
RADII = (3.2, 4.4, 5.6)
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222; }
.small { font-size: 11px; fill: #666; } .head { font-size: 16px; font-weight: 600; }
.panel { font-weight: 600; } .paper { fill: #fff; } .stripe { fill: #f4f5f7; }
.goal { fill: #d9ead3; opacity: 0.75; } .grid { stroke: #ccc; stroke-width: 0.6; }
.clean { stroke: #222; stroke-width: 1.4; } .from { stroke: #999; stroke-width: 1.2; }
.s0 { fill: #9dc3f0; } .s1 { fill: #3b7dd8; } .s2 { fill: #12386e; }
.bad0 { fill: #f2b29b; } .bad1 { fill: #dd5b32; } .bad2 { fill: #8a2407; }
@media (prefers-color-scheme: dark) {
  text { fill: #eee; } .small { fill: #aaa; } .paper { fill: #16181c; } .stripe { fill: #1f2228; }
  .goal { fill: #274024; } .grid { stroke: #444; } .clean { stroke: #eee; }
  .s0 { fill: #d3e5fb; } .s1 { fill: #6ea8f2; } .s2 { fill: #2f6fcb; }
  .bad0 { fill: #f9d6c8; } .bad1 { fill: #f08a67; } .bad2 { fill: #d0451a; }
}
"""


class Panel(NamedTuple):
    """One of the rates, on an axis of its own."""

    rate: str
    title: str
    width: float
    worse: int
    """-1: less is worse; 1: more is worse."""
    allowed: float | None
    """By how much it may get worse."""


PANELS = (
    Panel("found", "defects found", 260, -1, 0.05),
    Panel("good rejected", "good parts rejected", 200, 1, 0.03),
    Panel("no decision", "no decision", 200, 1, None),
)


def robustness_svg(found: Robustness) -> str:
    """Draw a measurement: dots from pale and small (mild) to dark and large (strong).

    A vertical line stands where the images as they are lie. A dot is on its good side of the
    allowed loss, which is shaded, or blue turns to red.
    """
    rows = found.disturbed
    bottom = ABOVE + ROW * len(rows)
    width = NAMES + sum(panel.width + GAP for panel in PANELS)
    parts = [
        svg.text((12, 28), "The camera is not the dataset", "head"),
        svg.text((12, 48), f"{found.preset}, {found.engine}; {found.images} test images", "small"),
    ]
    for number, (name, strengths) in enumerate(rows.items()):
        y = ABOVE + ROW * number
        if number % 2 == 0:
            parts.append(svg.tag("rect", "stripe", x=0, y=y, width=width, height=ROW))
        parts.append(svg.text((12, y + 17), name))
        parts.append(svg.text((12, y + 32), " · ".join(row.strength for row in strengths), "small"))
    left = NAMES
    for panel in PANELS:
        parts += _panel(panel, found.clean, list(rows.values()), left, bottom)
        left += panel.width + GAP
    parts += _legend(bottom + 46)
    title = "Verdicts under disturbances of the image, beside those on the images as they are"
    return svg.document(width, bottom + BELOW, title, _STYLE, parts)


def _panel(
    panel: Panel, clean: Row, rows: Sequence[Sequence[Row]], left: float, bottom: float
) -> Iterator[str]:
    own = clean.mean(panel.rate)
    shown = [own, *(row.mean(panel.rate) for strengths in rows for row in strengths)]
    high = max(0.1, *shown)
    x = svg.linear(0, high, left, left + panel.width)
    yield svg.text((left, ABOVE - 28), panel.title, "panel")
    yield svg.text((x(own), ABOVE - 8), f"{100 * own:.0f} %", "small", "middle")
    worst = own
    if panel.allowed is not None:
        worst = min(max(own + panel.worse * panel.allowed, 0), high)
        start, end = sorted((x(own), x(worst)))
        height = bottom - ABOVE
        yield svg.tag("rect", "goal", x=start, y=ABOVE, width=end - start, height=height)
    for step in svg.round_steps(0, high, 5):
        yield svg.line((x(step), ABOVE), (x(step), bottom), "grid")
        yield svg.text((x(step), bottom + 15), f"{100 * step:g} %", "small", "middle")
    yield svg.line((x(own), ABOVE - 4), (x(own), bottom), "clean")
    for number, strengths in enumerate(rows):
        for i, row in enumerate(strengths):
            share = row.mean(panel.rate)
            y = ABOVE + ROW * (number + (i + 1) / (len(strengths) + 1))
            beyond = panel.allowed is not None and panel.worse * (share - worst) > 1e-9
            said = f"{row.disturbance} {row.strength}: {100 * share:.0f} % {panel.title}"
            yield svg.line((x(own), y), (x(share), y), "from")
            yield svg.dot((x(share), y), RADII[i], f"{'bad' if beyond else 's'}{i}", said)


def _legend(y: float) -> Iterator[str]:
    for i, word in enumerate(("mild", "middle", "strong")):
        yield svg.dot((18 + 80 * i, y - 4), RADII[i], f"s{i}", word)
        yield svg.text((28 + 80 * i, y), word, "small")
    yield svg.dot((262, y - 4), RADII[1], "bad1", "beyond the allowed loss")
    words = (
        "beyond what is allowed (shaded: found -5 points, good rejected +3 points) · "
        "black line: images as they are · means over products"
    )
    yield svg.text((272, y), words, "small")
