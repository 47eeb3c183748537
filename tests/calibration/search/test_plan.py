"""INT8 plans: what is written is what is read; a search keeps to its budget and goes on."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.calibration.search.evidence import (
    DEFECTS,
    Effect,
    Evidence,
    GraphResults,
    effect_of,
    gather_evidence,
)
from hvq_edge.calibration.search.find_plan import EffectStore
from hvq_edge.calibration.search.plan import (
    Budget,
    Plan,
    default_plan,
    plan_text,
    read_plan,
    write_plan,
)
from hvq_edge.calibration.search.plan_search import TradeOffPoint, search
from hvq_edge.calibration.search.trade_off_plot import trade_off_plot
from hvq_edge.errors import InputError

SHARE = st.floats(0, 1)
EFFECTS = st.builds(Effect, codes=SHARE, maps=SHARE, scores=SHARE, drop=st.floats(-50, 50))
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    st.builds(
        Plan,
        made_by=st.sampled_from(["rule", "search", "hand"]),
        budget=st.none() | st.builds(Budget, max_drop=SHARE, min_code_agreement=SHARE),
        effect=st.none() | EFFECTS,
        float_layers=st.dictionaries(TEXT, TEXT, max_size=4),
    )
)
@settings(max_examples=60, deadline=None)
def test_any_plan_is_read_as_it_was_written(tmp_path_factory, plan):
    path = tmp_path_factory.getbasetemp() / "plan.toml"
    write_plan(path, plan)
    assert read_plan(path) == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format = ", "is not valid TOML"),
        ('made_by = "hand"\n', "float_layers: is missing"),
        ('made_by = "you"\nlayers = 3\n[float_layers]\n', "made_by: .*layers: unknown key"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_at_once(tmp_path, text, message):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_plan(tmp_path / "plan.toml")


def test_no_plan_there(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_plan(tmp_path / "plan.toml")


def test_a_plan_of_another_model():
    plan = Plan(made_by="hand", float_layers={"encoder.9.linear/MatMul": "mine"})
    with pytest.raises(InputError, match=r"does not have: encoder\.9"):
        plan.int8_layers(["encoder.0.linear/MatMul"])


def test_the_usual_plan_says_why():
    layers = [
        "backbone.stem.conv/Conv",
        "backbone.blocks.9.depthwise.conv/Conv",
        "backbone.blocks.9.squeeze.reduce/Conv",
        "encoder.0.feedforward.linear1/MatMul",
    ]
    plan = default_plan(layers)
    assert plan.int8_layers(layers) == tuple(layers[2:])
    assert "early" in plan.float_layers[layers[0]]
    assert "depthwise" in plan.float_layers[layers[1]]
    assert "early" in plan_text(plan)


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


def judged(scores, codes=None) -> GraphResults:
    n = len(scores)
    maps = np.arange(4 * n, dtype=np.float32).reshape(n, 2, 2)
    codes = np.zeros((n, 2, 4), np.int32) if codes is None else codes
    return GraphResults(codes, maps, np.asarray(scores, np.float32))


def test_the_effect_is_of_codes_maps_and_auroc():
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    evidence = Evidence(frames, np.zeros(4, np.int32), np.array([False, False, True, True]))
    reference = judged([0, 1, 2, 3])
    same = effect_of(reference, reference, evidence)
    assert same == Effect(codes=1, maps=1, scores=1, drop=0)
    codes = np.zeros((4, 2, 4), np.int32)
    codes[0, 1, :2] = 7
    other = effect_of(reference, judged([0, 2.5, 2, 3], codes), evidence)
    assert other.codes == 1 - 2 / 16
    assert other.drop == pytest.approx(25)  # one of four pairs is the wrong way round
    assert 0 < other.scores < 1
    broken = reference._replace(maps=np.full_like(reference.maps, np.nan))
    assert not Budget(max_drop=99, min_code_agreement=0.01).holds(
        effect_of(reference, broken, evidence)
    )


def test_evidence_is_the_same_every_time_and_damaged(plain_folder):
    images = sorted(path for path in plain_folder.rglob("*.png"))[:3]
    first = gather_evidence(images, [0, 1, 0], 64)
    assert first.digest == gather_evidence(images, [0, 1, 0], 64).digest
    assert first.digest != gather_evidence(images, [0, 1, 1], 64).digest
    assert len(first.frames) == len(images) * (1 + DEFECTS)
    assert first.category.tolist() == [0, 1, 0] * (1 + DEFECTS)
    assert first.defective.tolist() == [False] * 3 + [True] * 3 * DEFECTS
    for i in range(3, len(first.frames)):
        assert (first.frames[i] != first.frames[i % 3]).any()
    with pytest.raises(InputError, match="held-out good images"):
        gather_evidence([], [], 64)


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
