"""What a layer in INT8 costs: the images that show it, its effect, and plans found on the graph."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.graphs import CATEGORIES, SIDE, frames, save_graph

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
from hvq_edge.calibration.search.plan import Budget
from hvq_edge.calibration.search.plan_search import SearchResult
from hvq_edge.data.images import read_frame
from hvq_edge.data.pseudo_defects import KINDS, PseudoDefect
from hvq_edge.errors import InputError


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
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_graph_judges_so_many_images_at_a_time(takes_category, at_once):
    asked = []

    class Echo:
        def run(self, frames, category=None):
            asked.append(category)
            assert len(frames) <= at_once
            level = frames[:, 0, 0, 0].astype(np.float32)
            codes, cells = np.ones((1, 2, 4), np.int32), np.ones((1, 2, 2), np.float32)
            each = level[:, None, None]
            return {
                "codes": (codes * each).astype(int),
                "map": cells * 2 * each,
                "score": 3 * level,
            }

    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 8, 8, 3), np.uint8)
    given = Evidence(images, np.array([2, 0, 1], np.int32), np.zeros(3, bool))
    found = results_on(Echo(), given, takes_category=takes_category, at_once=at_once)
    if takes_category:
        assert [one for category in asked for one in category.tolist()] == [2, 0, 1]
    else:
        assert asked == [None] * -(-3 // at_once), "a graph without the input refuses one"
    assert found.codes[:, 1, 3].tolist() == [0, 1, 2]
    assert found.maps[:, 0, 1].tolist() == [0, 2, 4]
    assert found.scores.tolist() == [0, 3, 6]


def test_a_fourth_of_each_category_and_kind_orders_layers():
    category = np.array([0] * 90 + [1] * 6, np.int32)
    defective = np.arange(96) % 3 > 0
    frames = np.zeros((96, 2, 2, 3), np.uint8)
    few = Evidence(frames, category, defective).thinned()
    counted = [
        ((few.category == k) & (few.defective == bad)).sum() for k in (0, 1) for bad in (0, 1)
    ]
    assert counted == [8, 15, 1, 1]
    small = Evidence(frames[:63], category[:63], defective[:63])
    assert small.thinned() is small


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
    name, version = find_plan._library()
    for part, other in (
        ("_library", (f"not {name}", version)),
        ("_library", (name, f"{version}.1")),
        ("version", "0.0"),
        ("processor_name", "another processor"),
        ("processor_features", "flags: fpu"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(find_plan, part, lambda *_, other=other: other)
            keys.append(find_plan.store_key(*first))
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)
