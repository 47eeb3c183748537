"""INT8 plans: what is written is what is read; a search keeps to its budget and goes on."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from helpers.graphs import CATEGORIES, SIDE, frames, save_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.calibration.ranges.measure import MeasuredRanges
from hvq_edge.calibration.search import evidence, find_plan
from hvq_edge.calibration.search.evidence import (
    DEFECTS,
    Effect,
    Evidence,
    GraphResults,
    effect_of,
    gather_evidence,
    results_on,
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
from hvq_edge.calibration.search.plan_search import SearchResult, TradeOffPoint, search
from hvq_edge.calibration.search.trade_off_plot import trade_off_plot
from hvq_edge.data.images import read_frame
from hvq_edge.data.pseudo_defects import KINDS, PseudoDefect
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
    with pytest.raises(InputError, match=message) as refused:
        read_plan(tmp_path / "plan.toml")
    assert str(tmp_path / "plan.toml") in refused.value.cause
    if "TOML" not in message:
        assert re.match(r"compare it with the int8-plan\.toml that", refused.value.next_step)


def test_no_plan_there(tmp_path):
    with pytest.raises(InputError, match=r"^cannot read the INT8 plan .*No such file") as refused:
        read_plan(tmp_path / "plan.toml")
    assert "--plan" in refused.value.next_step


def test_a_plan_begins_with_what_it_is():
    lines = plan_text(Plan(made_by="rule", float_layers={})).splitlines()
    assert lines[0].startswith("# Which layers INT8 leaves in float, and why;")
    assert lines[1] == "# Edit it and use it again: hvq-edge export --int8 --plan THIS_FILE"
    assert lines[2:] == [
        'format = "hvq-edge-int8-plan/1"',
        'made_by = "rule"',
        "",
        "[float_layers]",
    ]


def test_a_plan_of_another_model():
    plan = Plan(made_by="hand", float_layers={"encoder.9.linear/MatMul": "mine"})
    with pytest.raises(InputError, match=r"does not have: encoder\.9\.linear/MatMul\.") as refused:
        plan.int8_layers(["encoder.0.linear/MatMul"])
    assert "use the plan of this very model, or export with --max-drop" in refused.value.next_step


@pytest.mark.parametrize(("count", "named"), [(5, "0, 1, 2, 3, 4."), (6, "0, 1, 2, 3, 4 ….")])
def test_of_many_unknown_layers_five_are_named(count, named):
    plan = Plan(made_by="hand", float_layers={str(i): "mine" for i in reversed(range(count))})
    with pytest.raises(InputError) as refused:
        plan.int8_layers([])
    assert refused.value.cause.endswith(f"does not have: {named}")


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


def judged(scores, codes=None) -> GraphResults:
    n = len(scores)
    maps = np.arange(4 * n, dtype=np.float32).reshape(n, 2, 2)
    codes = np.zeros((n, 2, 4), np.int32) if codes is None else codes
    return GraphResults(codes, maps, np.asarray(scores, np.float32))


def test_the_effect_is_of_codes_maps_and_auroc():
    images = np.zeros((4, 8, 8, 3), np.uint8)
    given = Evidence(images, np.zeros(4, np.int32), np.array([False, False, True, True]))
    reference = judged([0, 1, 2, 3])
    same = effect_of(reference, reference, given)
    assert same == Effect(codes=1, maps=1, scores=1, drop=0)
    codes = np.zeros((4, 2, 4), np.int32)
    codes[0, 1, :2] = 7
    other = effect_of(reference, judged([0, 2.5, 2, 3], codes), given)
    assert other.codes == 1 - 2 / 16
    assert other.drop == pytest.approx(25)  # one of four pairs is the wrong way round
    assert 0 < other.scores < 1
    broken = reference._replace(maps=np.full_like(reference.maps, np.nan))
    assert not Budget(max_drop=99, min_code_agreement=0.01).holds(
        effect_of(reference, broken, given)
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
    with pytest.raises(InputError, match=r"^INT8 plans .* held-out good images, .* none\.$"):
        gather_evidence([], [], 64)


def test_evidence_is_spread_over_the_images_and_the_kinds_of_defects(plain_folder, monkeypatch):
    images = sorted(plain_folder.glob("good/*.png"))[:9]
    monkeypatch.setattr(evidence, "MOST_IMAGES", 4)
    made, steps = [], []

    def damaged(frame, other, kind, seed) -> PseudoDefect:
        made.append((frame, other, kind, seed))
        return PseudoDefect(255 - frame, np.ones(frame.shape[:2], bool))

    monkeypatch.setattr(evidence, "pseudo_defect", damaged)
    found = gather_evidence(images, range(9), 64, lambda *step: steps.append(step))
    assert found.category.tolist() == [0, 3, 6] * (1 + DEFECTS)
    good = [read_frame(path, 64) for path in images[::3]]
    np.testing.assert_array_equal(found.frames, [*good, *[255 - one for one in good] * DEFECTS])
    assert steps == [("images to judge", done, 3) for done in (1, 2, 3)]
    assert {kind for _, _, kind, _ in made} == set(KINDS)
    assert len({seed for _, _, _, seed in made}) == len(made), "no two look alike"
    for i in range(3):
        assert made[i][2] != made[i + 3][2], "an image is damaged in two ways"
    assert all((frame != other).any() for frame, other, _, _ in made)


@pytest.mark.parametrize("takes_category", [True, False])
def test_a_graph_judges_one_image_at_a_time(takes_category):
    asked = []

    class Echo:
        def run(self, frames, category=None):
            asked.append(category)
            assert len(frames) == 1
            level = np.float32(frames[0, 0, 0, 0])
            codes = np.full((1, 2, 4), level, np.int32)
            return {"codes": codes, "map": np.full((1, 2, 2), 2 * level), "score": level[None] * 3}

    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 8, 8, 3), np.uint8)
    given = Evidence(images, np.array([2, 0, 1], np.int32), np.zeros(3, bool))
    found = results_on(Echo(), given, takes_category=takes_category)
    if takes_category:
        assert [category.tolist() for category in asked] == [[2], [0], [1]]
    else:
        assert asked == [None] * 3, "a graph without the input refuses one"
    assert found.codes[:, 1, 3].tolist() == [0, 1, 2]
    assert found.maps[:, 0, 1].tolist() == [0, 2, 4]
    assert found.scores.tolist() == [0, 3, 6]


def test_auroc_is_that_of_each_category_and_maps_are_compared_cell_by_cell():
    """Scores of categories are not comparable; a category that loses all weighs as one."""
    n = 6
    category = np.array([0, 0, 1, 1, 1, 1], np.int32)
    defective = np.array([False, True, False, True, True, True])
    given = Evidence(np.zeros((n, 8, 8, 3), np.uint8), category, defective)
    reference = judged([10, 11, 0, 1, 2, 3])
    assert effect_of(reference, judged([11, 10, 0, 1, 2, 3]), given).drop == pytest.approx(50)
    turned = reference._replace(maps=-reference.maps)
    assert effect_of(reference, turned, given).maps == pytest.approx(-1)
    flat = reference._replace(maps=np.zeros_like(reference.maps))
    for pair in ((flat, reference), (reference, flat)):
        assert effect_of(*pair, given).maps == 0
    assert effect_of(flat, flat, given).maps == 1
    # In float32 its mean is another than each of its values.
    stuck = reference._replace(scores=np.full(n, 0.3, np.float32))
    assert effect_of(reference, stuck, given).scores == 0
    for name in ("maps", "scores"):
        broken = getattr(reference, name).copy()
        broken.flat[0] = np.inf
        lost = effect_of(reference, reference._replace(**{name: broken}), given)
        assert lost == Effect(codes=0, maps=0, scores=0, drop=100)


def named_graph(folder: Path, mode: str) -> Path:
    """A graph of one convolution, named."""
    path = save_graph(folder / f"{mode}.onnx", mode)
    graph = onnx.load(path)
    next(node for node in graph.graph.node if node.op_type == "Conv").name = "grey/Conv"
    onnx.save(graph, path)
    return path


def bright_and_dark() -> Evidence:
    """Three good images of each of two categories, and three with a bright place."""
    images = frames(12) // 4
    images[6:, 16:32, 32:48] = 220
    return Evidence(images, np.array([0, 1] * 6, np.int32), np.arange(12) >= 6)


def ranges_up_to(amax: float) -> MeasuredRanges:
    return MeasuredRanges(method="minmax", ranges={"means": amax}, images=1, moved=0.0)


@pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("mode", ["one", "input"])
def test_a_plan_is_found_on_the_graph_itself(tmp_path, monkeypatch, mode, library):
    """A layer whose range cuts the defects off stays in float; with all of them it is int8."""
    monkeypatch.setattr(find_plan, "_backend", lambda: library)
    source, given = named_graph(tmp_path, mode), bright_and_dark()
    steps: list[tuple] = []

    def plan_with(amax: float) -> SearchResult:
        return find_plan.find_plan(
            source,
            ranges_up_to(amax),
            given,
            Budget(),
            tmp_path / "kept",
            categories=CATEGORIES,
            mode=mode,
            on_progress=lambda *step: steps.append(step),
        )

    good = plan_with(240.0)
    assert good.plan.float_layers == {}
    assert good.plan.effect.drop == 0
    assert good.plan.effect.codes == 1
    assert 0.99 < good.plan.effect.maps < 1, "it is not the float graph"
    assert steps[0] == ("each layer in int8", 1, 1)
    cut = plan_with(1.0)
    assert list(cut.plan.float_layers) == ["grey/Conv"]
    assert cut.alone["grey/Conv"].drop == pytest.approx(50)
    assert len(list((tmp_path / "kept").iterdir())) == 2, "ranges have a store of their own"
    monkeypatch.setattr(find_plan, "to_int8", None)
    assert plan_with(240.0) == good, "nothing is built or measured again"
    assert plan_with(1.0) == cut


@pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
def test_graphs_are_run_in_the_library_that_is_here(tmp_path, monkeypatch, library):
    there = library == "openvino"
    asked = []
    monkeypatch.setattr(find_plan, "find_spec", lambda name: asked.append(name) or there or None)
    assert find_plan._backend() == library
    assert asked == ["openvino"]
    source = named_graph(tmp_path, "input")
    with find_plan._open(source, (SIDE, SIDE), CATEGORIES, "input") as engine:
        info = engine.info
    assert (info.backend, info.precision) == (library, "int8")
    assert (info.frame_shape, info.categories) == ((SIDE, SIDE), CATEGORIES)
    assert info.category_mode == "input"


def test_what_decides_effects_is_in_their_key(tmp_path, monkeypatch):
    source, other = named_graph(tmp_path, "one"), named_graph(tmp_path, "input")
    given = bright_and_dark()
    swapped = given._replace(category=given.category[::-1].copy())
    first = (source, ranges_up_to(1.0), given)
    keys = [find_plan.store_key(*first)]
    for i, changed in enumerate((other, ranges_up_to(2.0), swapped)):
        keys.append(find_plan.store_key(*first[:i], changed, *first[i + 1 :]))
    library = find_plan._backend()
    monkeypatch.setattr(find_plan, "_backend", lambda: f"not {library}")
    keys.append(find_plan.store_key(*first))
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)


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
