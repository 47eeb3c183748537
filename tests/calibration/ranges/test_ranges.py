"""INT8 ranges: what each method chooses, when images are enough, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from helpers.graphs import SIDE
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hvq_edge.calibration.ranges.amax import (
    BINS,
    METHODS,
    MIN_AMAX,
    HistogramCollector,
    choose_amax,
    squared_error,
)
from hvq_edge.calibration.ranges.measure import (
    CONVERGED,
    LEAST,
    LOOK_EVERY,
    MeasuredRanges,
    cached_ranges,
    measure_ranges,
    ranges_key,
    values_on,
)
from hvq_edge.errors import InputError

SEED = st.integers(0, 2**16)


def seen(*batches: np.ndarray) -> HistogramCollector:
    histogram = HistogramCollector()
    for batch in batches:
        histogram.add(np.asarray(batch, np.float32))
    return histogram


def heavy_tailed(seed: int, count: int = 5000) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, count).astype(np.float32)


@given(SEED, st.integers(1, 6), st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_no_value_is_lost_and_the_largest_is_exact(seed, batches, growth):
    rng = np.random.default_rng(seed)
    values = [
        rng.normal(size=200).astype(np.float32) * np.float32(growth**i) for i in range(batches)
    ]
    histogram = seen(*values)
    everything = np.abs(np.concatenate(values))
    assert histogram.counts.sum() == everything.size
    assert histogram.amax == everything.max()
    assert histogram.top >= histogram.amax
    for share in (0.1, 0.5, 0.9):  # a bin's edge divides the values as it says
        edge = histogram.edges[int(share * BINS)]
        counted = histogram.counts[: int(share * BINS) + 1].sum()
        near = np.abs(everything - edge) <= 1e-3 * edge + 1e-12
        assert abs(counted - (everything <= edge).sum()) <= near.sum()


@pytest.mark.parametrize("method", METHODS)
@given(SEED)
@settings(max_examples=8, deadline=None)
def test_every_range_is_above_zero_and_at_most_the_largest(method, seed):
    histogram = seen(heavy_tailed(seed))
    assert 0 < choose_amax(histogram, method) <= histogram.amax


@pytest.mark.parametrize("method", METHODS)
def test_whole_numbers_that_int8_has_are_held_as_they_are(method):
    """Such as 127 less a pixel: -128 .. 127 in steps of 1."""
    whole = np.random.default_rng(0).integers(-128, 128, 5000).astype(np.float32)
    assert choose_amax(seen(whole), method) == 127
    # Not where it would waste steps, and not where a value lies between or beyond.
    for other in (whole / 4 // 1, whole + 0.5, whole - 1):
        assert choose_amax(seen(other), method) != 127


def test_minmax_holds_all_and_percentile_nearly_all():
    values = np.linspace(0, 10, 200_000, dtype=np.float32)
    values[-1] = 1000
    histogram = seen(values)
    assert choose_amax(histogram, "minmax") == 1000
    assert 9.9 < choose_amax(histogram, "percentile") < 11
    outlier_free = seen(-values[:-1])
    assert choose_amax(outlier_free, "percentile") == pytest.approx(10, rel=1e-3)


@given(SEED)
@settings(max_examples=15, deadline=None)
def test_mse_has_the_least_error_of_all(seed):
    histogram = seen(heavy_tailed(seed))
    chosen = np.array([choose_amax(histogram, "mse")])
    others = np.array([choose_amax(histogram, method) for method in METHODS] + [0.5, 1.0, 2.0])
    # It tries 128 ranges: nothing between two of them is better by much.
    assert squared_error(histogram, chosen)[0] <= 1.05 * squared_error(histogram, others).min()


def test_the_error_is_that_of_rounding_the_values():
    values = heavy_tailed(1, 50_000)
    histogram = seen(values)
    for span in (0.2, 0.6, 1.0):
        bound = span * histogram.amax
        scale = bound / 127
        rounded = np.clip(np.rint(values / scale), -127, 127) * scale
        found = squared_error(histogram, np.array([bound]))[0]
        assert found == pytest.approx(np.square(rounded - values).sum(), rel=0.05)


@pytest.mark.parametrize("zeros", [0, 300_000])
def test_entropy_clips_what_is_rare_and_not_what_zeros_outvote(zeros):
    values = np.concatenate(
        [np.random.default_rng(0).normal(size=100_000), [60.0], np.zeros(zeros)]
    )
    assert 2 < choose_amax(seen(values), "entropy") < 20


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("constant", [0.0, 1e-30, 7.0])
def test_a_constant_tensor_has_a_range(method, constant):
    histogram = seen(np.full(300, constant), np.full(300, constant))
    expected = max(constant, MIN_AMAX)
    assert expected / 2 <= choose_amax(histogram, method) <= expected * 1.001


# On a graph.


def brightness_graph(path: Path, gain: float = 1.0) -> Path:
    """The mean colour as ``mean``, ``gain`` times it as ``loud``; its logarithm."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["mean", "gain"], ["loud"]),
        helper.make_node("Log", ["mean"], ["log"]),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", SIDE, SIDE, 3])
    score = helper.make_tensor_value_info("loud", TensorProto.FLOAT, ["n", 3])
    constant = numpy_helper.from_array(np.float32(gain), "gain")
    body = helper.make_graph(nodes, "brightness", [frames], [score], [constant])
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)
    return path


