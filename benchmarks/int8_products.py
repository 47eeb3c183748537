"""INT8 for products of two activations, which `hvq-edge export` leaves in float.

    python benchmarks/int8_products.py RUN

Attention (queries with keys, weights with values) and prototype distances: both factors of each
product get a Q/DQ pair with one scale, on top of the layers that are exported in INT8. Every graph
judges held-out good pictures and two pseudo-defects of each, and is compared with the float32 graph
as in benchmarks/int8.py, here in ONNX Runtime, which computes any of them; times are OpenVINO's,
batch 1, all graphs that it can load in turn in one run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from int8 import METHOD, compare, judge, time_in_turn
from markdown_table import markdown_table
from onnx import ModelProto, helper, numpy_helper

from hvq_edge.calibration.choose_pictures import choose_calibration
from hvq_edge.calibration.evidence import gather_evidence
from hvq_edge.calibration.int8 import rounded
from hvq_edge.calibration.picture_features import pooled_features
from hvq_edge.calibration.quantise import activations_of, layers_of
from hvq_edge.calibration.ranges import measure_ranges
from hvq_edge.errors import HvqEdgeError
from hvq_edge.export.onnx_graph import export_graph
from hvq_edge.model.checkpoint import load_run
from hvq_edge.runtime.onnxruntime_engine import OnnxRuntimeEngine
from hvq_edge.runtime.openvino_engine import OpenVinoEngine
from hvq_edge.runtime.processor import processor_name

LARGEST = 127
ATTENTION = ("self_attention/MatMul", "cross_attention/MatMul")
PROTOTYPES = ("prototypes/MatMul",)


def products_of(graph: ModelProto, modules: Sequence[str]) -> tuple[str, ...]:
    """Name the products of two activations whose name has one of ``modules``."""
    constants = {tensor.name for tensor in graph.graph.initializer}
    return tuple(
        node.name
        for node in graph.graph.node
        if node.op_type == "MatMul"
        and any(part in node.name for part in modules)
        and not constants & set(node.input)
    )


def factors_of(graph: ModelProto, products: Sequence[str]) -> tuple[str, ...]:
    """Name the tensors that products multiply, each once."""
    read = (name for node in graph.graph.node if node.name in products for name in node.input)
    return tuple(dict.fromkeys(read))


def round_products(
    graph: ModelProto, ranges: Mapping[str, float], products: Sequence[str]
) -> ModelProto:
    """Return a graph with a Q/DQ pair before both factors of each product."""
    made = ModelProto()
    made.CopyFrom(graph)
    body = made.graph
    nodes = list(body.node)
    del body.node[:]
    body.initializer.append(numpy_helper.from_array(np.int8(0), "product_zero"))
    paired: dict[str, str] = {}
    for node in nodes:
        if node.name in products:
            for place, name in enumerate(node.input):
                if name not in paired:
                    paired[name] = f"{name}_product"
                    scale = np.float32(ranges[name] / LARGEST)
                    body.initializer.append(numpy_helper.from_array(scale, f"{name}_product_scale"))
                    inputs = [f"{name}_product_scale", "product_zero"]
                    for operator, source, target in (
                        ("QuantizeLinear", name, f"{name}_steps"),
                        ("DequantizeLinear", f"{name}_steps", paired[name]),
                    ):
                        body.node.append(
                            helper.make_node(
                                operator, [source, *inputs], [target], f"{target}/{operator}"
                            )
                        )
                node.input[place] = paired[name]
        body.node.append(node)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a finished run of hvq-edge train")
    parser.add_argument("--pictures", type=int, default=20, help="held-out pictures, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args(arguments)
    try:
        measure(given.run, given.pictures, given.threads, given.rounds)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")


def measure(run: Path, most: int, threads: int, rounds: int) -> None:
    """Print the table of a run."""
    model, record = load_run(run)
    data, side = Path(str(record.data)), record.settings.model.input_side
    held_out = [p for p in record.pictures if p.use == "held_out"]
    held_out = held_out[:: -(-len(held_out) // most)]
    categories = [record.categories.index(p.category) for p in held_out]
    frames = gather_evidence([data / p.path for p in held_out], categories, side).frames
    features = pooled_features(run, model, record, data)
    chosen = [data / p.path for p in choose_calibration(record.pictures, features)]
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "fp32.onnx"
        export_graph(model, source, "auto")
        graph = onnx.load(source)
        layers = layers_of(graph)
        both = products_of(graph, (*ATTENTION, *PROTOTYPES))
        tensors = (*activations_of(graph, layers), *factors_of(graph, both))
        measured = measure_ranges(
            source, tuple(dict.fromkeys(tensors)), chosen, side, method=METHOD
        )
        exported = rounded(graph, measured, layers)
        sets = {
            "as exported": (),
            "prototype distances too": products_of(graph, PROTOTYPES),
            "attention products too": products_of(graph, ATTENTION),
            "both too": both,
        }
        graphs = {"float32": graph} | {
            name: round_products(exported, measured.ranges, products)
            for name, products in sets.items()
        }
        about = {
            "precision": "fp32",
            "input_side": side,
            "categories": record.categories,
            "category_mode": "auto",
            "threads": threads,
        }
        judged, engines = {}, {}
        for name, made in graphs.items():
            path = Path(scratch) / "graph.onnx"
            onnx.save(made, path)
            with OnnxRuntimeEngine(path, **about) as engine:
                judged[name] = judge(engine.run, frames)
            try:
                engines[name] = OpenVinoEngine(path, **about).run
            except HvqEdgeError as error:
                print(f"{name}: {error.cause}\n", file=sys.stderr)
        seconds = time_in_turn(engines, frames[:1], rounds)
    rows = []
    for name, products in sets.items():
        row = compare(name, len(products), judged["float32"], judged[name])
        ratio = np.median(seconds[name] / seconds["float32"]) if name in seconds else None
        rows.append(
            [
                name,
                str(row.layers),
                f"{100 * row.codes:.1f}",
                f"{row.maps:.4f}",
                f"{row.scores:.4f}",
                "not loaded" if ratio is None else f"{ratio:.2f}",
            ]
        )
    headings = ["", "int8 products", "equal codes (%)", "map correlation", "score correlation"]
    print(f"{record.settings.preset}, {len(frames)} pictures; {processor_name()}\n")
    print(markdown_table([*headings, "time / float32"], rows))


if __name__ == "__main__":
    main()
