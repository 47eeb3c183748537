"""What INT8 changes, layer by layer, and what it is worth to keep layers in float.

    python -m benchmarks.accuracy.int8 RUN             # sets of layers, and ways to choose ranges
    python -m benchmarks.accuracy.int8 RUN --layers    # each layer quantised alone as well

Every graph judges the run's held-out good images and is compared with the float32 graph: equal
codes of the worst level, correlation of the maps and of the scores. Times are of batch 1, all
graphs in turn in one run, as ratios to float32. What was tried and is not in ``hvq-edge export`` is
measured as well: channels brought to one range (``equalisation.py``), also on pseudo-defects of the
held-out images, and all that is float computed in bfloat16; and what is exported without
each of its steps: weights rounded together, clips centred, biases corrected.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.accuracy.equalisation import equalise
from benchmarks.markdown_table import markdown_table
from hvq_edge.calibration.images.training_set import choose_calibration, pooled_features
from hvq_edge.calibration.int8 import calibrate_graph, to_int8
from hvq_edge.calibration.quantise import (
    activations_of,
    quantisable_nodes,
    quantise_graph,
)
from hvq_edge.calibration.ranges.amax import METHODS, RangeMethod
from hvq_edge.calibration.ranges.measure import MeasuredRanges, measure_ranges, values_on
from hvq_edge.calibration.search.evidence import GraphResults, gather_evidence
from hvq_edge.calibration.search.plan import default_plan
from hvq_edge.calibration.weights.bias_correction import correct_biases
from hvq_edge.common.openvino_core import openvino_core
from hvq_edge.data.images import read_frame
from hvq_edge.errors import HvqEdgeError
from hvq_edge.export.graph.onnx_graph import export_graph
from hvq_edge.model.checkpoint import load_run
from hvq_edge.run.record import RunRecord
from hvq_edge.run.tiling import FrameSize
from hvq_edge.runtime.contract import Graph
from hvq_edge.runtime.cpu.openvino_engine import OpenVinoEngine
from hvq_edge.runtime.cpu.processor import processor_name

METHOD: RangeMethod = "mse"


class FloatGraph(NamedTuple):
    """A run's float32 graph and what its INT8 files are made from."""

    path: Path
    graph: onnx.ModelProto
    frame_shape: tuple[int, int]
    categories: tuple[str, ...]
    preset: str
    candidates: tuple[str, ...]
    """Layers that could be INT8."""
    exported: tuple[str, ...]
    """Those that are where nothing is searched for."""
    calibration: list[Path]

    def opened(self, path: Path, threads: int) -> OpenVinoEngine:
        """Open this graph, or one made from it."""
        graph = Graph(path, "fp32", self.frame_shape, self.categories, "auto")
        return OpenVinoEngine(graph, threads=threads)


def float_graph(run: Path, folder: Path) -> tuple[FloatGraph, RunRecord]:
    """Export a run to a folder, and choose its calibration images."""
    model, record = load_run(run)
    data = Path(str(record.data))
    source = folder / "fp32.onnx"
    export_graph(model, source, "auto")
    graph = onnx.load(source)
    candidates = quantisable_nodes(graph)
    features = pooled_features(run, model, record, data)
    chosen = [data / one.path for one in choose_calibration(record.images, features)]
    exported = default_plan(candidates).int8_layers(candidates)
    made = FloatGraph(
        path=source,
        graph=graph,
        frame_shape=model.tiling.frame_shape,
        categories=record.categories,
        preset=record.settings.preset,
        candidates=candidates,
        exported=exported,
        calibration=chosen,
    )
    return made, record


class Row(NamedTuple):
    """A graph, and how it compares."""

    name: str
    layers: int
    codes: float
    maps: float
    scores: float


def sets_of(candidates: Sequence[str], chosen: Sequence[str]) -> dict[str, list[str]]:
    """Which layers are quantised, by the name of the set."""
    sets = {"all": list(candidates)}
    sets["float: depthwise"] = [layer for layer in candidates if "depthwise" not in layer]
    sets["as exported"] = list(chosen)
    others = {
        "attention products": r"attention/MatMul",
        "prototype distances": r"^(fine_)?prototypes/",
        "stem": r"^backbone\.stem",
        "backbone to block 3": r"^backbone\.(stem|blocks\.[0-3]\.)",
        "backbone": r"^backbone\.",
        "all but the backbone": r"^(?!backbone)",
    }
    for name, pattern in others.items():
        sets[f"and float: {name}"] = [layer for layer in chosen if not re.search(pattern, layer)]
    return sets