def grey(folder: Path, levels: list[int]) -> list[Path]:
    folder.mkdir()
    paths = []
    for i, level in enumerate(levels):
        paths.append(folder / f"{i:03}.png")
        cv2.imwrite(str(paths[-1]), np.full((SIDE, SIDE, 3), level, np.uint8))
    return paths


def test_ranges_are_those_of_the_images(tmp_path):
    graph = brightness_graph(tmp_path / "g.onnx", 3.0)
    steps = []
    found = measure_ranges(
        graph,
        ["mean", "loud"],
        grey(tmp_path / "p", [40, 200, 90]),
        SIDE,
        on_progress=lambda *step: steps.append(step[:3]),
    )
    assert found.ranges == pytest.approx({"mean": 200, "loud": 600})
    assert (found.images, found.converged) == (3, False)
    assert steps[-1] == ("INT8 ranges", 3, 3)


def test_images_are_read_until_ranges_have_converged(tmp_path):
    graph = brightness_graph(tmp_path / "g.onnx", 3.0)
    levels = [100] * LEAST + [200] * 40
    found = measure_ranges(graph, ["loud"], grey(tmp_path / "early", levels), SIDE)
    assert (found.images, found.ranges["loud"], found.converged) == (LEAST, 300, True)
    levels = [100] * (LEAST - LOOK_EVERY) + [120] * LOOK_EVERY + [121] * LOOK_EVERY + [255] * 40
    found = measure_ranges(graph, ["loud"], grey(tmp_path / "later", levels), SIDE)
    assert (found.images, found.ranges["loud"]) == (LEAST + LOOK_EVERY, 363)
    assert 0 < found.moved < CONVERGED
    assert found.moved == pytest.approx(1 / 121)


def test_ranges_that_move_by_just_the_bound_have_not_converged(tmp_path):
    graph = brightness_graph(tmp_path / "g.onnx", 3.0)
    levels = [99] * (LEAST - LOOK_EVERY) + [100] * 2 * LOOK_EVERY
    steps = []
    images = grey(tmp_path / "p", [*levels, 200])
    found = measure_ranges(
        graph, ["loud"], images, SIDE, on_progress=lambda *step: steps.append(step)
    )
    assert found.images == LEAST + LOOK_EVERY, "3 in 300 is not less than the bound"
    assert steps[-2] == ("INT8 ranges", found.images, len(images))
    assert steps[-1] == ("INT8 ranges", *[len(images)] * 2, f"{found.images} images are enough")
    assert not found.model_copy(update={"moved": CONVERGED}).converged


def coloured(folder: Path, count: int) -> tuple[list[Path], np.ndarray]:
    """Images of one colour each, red, green and blue ``[count, 3]``, beside them."""
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (count, 3), dtype=np.uint8)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path, colour in zip(paths, colours, strict=True):
        cv2.imwrite(str(path), np.broadcast_to(colour[::-1], (SIDE, SIDE, 3)).copy())
    return paths, colours.astype(np.float64)


