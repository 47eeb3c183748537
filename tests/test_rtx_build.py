"""All four files of a trained model become TensorRT-RTX engines, on a machine without a GPU.

That INT8 is INT8 there is read from the layers that the builder lists. TensorRT-RTX is not
TensorRT: it shares the parser's family and the strong typing, and nothing here says how fast or how
exact an engine of TensorRT is.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import onnx
import pytest

from hvq_edge.export.graph_view import module_of
from hvq_edge.export.lint_precision import FLOAT_MODULES

trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'hvq-edge[rtx]'")


class Built(NamedTuple):
    """An engine and what the builder says of it."""

    engine: bytes
    layers: list[str]
    """A line each, with the types of inputs and outputs."""


def build(path: Path) -> Built:
    """Build for SM86; the parser's errors are the failure's text."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity: object, message: str) -> None:
            self.lines += message.splitlines()

    log = Log()
    builder = trt.Builder(log)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse_from_file(str(path))
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    frames = network.get_input(0)
    shapes = [(batch, *tuple(frames.shape)[1:]) for batch in (1, 1, 4)]
    profile.set_shape(frames.name, *shapes)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, [line for line in log.lines if "rror" in line]
    layers = [line for line in log.lines if line.startswith("Name: ") and "LayerType" in line]
    return Built(bytes(engine), layers)


def quantised(path: Path) -> set[str]:
    graph = onnx.load(path).graph
    pairs = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    return {n.name for n in graph.node if len(n.input) > 1 and n.input[1] in pairs}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8-fp16"])
def test_every_file_becomes_an_engine_of_its_types(four_files, precision):
    path = four_files.model_file(precision)
    built = build(path)
    assert len(built.engine) > 1_000_000
    kernels = [line for line in built.layers if "LayerType: " in line]
    assert len(kernels) > 50
    products = [
        line
        for line in kernels
        if any(f"LayerType: {kind}," in line for kind in ("correlation", "gemm"))
    ]
    in_int8 = {
        name for name in quantised(path) for line in products if name in line and "Int8" in line
    }
    if precision.startswith("int8"):
        # A layer that the builder merged with a neighbour goes by another name: few of them.
        assert len(in_int8) >= 0.8 * len(quantised(path))
        for name in quantised(path):
            for line in products:
                if line.startswith(f"Name: {name}"):
                    assert "Datatype: Int8" in line.split("Outputs:")[0], line
    else:
        assert not any("Int8" in line.replace("UInt8", "") for line in kernels)
    for line in products:
        name = line.removeprefix("Name: ").partition(",")[0]
        module = module_of(onnx.NodeProto(name=name)).partition(".")[0]
        if module in FLOAT_MODULES:
            assert "Int8" not in line, line
            assert "Half" not in line, line
    halves = any("Datatype: Half" in line for line in products)
    assert halves == ("fp16" in precision)
