"""Counts of a graph against counts made in other ways."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from helpers.small_graphs import SIDE, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hvq_edge.errors import HvqEdgeError
from hvq_edge.export.fold.folded import FoldedHVQTrans
from hvq_edge.export.graph.size import graph_size

MODES = ("auto", "input", "one")


def graph_of(
    *nodes: onnx.NodeProto, x: list[int | str], constants: dict[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    """A float graph from ``x`` to the last node's output."""
    kept = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        kept,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


# --- multiply-adds: a product of ones, summed, is the number of its multiplications ---


@st.composite
def convolutions(draw) -> dict:
    groups = draw(st.integers(1, 3))
    kernel = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    dilations = [draw(st.integers(1, 2)) for _ in kernel]
    pads = [draw(st.integers(0, 2)) for _ in range(2 * len(kernel))]
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    return {
        "group": groups,
        "inputs": groups * draw(st.integers(1, 3)),
        "outputs": groups * draw(st.integers(1, 3)),
        "kernel": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in kernel],
        "dilations": dilations,
        "pads": pads,
        "sides": [draw(st.integers(size, size + 4)) for size in reach],
        "bias": draw(st.booleans()),
    }


@settings(deadline=None, max_examples=60)
@given(convolutions())
def test_convolutions_against_a_convolution_of_ones(case):
    axes = len(case["kernel"])
    weight = ones(case["outputs"], case["inputs"] // case["group"], *case["kernel"])
    constants = {"w": weight} | ({"b": ones(case["outputs"])} if case["bias"] else {})
    node = helper.make_node(
        "Conv",
        ["x", *constants],
        ["y"],
        "part/Conv",
        **{name: case[name] for name in ("group", "strides", "dilations", "pads")},
    )
    model = graph_of(node, x=["batch", case["inputs"], *case["sides"]], constants=constants)

    before, after = case["pads"][:axes], case["pads"][axes:]
    flat = [pad for i in reversed(range(axes)) for pad in (before[i], after[i])]
    padded = F.pad(torch.ones(1, case["inputs"], *case["sides"]), flat, value=1.0)
    convolve = F.conv1d if axes == 1 else F.conv2d
    products = convolve(
        padded,
        torch.from_numpy(weight),
        stride=case["strides"],
        dilation=case["dilations"],
        groups=case["group"],
    )
    assert graph_size(model).multiply_adds == int(products.sum())


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([1, 2, 3]), max_size=2),
    st.lists(st.booleans(), min_size=2, max_size=2),
    st.tuples(*[st.integers(1, 5)] * 3),
)
def test_matrix_products_against_a_product_of_ones(stack, kept, sizes):
    rows, inner, columns = sizes
    right = ones(
        *(n if k else 1 for n, k in zip(stack, kept, strict=False)), inner, columns
    )  # some axes broadcast
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "part/MatMul")
    model = graph_of(node, x=["batch", *stack, rows, inner], constants={"w": right})
    expected = np.matmul(ones(1, *stack, rows, inner), right).sum()
    assert graph_size(model).multiply_adds == int(expected)


@pytest.mark.parametrize(("left", "right"), [((), (4,)), ((3,), (4,)), ((), (4, 2))])
def test_products_with_vectors(left, right):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "part/MatMul")
    model = graph_of(node, x=["batch", *left, 4], constants={"w": ones(*right)})
    assert graph_size(model).multiply_adds == int(np.matmul(ones(1, *left, 4), ones(*right)).sum())


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed):
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "part/Gemm", transB=transposed)
    weight = ones(5, 7) if transposed else ones(7, 5)
    model = graph_of(node, x=["batch", 7], constants={"w": weight, "b": ones(5)})
    assert graph_size(model).multiply_adds == 7 * 5


def test_gemm_of_a_transposed_input():
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "part/Gemm", transA=1)
    model = graph_of(node, x=[7, 3], constants={"w": ones(7, 5)})
    assert graph_size(model).multiply_adds == 3 * 7 * 5


@pytest.mark.parametrize("mode", MODES)
@torch.inference_mode()
def test_multiply_adds_are_those_that_pytorch_counts(mode, small_graphs):
    model = small_model()
    folded = FoldedHVQTrans(model, mode, 1 if mode == "one" else None)
    frames = torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8)
    extra = (torch.zeros(1, dtype=torch.int32),) if mode == "input" else ()
    with FlopCounterMode(display=False) as counter:
        folded(frames, *extra)
    flops = counter.get_flop_counts()["Global"]
    size = graph_size(onnx.load(small_graphs[mode, "fp32"]))
    assert 2 * size.multiply_adds == sum(flops.values())