def category_graph(path: Path) -> Path:
    """Colours as ``flat``, ``tokens`` and ``planes``; ``gained``: times 1, 2 or 3 by category."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["floats"], ["tokens"], axes=[1], keepdims=0),
        helper.make_node("ReduceMean", ["tokens"], ["flat"], axes=[1], keepdims=0),
        helper.make_node("Gather", ["gains", "category"], ["gain"]),
        helper.make_node("Mul", ["flat", "gain"], ["gained"]),
    ]
    inputs = [
        helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", SIDE, SIDE, 3]),
        helper.make_tensor_value_info("category", TensorProto.INT32, ["n"]),
    ]
    output = helper.make_tensor_value_info("gained", TensorProto.FLOAT, ["n", 3])
    gains = numpy_helper.from_array(np.array([[1], [2], [3]], np.float32), "gains")
    body = helper.make_graph(nodes, "colours", inputs, [output], [gains])
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path)
    return path


def test_means_are_those_of_each_channel_over_all_images(tmp_path):
    """Of planes, tokens and single rows, across batches, each image with its own category."""
    graph = category_graph(tmp_path / "g.onnx")
    images, colours = coloured(tmp_path / "p", 6)
    categories = [0, 1, 2, 0, 2, 1]
    tensors = ["planes", "tokens", "flat", "gained"]
    found = measure_ranges(graph, tensors, images, SIDE, categories=categories)
    gained = colours * (1 + np.array(categories)[:, None])
    assert found.means == {
        **{name: pytest.approx(colours.mean(0)) for name in tensors[:3]},
        "gained": pytest.approx(gained.mean(0)),
    }
    assert found.ranges["gained"] == gained.max()
    batches = list(values_on(graph, ["gained", "planes"], images, SIDE, categories))
    assert [path for paths, _ in batches for path in paths] == images
    assert len(batches) > 1
    np.testing.assert_allclose(np.concatenate([values[0] for _, values in batches]), gained)
    assert batches[0][1][1].shape[1:] == (3, SIDE, SIDE), "values are in the order of the names"


def test_what_decides_ranges_is_in_their_key(tmp_path):
    graph = brightness_graph(tmp_path / "g.onnx")
    first = (graph, ["mean"], ["a", "b"], [0, 1], "mse")
    other = brightness_graph(tmp_path / "other.onnx", 2.0)
    changed = [other, ["loud"], ["b", "a"], [1, 0], "minmax"]
    keys = {ranges_key(*first)}
    keys |= {ranges_key(*first[:i], value, *first[i + 1 :]) for i, value in enumerate(changed)}
    assert len(keys) == 1 + len(changed)
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)
    same = brightness_graph(tmp_path / "same.onnx")
    assert ranges_key(same, *first[1:]) in keys, "its content counts, not its name"


def test_a_value_that_is_not_finite_names_tensor_and_image(tmp_path):
    graph = brightness_graph(tmp_path / "g.onnx")
    with pytest.raises(
        InputError, match=r"^the tensor log of g\.onnx .*000\.png, .*001\.png\.\n"
    ) as refused:
        measure_ranges(graph, ["mean", "log"], grey(tmp_path / "p", [9, 0]), SIDE)
    assert refused.value.next_step == "train again; if it stays so, report it as a bug"


def test_what_cannot_be_measured(tmp_path):
    graph = brightness_graph(tmp_path / "g.onnx")
    images = grey(tmp_path / "p", [9])
    with pytest.raises(InputError, match=r"^g\.onnx has no tensors gone, lost\.$"):
        measure_ranges(graph, ["lost", "mean", "gone"], images, SIDE)
    with pytest.raises(InputError, match=r"^INT8 ranges need at least one good image\.$"):
        measure_ranges(graph, ["mean"], [], SIDE)


def test_a_single_step_of_images_is_kept_as_it_was(tmp_path):
    """Nothing has moved yet, and JSON has no infinity."""
    first = MeasuredRanges(method="mse", ranges={"a": 0.5}, images=8, moved=float("inf"))
    measured = []

    def measure() -> MeasuredRanges:
        measured.append(1)
        return first

    for _ in range(2):
        assert cached_ranges(tmp_path / "ranges", "key", measure) == first
    assert len(measured) == 1
    assert not first.converged
