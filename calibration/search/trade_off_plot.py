"""The trade-off between layers in int8 and agreement, as an SVG image."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from hvq_edge.calibration.search.plan import Plan
from hvq_edge.calibration.search.plan_search import TradeOffPoint

PLOT_NAME = "int8-trade-off.svg"
"""In a bundle, when a plan was searched for."""
_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 40, 44
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.axis{stroke:#999}.grid{stroke:#ddd}"
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

    def x(kept: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * kept / max(candidates, 1)

    def y(codes: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - codes) / (1 - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        "<title>Equal codes by number of layers kept in float</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="20">Equal codes on the worst level (%), '
        "by how many of the layers stay in float (the worst first)</text>",
    ]
    for i in range(5):
        codes = low + (1 - low) * i / 4
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
            f'y1="{y(codes):.1f}" y2="{y(codes):.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y(codes) + 4:.1f}" text-anchor="end">'
            f"{100 * codes:.2f}</text>"
        )
    for i in range(5):
        kept = round(candidates * i / 4)
        parts.append(
            f'<text x="{x(kept):.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{kept}</text>'
        )
    label = escape(f"layers in float, of {candidates}")
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">{label}</text>')
    if plan.budget is not None and plan.budget.min_code_agreement >= low:
        level = y(plan.budget.min_code_agreement)
        parts.append(
            f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
            f'y1="{level:.1f}" y2="{level:.1f}"/>'
        )
    corners = " ".join(f"{x(one.kept):.1f},{y(one.effect.codes):.1f}" for one in points)
    parts.append(f'<polyline class="line" points="{corners}"/>')
    parts += [
        f'<circle class="dot" cx="{x(one.kept):.1f}" cy="{y(one.effect.codes):.1f}" r="3">'
        f"<title>{one.kept} in float: {100 * one.effect.codes:.2f} % equal codes, map "
        f"correlation {one.effect.maps:.4f}, {one.effect.drop:+.2f} points of AUROC lost"
        "</title></circle>"
        for one in points
    ]
    if plan.effect is not None:
        kept = len(plan.float_layers)
        parts.append(
            f'<circle class="chosen" cx="{x(kept):.1f}" cy="{y(plan.effect.codes):.1f}" r="5">'
            f"<title>the plan: {kept} in float, {100 * plan.effect.codes:.2f} % equal codes"
            "</title></circle>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"
