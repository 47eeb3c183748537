"""Layers as TensorRT-RTX 1.7 writes them, and what is held against the graph."""

from __future__ import annotations

import pytest

from hvq_edge.export.compiled_layers import check_layers, parse_layers


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


def test_layers_as_the_graph_says():
    layers = parse_layers("\n".join((CONV, EPILOGUE, DISTANCE, WAIT)))
    assert check_layers(layers, {"a/Conv"}, {"b/QuantizeLinear"}) == []


@pytest.mark.parametrize(
    ("changed", "quantised", "said"),
    [
        ([], {"a/Conv"}, ["a/Conv is in no product"]),
        ([EPILOGUE], {"a/Conv"}, ["a/Conv is in no product"]),
        (
            [line("a/Conv", "correlation", [FLOAT], [FLOAT], [FLOAT], "a/Conv")],
            {"a/Conv"},
            ["a/Conv is quantised and computed in Float"],
        ),
        (
            [line("a/Conv", "correlation", [FLOAT], [INT8, FLOAT], [FLOAT], "a/Conv")],
            {"a/Conv"},
            ["a/Conv is quantised and computed in Float, Int8"],
        ),
        ([CONV], set(), ["a/Conv_myl0_3 is computed in Int8 and not quantised"]),
        (
            [line("d", "gemm", [FLOAT, INT8], [FLOAT], [FLOAT], "codebooks.0/MatMul")],
            set(),
            ["d_myl0_3 is computed in Int8 and not quantised"],
        ),
        (
            [line("n", "kgen", [FLOAT], [], [HALF], "norm/LayerNormalization")],
            set(),
            ["n_myl0_3 turns Float into Half"],
        ),
    ],
)
def test_what_differs_is_named(changed, quantised, said):
    assert check_layers(parse_layers("\n".join(changed)), quantised, {"x/Cast"}) == said


@pytest.mark.parametrize(
    "allowed",
    [
        line("c", "kgen", [FLOAT], [], [HALF], "x/Cast"),
        line("u", "kgen", ["UInt8"], [FLOAT], [FLOAT], "frames/Cast"),
        line("g", "kgen", ["Int32"], [HALF], [HALF], "table/Gather"),
    ],
)
def test_type_changes_that_the_graph_has(allowed):
    assert check_layers(parse_layers(allowed), set(), {"x/Cast"}) == []