def test_batch_does_not_matter():
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "part/MatMul")
    fixed = graph_of(node, x=[1, 3, 4], constants={"w": ones(4, 5)})
    varying = graph_of(node, x=["batch", 3, 4], constants={"w": ones(4, 5)})
    assert graph_size(fixed) == graph_size(varying)


def test_what_depends_on_constants_alone_is_no_work():
    nodes = (
        helper.make_node("MatMul", ["w", "w"], ["ww"], "part/MatMul"),
        helper.make_node("MatMul", ["x", "ww"], ["y"], "part/MatMul_2"),
    )
    size = graph_size(graph_of(*nodes, x=["batch", 3], constants={"w": ones(3, 3)}))
    assert size.multiply_adds == 9


# --- constants ---


def lookup_graph(**changes: np.ndarray) -> onnx.ModelProto:
    """A code for each of five values, its row, its category's part, a weight and a shape."""
    nodes = (
        helper.make_node("ArgMax", ["x"], ["code"], "codebooks/ArgMax", axis=2, keepdims=0),
        helper.make_node("Gather", ["codes", "code"], ["row"], "codebooks/Gather"),
        helper.make_node("ReduceMax", ["code", "one"], ["category"], "top/ReduceMax", keepdims=0),
        helper.make_node("Gather", ["parts", "category"], ["part"], "output/Gather"),
        helper.make_node("Gather", ["parts_of_row", "zero"], ["fixed"], "output/Gather_2"),
        helper.make_node("Add", ["row", "weight"], ["sum"], "output/Add"),
        helper.make_node("Add", ["sum", "part"], ["with_part"], "output/Add_2"),
        helper.make_node("Add", ["with_part", "fixed"], ["out"], "output/Add_3"),
        helper.make_node("Reshape", ["out", "shape"], ["y"], "top/Reshape"),
    )
    constants = {
        "codes": ones(11, 3),
        "parts": ones(4, 1, 3),
        "parts_of_row": ones(2, 3),
        "weight": ones(3),
        "one": np.array([1]),
        "zero": np.array(0),
        "shape": np.array([-1, 15]),
    }
    return graph_of(*nodes, x=["batch", 5, 11], constants=constants | changes)


def test_tables_are_told_from_weights():
    size = graph_size(lookup_graph())
    assert size.tables == 11 * 3 + 4 * 3  # of the codes, and of the categories
    assert size.weights == 3 + 2 * 3  # a Gather at a fixed place is no look-up
    assert size.nodes == 9


def test_half_precision_has_the_same_numbers():
    node = helper.make_node("Cast", ["w"], ["y"], "top/Cast", to=TensorProto.FLOAT)
    whole, half = (
        graph_size(graph_of(node, x=["batch"], constants={"w": ones(6, 7).astype(dtype)}))
        for dtype in (np.float32, np.float16)
    )
    assert whole.weights == half.weights == 42


@pytest.mark.parametrize("mode", MODES)
def test_int8_has_the_same_numbers(mode, small_graphs):
    whole, small = (
        graph_size(onnx.load(small_graphs[mode, precision])) for precision in ("fp32", "int8")
    )
    assert (small.tables, small.multiply_adds) == (whole.tables, whole.multiply_adds)
    assert small.weights == whole.weights + 2, "the bounds of centred clips"
    assert small.nodes > whole.nodes


def test_table_behind_a_pair_is_a_table():
    table = np.ones((11, 3), np.int8)
    nodes = (
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero_point"], ["float_codes"]),
        helper.make_node("ArgMax", ["x"], ["code"], "codebooks/ArgMax", axis=2, keepdims=0),
        helper.make_node("Gather", ["float_codes", "code"], ["y"], "codebooks/Gather"),
    )
    constants = {"codes": table, "scale": np.float32(0.1), "zero_point": np.int8(0)}
    constants = {name: np.asarray(value) for name, value in constants.items()}
    size = graph_size(graph_of(*nodes, x=["batch", 5, 11], constants=constants))
    assert (size.tables, size.weights) == (33, 0)


# --- what cannot be counted is said ---


def test_unknown_shapes_are_refused():
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "part/MatMul")
    model = graph_of(node, x=["batch", "tokens", 4], constants={"w": ones(4, 5)})
    with pytest.raises(HvqEdgeError, match="shape of y is not known"):
        graph_size(model)


def test_operators_that_are_not_counted_are_refused():
    node = helper.make_node("Einsum", ["x", "w"], ["y"], "part/Einsum", equation="bi,ij->bj")
    with pytest.raises(HvqEdgeError, match="part/Einsum is a Einsum"):
        graph_size(graph_of(node, x=["batch", 4], constants={"w": ones(4, 5)}))


def test_contradicting_shapes_are_refused():
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "part/MatMul")
    with pytest.raises(HvqEdgeError, match="contradict"):
        graph_size(graph_of(node, x=["batch", 3], constants={"w": ones(4, 5)}))
