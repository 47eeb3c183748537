"""One category's prototypes change in every precision, and no other category's numbers do."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.small_graphs import SIDE

from hvq_edge.errors import BundleError
from hvq_edge.export.fp16.convert import to_fp16
from hvq_edge.export.learn.new_prototypes import centres_of, how_many, least_missed
from hvq_edge.export.learn.tables import (
    clipped,
    read_centres,
    tables_of,
    with_tokens,
    write_centres,
)

FEW = 2
FRAMES = np.random.default_rng(1).integers(0, 256, (FEW, SIDE, SIDE, 3), dtype=np.uint8)
PRECISIONS = ("fp32", "int8", "fp16", "int8-fp16")


def opened(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph.SerializeToString())


def outputs_of(
    session: onnxruntime.InferenceSession, category: int, names: list[str] | None = None
) -> list[np.ndarray]:
    given = {"frames": FRAMES, "category": np.full(FEW, category, np.int32)}
    known = {one.name for one in session.get_inputs()}
    return session.run(names, {name: given[name] for name in known & set(given)})


def loaded(graphs, mode: str, precision: str) -> onnx.ModelProto:
    graph = onnx.load(graphs[mode, precision.replace("-fp16", "").replace("fp16", "fp32")])
    return to_fp16(graph) if "fp16" in precision else graph


def new_centres(graphs, mode: str, category: int) -> np.ndarray:
    """Two tokens of the first image, as far as the range of the old prototypes holds them."""
    graph, outputs = with_tokens(onnx.load(graphs[mode, "fp32"]))
    (tokens,) = outputs_of(opened(graph), category, [outputs["prototypes"]])
    most = np.abs(read_centres(graph, "prototypes", None if mode == "one" else category)).max()
    return tokens[0, [1, 5]].clip(-most, most)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_the_category_that_learns_gets_other_numbers(small_graphs, precision):
    before = loaded(small_graphs, "input", precision)
    after = onnx.ModelProto()
    after.CopyFrom(before)
    write_centres(after, "prototypes", 1, [1, 5], new_centres(small_graphs, "input", 1))
    old, new = opened(before), opened(after)
    for one, other in zip(outputs_of(old, 0), outputs_of(new, 0), strict=True):
        np.testing.assert_array_equal(one, other)
    (was, codes), (now, same) = (outputs_of(one, 1, ["map", "codes"]) for one in (old, new))
    assert (was.reshape(FEW, -1)[0, [1, 5]] > now.reshape(FEW, -1)[0, [1, 5]]).all()
    np.testing.assert_array_equal(codes, same)
    changed = {
        tensor.name
        for tensor, other in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if tensor != other
    }
    assert {name.removesuffix("_fp16") for name in changed} == {
        "prototypes.centres",
        "prototypes.bias",
    }


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_graph_of_one_category_learns_as_one_that_is_told_it(small_graphs, precision):
    """There the INT8 table is a weight: a new prototype has a scale of its own."""
    graph = loaded(small_graphs, "one", precision)
    (was,) = outputs_of(opened(graph), 0, ["map"])
    centres = new_centres(small_graphs, "one", 0)
    write_centres(graph, "prototypes", None, [1, 5], centres)
    exact = onnx.load(small_graphs["one", "fp32"])
    write_centres(exact, "prototypes", None, [1, 5], centres)
    np.testing.assert_array_equal(read_centres(exact, "prototypes", None)[[1, 5]], centres)
    (now,), (right,) = (outputs_of(opened(one), 0, ["map"]) for one in (graph, exact))
    off, moved = (np.abs(one - right).reshape(FEW, -1)[0, [1, 5]] for one in (now, was))
    assert (off < 0.5 * moved).all()


def test_what_meets_the_prototypes_can_be_read(small_graphs):
    graph, outputs = with_tokens(onnx.load(small_graphs["auto", "fp32"]))
    assert list(outputs) == ["prototypes"]
    (tokens,) = outputs_of(opened(graph), 0, [outputs["prototypes"]])
    assert tokens.shape == (FEW, (SIDE // 16) ** 2, 192)


def test_values_beyond_the_int8_range_are_counted(small_graphs):
    graph = onnx.load(small_graphs["auto", "int8"])
    centres = read_centres(onnx.load(small_graphs["auto", "fp32"]), "prototypes", 0)
    assert clipped(graph, "prototypes", centres) < 0.01
    assert clipped(graph, "prototypes", np.full_like(centres, 1e6)) == 1
    assert clipped(onnx.load(small_graphs["auto", "fp32"]), "prototypes", centres) == 0


def test_a_graph_without_prototypes_cannot_learn(small_graphs):
    graph = onnx.load(small_graphs["auto", "fp32"])
    kept = [one for one in graph.graph.initializer if not one.name.startswith("prototypes.centres")]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)
    with pytest.raises(BundleError, match="no prototypes"):
        tables_of(graph)


def test_one_of_the_closest_pair_is_missed_least():
    centres = np.array([[0, 0], [9, 9], [0, 0.1], [5, 5], [5, 5.3]], np.float32)
    gone = least_missed(centres, 2)
    assert gone[0] in (0, 2)
    assert gone[1] in (3, 4)
    assert len({*least_missed(centres, 4)}) == 4


def test_few_tokens_replace_few_prototypes():
    assert how_many(1024, 196 * 20) == 128
    assert how_many(1024, 196) == 49
    assert how_many(8, 16) == 1


def test_the_same_tokens_give_the_same_centres():
    tokens = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    one = centres_of(tokens, 10)
    np.testing.assert_array_equal(one, centres_of(tokens, 10))
    assert one.shape == (10, 6)
