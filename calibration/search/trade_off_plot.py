"""The trade-off between layers in int8 and agreement, as an SVG image."""

from __future__ import annotations

from collections.abc import Sequence

from hvq_edge.calibration.search.plan import Plan
from hvq_edge.calibration.search.plan_search import TradeOffPoint
from hvq_edge.common import svg
from hvq_edge.common.svg import linear

PLOT_NAME = "int8-trade-off.svg"
"""In a bundle, when a plan was searched for."""
_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 40, 44
_STYLE = (
    ".paper{fill:#fff}text{font:12px sans-serif;fill:#333}.axis{stroke:#999}.grid{stroke:#ddd}"
    ".line{fill:none;stroke:#06c;stroke-width:2}.dot{fill:#06c}"
    ".limit{stroke:#c30;stroke-dasharray:5 4}.chosen{fill:#c30}"
)


def trade_off_plot(points: Sequence[TradeOffPoint], plan: Plan, candidates: int) -> str:
    """Draw the share of equal codes over the number of layers in float.

    Args:
        points: the trade-off, by number of layers in float.
        plan: that was chosen; its effect is the red dot, its budget the dashed line.
        candidates: layers that could be int8.

    Returns:
        An SVG document that needs nothing else.
    """
    found = [point.effect.codes for point in points]
    if plan.effect is not None:
        found.append(plan.effect.codes)
    low = min(0.99, *found)
    low = max(0.0, int(low * 20) / 20)  # a multiple of 5 %

    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    x, y = linear(0, max(candidates, 1), _LEFT, right), linear(low, 1, bottom, _TOP)
    title = "Equal codes on the worst level (%), by how many of the layers stay in float"
    parts = [svg.text((_LEFT, 20), f"{title} (the worst first)")]
    for i in range(5):
        codes, kept = low + (1 - low) * i / 4, round(candidates * i / 4)
        parts += [
            svg.line((_LEFT, y(codes)), (right, y(codes)), "grid"),
            svg.text((_LEFT - 8, y(codes) + 4), f"{100 * codes:.2f}", anchor="end"),
            svg.text((x(kept), _HEIGHT - 24), f"{kept}", anchor="middle"),
        ]
    parts.append(svg.text((right, _HEIGHT - 6), f"layers in float, of {candidates}", anchor="end"))
    if plan.budget is not None and plan.budget.min_code_agreement >= low:
        level = y(plan.budget.min_code_agreement)
        parts.append(svg.line((_LEFT, level), (right, level), "limit"))
    places = [(x(one.kept), y(one.effect.codes)) for one in points]
    parts.append(svg.tag("polyline", "line", points=svg.points(places)))
    parts += [
        svg.dot(
            place,
            3,
            "dot",
            f"{one.kept} in float: {100 * one.effect.codes:.2f} % equal codes, map "
            f"correlation {one.effect.maps:.4f}, {one.effect.drop:+.2f} points of AUROC lost",
        )
        for place, one in zip(places, points, strict=True)
    ]
    if plan.effect is not None:
        kept, codes = len(plan.float_layers), plan.effect.codes
        said = f"the plan: {kept} in float, {100 * codes:.2f} % equal codes"
        parts.append(svg.dot((x(kept), y(codes)), 5, "chosen", said))
    return svg.document(_WIDTH, _HEIGHT, title, _STYLE, parts)