def compare(name: str, layers: int, reference: GraphResults, found: GraphResults) -> Row:
    """Compare with float32."""
    equal = (reference.codes == found.codes).mean((0, 2)).min()
    maps = np.corrcoef(reference.maps.ravel(), found.maps.ravel())[0, 1]
    scores = np.corrcoef(reference.scores, found.scores)[0, 1]
    return Row(name, layers, float(equal), float(maps), float(scores))


def channel_amax(
    graph: Path, tensors: Sequence[str], images: Sequence[Path], size: FrameSize
) -> dict[str, NDArray[np.float64]]:
    """The amax of each channel of tensors on images, ``[channels]`` by tensor."""
    found: dict[str, NDArray[np.float64]] = {}
    for _, values in values_on(graph, tensors, images, size, None):
        for name, value in zip(tensors, values, strict=True):
            channel = 1 if value.ndim == 4 else value.ndim - 1
            others = tuple(axis for axis in range(value.ndim) if axis != channel)
            own = np.abs(value).max(others).astype(np.float64)
            found[name] = np.maximum(found.get(name, 0.0), own)
    return found


def equalised(
    graph: onnx.ModelProto,
    measured: MeasuredRanges,
    amax: dict[str, NDArray[np.float64]],
    layers: Sequence[str],
    pairs: str,
    headroom: float,
) -> onnx.ModelProto:
    """Return the INT8 graph with channels brought to one range where ``pairs`` matches."""
    chosen = [layer for layer in layers if re.search(pairs, layer)]
    made, factors = equalise(graph, amax, chosen, headroom)
    ranges, means = dict(measured.ranges), dict(measured.means)
    for name, factor in factors.items():
        ranges[name] = float((amax[name] * factor).max())
        means[name] = tuple(np.asarray(means[name]) * factor)
    quantised = quantise_graph(made, ranges, layers)
    correct_biases(made, quantised, means, layers)
    return quantised


def bfloat16_engine(path: Path, threads: int) -> Callable[[NDArray[np.uint8]], dict[str, Any]]:
    """Open a graph with all that is float in bfloat16, which no engine of ours does."""
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino_core().compile_model(path, "CPU", hints)
    request = compiled.create_infer_request()
    names = [output.get_any_name() for output in compiled.outputs]

    def run(frames: NDArray[np.uint8]) -> dict[str, Any]:
        found = request.infer({0: frames})
        return {name: np.array(found[i]) for i, name in enumerate(names)}

    return run


def judge(run: Callable[[NDArray[np.uint8]], Any], frames: NDArray[np.uint8]) -> GraphResults:
    """Judge images one at a time."""
    outputs = [run(frame[None]) for frame in frames]
    joined = (np.concatenate([o[name] for o in outputs]) for name in ("codes", "map", "score"))
    return GraphResults(*joined)


