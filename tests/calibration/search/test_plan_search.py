"""The search for an INT8 plan: it keeps its budget, measures nothing twice, and is plotted."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.calibration.search.evidence import Effect
from hvq_edge.calibration.search.find_plan import EffectStore
from hvq_edge.calibration.search.plan import Budget, Plan
from hvq_edge.calibration.search.plan_search import TradeOffPoint, search
from hvq_edge.calibration.search.trade_off_plot import trade_off_plot


def damages(worst: list[float]):
    """Layers whose damages add up; the number of measurements is counted."""
    names = [f"layer {i}" for i in range(len(worst))]
    asked: list[frozenset[str]] = []

    def effect_of_layers(layers) -> Effect:
        asked.append(frozenset(layers))
        lost = min(1.0, sum(worst[int(name.split()[1])] for name in layers))
        return Effect(codes=1 - lost, maps=1 - lost, scores=1 - lost, drop=0.0)

    return names, effect_of_layers, asked


@given(
    st.lists(st.floats(0, 0.2), min_size=1, max_size=24),
    st.floats(0, 1),
)
@settings(max_examples=80, deadline=None)
def test_a_search_keeps_its_budget_and_no_single_layer_could_go_back(worst, least):
    names, effect_of_layers, asked = damages(worst)
    budget = Budget(min_code_agreement=least)
    found = search(names, effect_of_layers, budget)
    rounded = found.plan.int8_layers(names)
    assert frozenset() not in asked
    if rounded:
        assert found.plan.effect == effect_of_layers(rounded)
        assert budget.holds(found.plan.effect)
    else:
        assert found.plan.effect.codes == 1
    for name in found.plan.float_layers:
        assert not budget.holds(effect_of_layers([*rounded, name]))
    sizes = [point.kept for point in found.trade_off]
    assert sizes == sorted(set(sizes))
    assert {0, len(names)} <= set(sizes)
    assert len(asked) <= 3 * len(names) + 10


def test_layers_that_cost_nothing_are_all_int8():
    names, effect_of_layers, _ = damages([0.0] * 9)
    assert search(names, effect_of_layers, Budget(min_code_agreement=1.0)).plan.float_layers == {}


def test_a_search_says_what_it_measured_and_how_far_it_is():
    names, effect_of_layers, _ = damages([0.0625, 0.25, 0.0, 0.125, 0.03125])  # exact in binary
    steps: list[tuple] = []
    budget = Budget(min_code_agreement=0.9)
    found = search(names, effect_of_layers, budget, lambda *step: steps.append(step))
    worst_first = ["layer 1", "layer 3", "layer 0", "layer 4", "layer 2"]
    assert list(found.alone) == worst_first
    assert found.alone["layer 1"].codes == 0.75
    assert found.plan.made_by == "search"
    assert found.plan.budget == budget
    assert found.plan.float_layers == {
        "layer 1": "in int8 alone: 75.0 % equal codes, map correlation 0.7500",
        "layer 3": "in int8 alone: 87.5 % equal codes, map correlation 0.8750",
    }
    assert list(found.plan.float_layers) == ["layer 1", "layer 3"], "in the graph's order"
    assert found.plan.effect.codes == 1 - 0.09375
    assert [(point.kept, point.effect.codes) for point in found.trade_off] == [
        *[(0, 1 - 0.46875), (1, 1 - 0.21875), (2, 1 - 0.09375), (4, 1.0), (5, 1.0)]
    ]
    assert steps == [
        *[("each layer in int8", done, 5) for done in (1, 2, 3, 4, 5)],
        ("worst layers in float", 0, 5, "53.1% equal codes"),
        ("worst layers in float", 1, 5, "78.1% equal codes"),
        ("worst layers in float", 2, 5, "90.6% equal codes"),
        ("worst layers in float", 4, 5, "100.0% equal codes"),
        *[("layers back to int8", done, 2, "2 in float") for done in (1, 2)],
    ]


def test_layers_whose_maps_are_alike_are_ordered_by_their_codes():
    def effect(layers) -> Effect:
        return Effect(codes=1 - 0.1 * ("b" in layers), maps=0.9, scores=1, drop=0)

    found = search(["a", "b", "c"], effect, Budget(min_code_agreement=1.0))
    assert list(found.alone) == ["b", "a", "c"]
    assert list(found.plan.float_layers) == ["b"]


def test_a_layer_kept_for_nothing_goes_back_to_int8():
    """Keeping the worst ones keeps a harmless one that looked bad alone."""

    def effect(layers) -> Effect:
        maps = {"looks bad": 0.1, "is bad": 0.5}
        return Effect(
            codes=0.5 if "is bad" in layers else 1.0,
            maps=min(maps.get(name, 1.0) for name in layers),
            scores=1,
            drop=0,
        )

    steps: list[tuple] = []
    names = ["fine", "looks bad", "is bad"]
    found = search(names, effect, Budget(), lambda *step: steps.append(step))
    assert list(found.plan.float_layers) == ["is bad"]
    assert found.plan.effect == effect(["fine", "looks bad"])
    assert [step[1:] for step in steps if step[0] == "layers back to int8"] == [
        (1, 2, "2 in float"),
        (2, 2, "1 in float"),
    ]


def test_auroc_lost_counts_too():
    def effect(layers) -> Effect:
        return Effect(codes=1, maps=1, scores=1, drop=5.0 if "bad" in layers else 0.0)

    plan = search(["good", "bad", "other"], effect, Budget(max_drop=0.1)).plan
    assert list(plan.float_layers) == ["bad"]


def test_a_search_that_was_stopped_asks_nothing_twice(tmp_path):
    names, effect_of_layers, asked = damages([0.3, 0.01, 0.02, 0.2, 0.0])
    budget = Budget(min_code_agreement=0.9)
    left = 4

    def stopped(layers) -> Effect:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return effect_of_layers(layers)

    with pytest.raises(KeyboardInterrupt):
        search(names, EffectStore(tmp_path, "key", stopped), budget)
    before = list(asked)
    found = search(names, EffectStore(tmp_path, "key", effect_of_layers), budget)
    assert len(before) == 4
    assert not set(before) & set(asked[4:])
    assert len(set(asked)) == len(asked)
    again = len(asked)
    assert search(names, EffectStore(tmp_path, "key", effect_of_layers), budget) == found
    assert len(asked) == again
    search(names, EffectStore(tmp_path, "another key", effect_of_layers), budget)
    assert len(asked) > again


def test_a_torn_store_is_measured_again(tmp_path):
    (tmp_path / "key.json").write_text("{")
    names, effect_of_layers, asked = damages([0.1])
    search(names, EffectStore(tmp_path, "key", effect_of_layers), Budget())
    assert asked


def test_a_set_of_layers_is_one_whatever_its_order(tmp_path):
    _, effect_of_layers, asked = damages([0.1, 0.2])
    store = EffectStore(tmp_path / "new" / "folder", "key", effect_of_layers)
    assert store(["layer 1", "layer 0"]) == store(["layer 0", "layer 1"])
    assert store(["layer 1"]) != store(["layer 0"])
    assert len(asked) == 3
    assert (tmp_path / "new" / "folder" / "key.json").is_file()


def test_the_plot_is_an_image_that_needs_nothing_else():
    steps = [
        TradeOffPoint(k, Effect(codes=0.7 + 0.03 * k, maps=1, scores=1, drop=0)) for k in range(11)
    ]
    effect = Effect(codes=0.98, maps=1, scores=1, drop=0)
    plan = Plan(made_by="search", budget=Budget(), effect=effect, float_layers={"a & b": "x"})
    text = trade_off_plot(steps, plan, 10)
    root = ElementTree.fromstring(text)
    dots = [one for one in root.iter() if one.get("class") == "dot"]
    heights = [float(dot.get("cy")) for dot in dots]
    assert heights == sorted(heights, reverse=True), "more equal codes is higher up"
    assert len([one for one in root.iter() if one.get("class") == "chosen"]) == 1
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
