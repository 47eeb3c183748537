"""Layers as TensorRT-RTX 1.7 writes them, and what is held against the graph."""

from __future__ import annotations

import pytest

from benchmarks.gpu.compiled_layers import check_layers, parse_layers


def tensors(*types: str) -> str:
    one = (
        "{{ Name: t{0}, Dimensions: [-1,2,3,3], Strides: [18,9,3,1], StrideOrder: [3,2,1,0], "
        "Datatype: {1}, Format: (NHWC) Channel major format }}"
    )
    return "[ " + ", ".join(one.format(i, kind) for i, kind in enumerate(types)) + "]"


def line(name, kind, inputs, constants, outputs, *nodes) -> str:
    separated = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
    return (
        f"Name: {name}_myl0_3, LayerType: {kind}, Inputs: {tensors(*inputs)}, "
        f"Constants: {tensors(*constants)}, Outputs: {tensors(*outputs)}, "
        f"TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: {separated}"
    )


FLOAT, INT8, HALF = "Float", "Int8", "Half"
CONV = line("a/Conv", "correlation", [INT8], [INT8, FLOAT, FLOAT], [FLOAT], "a/Conv", "a/Clip")
EPILOGUE = line("__myl_MulAdd", "kgen", [FLOAT], [FLOAT], [INT8], "a/Conv", "b/QuantizeLinear")
DISTANCE = line("__myl_FcAdd", "runtime_fusion", [FLOAT] * 3, [], [FLOAT], "codebooks.0/MatMul")
WAIT = (
    "Name: __mye10_myl0_7, LayerType: wait, Inputs: [], Constants: [], Outputs: [], "
    "TacticName: , StreamId: 1, EventId: 3, Metadata: "
)


def test_a_log_is_read():
    log = f"Layers:\n{CONV}\n{EPILOGUE}\nPeak memory: 7\n{DISTANCE}\n{WAIT}\nName: of no layer"
    conv, epilogue, distance, wait = parse_layers(log)
    assert (conv.name, conv.kind) == ("a/Conv_myl0_3", "correlation")
    assert conv.inputs == (INT8,)
    assert conv.constants == (INT8, FLOAT, FLOAT)
    assert conv.outputs == (FLOAT,)
    assert conv.nodes == {"a/Conv", "a/Clip"}
    assert conv.factors == {INT8}, "scale and bias are no factors"
    assert (epilogue.is_product, distance.is_product) == (False, True)
    assert (wait.kind, wait.inputs, wait.nodes) == ("wait", (), frozenset())


ATTENTION = line("_gemm_mha_v2", "kgen", [HALF] * 3, [], [HALF], "s/MatMul", "s/MatMul_2", "s/Cast")


def test_layers_as_the_graph_says():
    layers = parse_layers(f"{CONV}\n{EPILOGUE}\n{DISTANCE}\n{ATTENTION}\n{WAIT}")
    factors = {"a/Conv": INT8, "codebooks.0/MatMul": FLOAT, "s/MatMul": HALF, "s/MatMul_2": HALF}
    assert check_layers(layers, factors, {"b/QuantizeLinear"}) == []


def test_attention_in_one_kernel_is_a_product():
    (attention,) = parse_layers(ATTENTION)
    assert (attention.is_product, attention.factors) == (True, {HALF})


def test_a_tiny_product_may_be_elementwise():
    small = parse_layers(line("__myl_MulSum", "kgen", [FLOAT], [FLOAT], [FLOAT], "top/MatMul_3"))
    assert check_layers(small, {"top/MatMul_3": FLOAT}, ()) == []
    for kind in (HALF, INT8):
        assert check_layers(small, {"top/MatMul_3": kind}, ()) == ["top/MatMul_3 is in no product"]


def test_a_tiny_product_may_take_a_cast_of_the_graph_in():
    """What it multiplies with then says the type it is computed in."""
    nodes = ("top/MatMul_7", "x/Cast")
    for constant, faults in ((FLOAT, []), (HALF, ["top/MatMul_7 is in no product"])):
        kernel = parse_layers(line("__myl_CastMulAdd", "kgen", [HALF], [constant], [FLOAT], *nodes))
        assert check_layers(kernel, {"top/MatMul_7": FLOAT}, {"x/Cast"}) == faults
    kernel = parse_layers(line("__myl_CastMulAdd", "kgen", [HALF], [FLOAT], [FLOAT], *nodes))
    assert "top/MatMul_7 is in no product" in check_layers(kernel, {"top/MatMul_7": FLOAT}, ())


@pytest.mark.parametrize(
    ("changed", "factors", "said"),
    [
        ([], {"a/Conv": INT8}, ["a/Conv is in no product"]),
        ([EPILOGUE], {"a/Conv": INT8}, ["a/Conv is in no product"]),
        (
            [line("a/Conv", "correlation", [FLOAT], [FLOAT], [FLOAT], "a/Conv")],
            {"a/Conv": INT8},
            ["a/Conv is Int8 in the graph and computed in Float"],
        ),
        (
            [line("a/Conv", "correlation", [FLOAT], [INT8, FLOAT], [FLOAT], "a/Conv")],
            {"a/Conv": INT8},
            ["a/Conv is Int8 in the graph and computed in Float, Int8"],
        ),
        ([CONV], {"a/Conv": FLOAT}, ["a/Conv is Float in the graph and computed in Int8"]),
        (
            [line("d", "gemm", [HALF, HALF], [FLOAT], [FLOAT], "codebooks.0/MatMul", "x/Cast")],
            {"codebooks.0/MatMul": FLOAT},
            ["codebooks.0/MatMul is Float in the graph and computed in Half"],
        ),
        (
            [line("n", "kgen", [FLOAT], [], [HALF], "norm/LayerNormalization")],
            {},
            ["n_myl0_3 turns Float into Half"],
        ),
    ],
)
def test_what_differs_is_named(changed, factors, said):
    assert check_layers(parse_layers("\n".join(changed)), factors, {"x/Cast"}) == said


@pytest.mark.parametrize(
    "allowed",
    [
        line("c", "kgen", [FLOAT], [], [HALF], "x/Cast"),
        line("u", "kgen", ["UInt8"], [FLOAT], [FLOAT], "frames/Cast"),
        line("g", "kgen", ["Int32"], [HALF], [HALF], "table/Gather"),
    ],
)
def test_type_changes_that_the_graph_has(allowed):
    assert check_layers(parse_layers(allowed), {}, {"x/Cast"}) == []
