"""The search for the smallest set of layers to keep in float under a budget.

Each layer is rounded alone first: what that does to the maps orders the layers, the worst first.
Keeping the worst k in float, the smallest k within the budget is found by bisection; then every
kept layer is tried in int8 again, the mildest first, since damages do not simply add up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from hvq_edge.calibration.search.evidence import Effect
from hvq_edge.calibration.search.plan import Budget, Plan
from hvq_edge.common.progress import ProgressCallback, silent

EffectOf = Callable[[Collection[str]], Effect]
"""Measures what these layers in int8 change."""


class TradeOffPoint(NamedTuple):
    """One set of layers in float, and what the others in int8 change."""

    kept: int
    """How many layers stay in float."""
    effect: Effect


class SearchResult(NamedTuple):
    """The plan that a search found, and what it measured on the way."""

    plan: Plan
    alone: dict[str, Effect]
    """The effect of each layer alone in int8, the worst first."""
    trade_off: tuple[TradeOffPoint, ...]
    """The effect with the worst k layers in float, by k."""


def search(
    candidates: Sequence[str],
    effect_of: EffectOf,
    budget: Budget,
    on_progress: ProgressCallback = silent,
    *,
    alone_of: EffectOf | None = None,
) -> SearchResult:
    """Find a plan within a budget.

    Args:
        candidates: layers that could be int8, in the graph's order.
        effect_of: measures a set of layers; slow. It is not called for the empty set.
        budget: what may change.
        on_progress: called after each measurement.
        alone_of: measures a layer alone, to order them; ``None``: as a set of layers.

    Returns:
        A plan within the budget: at worst all layers in float. The smallest that this search
        finds, which need not be the smallest there is.
    """
    total = len(candidates)
    alone = {}
    for done, name in enumerate(candidates, start=1):
        alone[name] = (alone_of or effect_of)([name])
        on_progress("each layer in int8", done, total)
    worst_first = sorted(candidates, key=lambda name: (alone[name].maps, alone[name].codes))
    nothing = Effect(codes=1.0, maps=1.0, scores=1.0, drop=0.0)
    by_kept: dict[int, Effect] = {total: nothing}

    def with_float(kept: Collection[str]) -> Effect:
        rounded = [name for name in candidates if name not in kept]
        return effect_of(rounded) if rounded else nothing

    def keeping(k: int) -> Effect:
        if k not in by_kept:
            by_kept[k] = with_float(worst_first[:k])
            on_progress("worst layers in float", k, total, f"{by_kept[k].codes:.1%} equal codes")
        return by_kept[k]

    for k in _curve(total):
        keeping(k)
    outside, inside = _bracket(by_kept, budget)
    while inside - outside > 1:
        middle = (inside + outside) // 2
        if budget.holds(keeping(middle)):
            inside = middle
        else:
            outside = middle
    kept = list(worst_first[:inside])
    effect = by_kept[inside]
    for done, name in enumerate(worst_first[:inside][::-1], start=1):
        fewer = [other for other in kept if other != name]
        tried = with_float(fewer)
        if budget.holds(tried):
            kept, effect = fewer, tried
        on_progress("layers back to int8", done, inside, f"{len(kept)} in float")
    reasons = {name: _reason(alone[name]) for name in candidates if name in kept}
    plan = Plan(made_by="search", budget=budget, effect=effect, float_layers=reasons)
    ordered = {name: alone[name] for name in worst_first}
    return SearchResult(plan, ordered, tuple(TradeOffPoint(k, by_kept[k]) for k in sorted(by_kept)))


def _curve(total: int) -> list[int]:
    """Return the sizes at which the trade-off is measured in any case: 0, 1, 2, 4, ..."""
    sizes, k = [0], 1
    while k < total:
        sizes.append(k)
        k *= 2
    return [size for size in sizes if size < total]


def _bracket(by_kept: dict[int, Effect], budget: Budget) -> tuple[int, int]:
    """Return the largest size known outside the budget, -1 if none is, and the next one."""
    outside = max((k for k, effect in by_kept.items() if not budget.holds(effect)), default=-1)
    return outside, min(k for k in by_kept if k > outside)


def _reason(effect: Effect) -> str:
    return (
        f"in int8 alone: {100 * effect.codes:.1f} % equal codes, map correlation {effect.maps:.4f}"
    )