def time_in_turn(
    engines: dict[str, Callable[[NDArray[np.uint8]], Any]], frame: NDArray[np.uint8], rounds: int
) -> dict[str, NDArray[np.float64]]:
    """Seconds of each engine's calls, all engines once a round."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 3):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(frame)
            if turn >= 3:  # the first calls warm up
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a finished run of hvq-edge train")
    parser.add_argument("--layers", action="store_true", help="each layer alone as well")
    parser.add_argument("--images", type=int, default=65, help="held-out images, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args(arguments)
    try:
        measure(given.run, given.images, given.threads, given.rounds, alone=given.layers)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")


def measure(run: Path, most: int, threads: int, rounds: int, *, alone: bool) -> None:
    """Print the tables of a run."""
    with tempfile.TemporaryDirectory() as scratch:
        made_from, record = float_graph(run, Path(scratch))
        data, side = Path(str(record.data)), made_from.frame_shape
        held_out = [p for p in record.images if p.use == "held_out"]
        held_out = held_out[:: -(-len(held_out) // most)]
        frames = np.stack([read_frame(data / p.path, side) for p in held_out])
        source, graph, chosen = made_from.path, made_from.graph, made_from.calibration
        candidates, exported = made_from.candidates, made_from.exported
        tensors = activations_of(graph, candidates)
        ranges = {m: calibrate_graph(source, chosen, side, method=m) for m in METHODS}
        # Of the graph as it is, its clips not centred.
        plain_ranges = measure_ranges(source, tensors, chosen, side, method=METHOD)

        def opened(path: Path) -> OpenVinoEngine:
            return made_from.opened(path, threads)

        def written(made: onnx.ModelProto) -> Path:
            path = Path(scratch) / "int8.onnx"
            onnx.save(made, path)
            return path

        def quantised(
            layers: Sequence[str], method: RangeMethod = METHOD
        ) -> Callable[[NDArray[np.uint8]], Any]:
            return opened(written(to_int8(graph, ranges[method], layers))).run

        def without_steps() -> dict[str, onnx.ModelProto]:
            """As exported, one of its steps left out."""
            together = ranges[METHOD]
            one_by_one = together.model_copy(update={"quantised_weights": {}})
            no_means = together.model_copy(update={"means": {}})
            plain = quantise_graph(graph, plain_ranges.ranges, exported)
            corrected = quantise_graph(graph, plain_ranges.ranges, exported)
            correct_biases(graph, corrected, plain_ranges.means, exported)
            return {
                "as exported": to_int8(graph, together, exported),
                "weights rounded one by one": to_int8(graph, one_by_one, exported),
                "biases not corrected": to_int8(graph, no_means, exported),
                "weights one by one, clips not centred": corrected,
                "none of the three": plain,
            }

        engines: dict[str, Callable[[NDArray[np.uint8]], Any]] = {"float32": opened(source).run}
        reference = judge(engines["float32"], frames)
        sets = sets_of(candidates, exported)
        engines |= {name: quantised(layers) for name, layers in sets.items()}
        exported_path = written(to_int8(graph, ranges[METHOD], exported))
        in_bfloat16 = {
            "float32 file in bfloat16": (0, bfloat16_engine(source, threads)),
            "as exported, the rest in bfloat16": (
                len(exported),
                bfloat16_engine(exported_path, threads),
            ),
        }
        engines |= {name: run for name, (_, run) in in_bfloat16.items()}
        seconds = time_in_turn(engines, frames[:1], rounds)
        rows = [
            compare(name, len(sets[name]), reference, judge(engine, frames))
            for name, engine in engines.items()
            if name in sets
        ]
        rows += [
            compare(name, layers, reference, judge(run, frames))
            for name, (layers, run) in in_bfloat16.items()
        ]
        print(f"{record.settings.preset}, {len(frames)} held-out images; {processor_name()}\n")
        print(table_of(rows, {n: np.median(s / seconds["float32"]) for n, s in seconds.items()}))
        print("\nAs exported, without its steps\n")
        stepwise = [
            compare(name, len(exported), reference, judge(opened(written(made)).run, frames))
            for name, made in without_steps().items()
        ]
        print(table_of(stepwise))
        print("\nChannels brought to one range; two pseudo-defects of each image too\n")
        names = [record.categories.index(p.category) for p in held_out]
        evidence = gather_evidence([data / p.path for p in held_out], names, side).frames
        float_judged = judge(engines["float32"], evidence)
        amax = channel_amax(source, tensors, chosen[: plain_ranges.images], side)

        def nearest(layers: Sequence[str]) -> GraphResults:
            """Weights rounded one by one, as where channels are brought to one range."""
            made = quantise_graph(graph, plain_ranges.ranges, layers)
            correct_biases(graph, made, plain_ranges.means, layers)
            return judge(opened(written(made)).run, evidence)

        plain = nearest(exported)
        one_range = [compare("as exported", len(exported), float_judged, plain)]
        tried = {
            "feed-forward": (exported, "linear2", 1.0),
            "backbone too": (exported, "", 1.0),
            "backbone too, headroom 2": (exported, "", 2.0),
            "backbone too, headroom 2, all layers": (candidates, "", 2.0),
        }
        for name, (layers, pairs, headroom) in tried.items():
            made = equalised(graph, plain_ranges, amax, layers, pairs, headroom)
            judged = judge(opened(written(made)).run, evidence)
            one_range.append(compare(name, len(layers), float_judged, judged))
        one_range.append(compare("all layers", len(candidates), float_judged, nearest(candidates)))
        print(table_of(one_range))
        print("\nRanges, layers as exported\n")
        by_method = [
            compare(method, len(exported), reference, judge(quantised(exported, method), frames))
            for method in METHODS
        ]
        print(table_of(by_method))
        print("\n" + ", ".join(f"{m}: {found.images} images" for m, found in ranges.items()))
        if alone:
            single = [
                compare(layer, 1, reference, judge(quantised([layer]), frames))
                for layer in candidates
            ]
            print("\nEach layer alone, the worst first\n")
            print(table_of(sorted(single, key=lambda row: row.maps)))


def table_of(rows: Sequence[Row], ratios: dict[str, float] | None = None) -> str:
    """Lay rows out."""
    headings = ["", "int8 layers", "equal codes (%)", "map correlation", "score correlation"]
    lines = [
        [
            row.name,
            str(row.layers),
            f"{100 * row.codes:.1f}",
            f"{row.maps:.4f}",
            f"{row.scores:.4f}",
        ]
        for row in rows
    ]
    if ratios is not None:
        headings.append("time / float32")
        lines = [[*line, f"{ratios[row.name]:.2f}"] for line, row in zip(lines, rows, strict=True)]
    return markdown_table(headings, lines)


if __name__ == "__main__":
    main()
