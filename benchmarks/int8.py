"""What INT8 changes, layer by layer, and what it is worth to keep layers in float.

    python benchmarks/int8.py RUN             # sets of layers, and ways to choose ranges
    python benchmarks/int8.py RUN --layers    # each layer quantised alone as well

Every graph judges the run's held-out good pictures and is compared with the float32 graph: equal
codes of the worst level, correlation of the maps and of the scores. Times are of batch 1, all
graphs in turn in one run, as ratios to float32.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from markdown_table import markdown_table
from numpy.typing import NDArray

from hvq_edge.calibration.choose_pictures import choose_calibration
from hvq_edge.calibration.int8 import rounded
from hvq_edge.calibration.picture_features import pooled_features
from hvq_edge.calibration.quantise import activations_of, candidates_of, layers_of, quantise_graph
from hvq_edge.calibration.range_methods import METHODS
from hvq_edge.calibration.ranges import measure_ranges
from hvq_edge.data.pictures import read_frame
from hvq_edge.errors import HvqEdgeError
from hvq_edge.export.onnx_graph import export_graph
from hvq_edge.model.checkpoint import load_run
from hvq_edge.runtime.openvino_engine import OpenVinoEngine
from hvq_edge.runtime.processor import processor_name

METHOD = "mse"
_BLOCK = re.compile(r"backbone\.blocks\.(\d+)\.")


class Judged(NamedTuple):
    """What a graph gives on the pictures."""

    codes: NDArray[np.int32]
    maps: NDArray[np.float32]
    scores: NDArray[np.float32]


class Row(NamedTuple):
    """A graph, and how it compares."""

    name: str
    layers: int
    codes: float
    maps: float
    scores: float


def block_of(layer: str) -> int | None:
    """Return the backbone block of a layer; ``None``: it is none of the backbone's."""
    found = _BLOCK.match(layer)
    return -1 if layer.startswith("backbone.stem") else int(found[1]) if found else None


def sets_of(candidates: Sequence[str], chosen: Sequence[str]) -> dict[str, list[str]]:
    """Which layers are quantised, by the name of the set."""
    sets = {"all": list(candidates)}
    for last in (0, 1, 3, 6):
        sets[f"float: backbone to block {last}"] = [
            layer for layer in candidates if (block := block_of(layer)) is None or block > last
        ]
    sets["float: depthwise"] = [layer for layer in candidates if "depthwise" not in layer]
    sets["as exported"] = list(chosen)
    sets["float: backbone"] = [layer for layer in candidates if block_of(layer) is None]
    return sets


def compare(name: str, layers: int, reference: Judged, found: Judged) -> Row:
    """Compare with float32."""
    equal = (reference.codes == found.codes).mean((0, 2)).min()
    maps = np.corrcoef(reference.maps.ravel(), found.maps.ravel())[0, 1]
    scores = np.corrcoef(reference.scores, found.scores)[0, 1]
    return Row(name, layers, float(equal), float(maps), float(scores))


def judge(engine: OpenVinoEngine, frames: NDArray[np.uint8]) -> Judged:
    """Judge pictures one at a time."""
    outputs = [engine.run(frame[None]) for frame in frames]
    joined = (np.concatenate([o[name] for o in outputs]) for name in ("codes", "map", "score"))
    return Judged(*joined)


def time_in_turn(
    engines: dict[str, OpenVinoEngine], frame: NDArray[np.uint8], rounds: int
) -> dict[str, NDArray[np.float64]]:
    """Seconds of each engine's calls, all engines once a round."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 3):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.run(frame)
            if turn >= 3:  # the first calls warm up
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a finished run of hvq-edge train")
    parser.add_argument("--layers", action="store_true", help="each layer alone as well")
    parser.add_argument("--pictures", type=int, default=65, help="held-out pictures, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args(arguments)
    try:
        measure(given.run, given.pictures, given.threads, given.rounds, alone=given.layers)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")


def measure(run: Path, most: int, threads: int, rounds: int, *, alone: bool) -> None:
    """Print the tables of a run."""
    model, record = load_run(run)
    data, side = Path(str(record.data)), record.settings.model.input_side
    held_out = [p for p in record.pictures if p.use == "held_out"]
    held_out = held_out[:: -(-len(held_out) // most)]
    frames = np.stack([read_frame(data / p.path, side) for p in held_out])
    features = pooled_features(run, model, record, data)
    chosen = [data / p.path for p in choose_calibration(record.pictures, features)]
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "fp32.onnx"
        export_graph(model, source, "auto")
        graph = onnx.load(source)
        candidates, exported = candidates_of(graph), layers_of(graph)
        tensors = activations_of(graph, candidates)
        ranges = {m: measure_ranges(source, tensors, chosen, side, method=m) for m in METHODS}

        def opened(path: Path) -> OpenVinoEngine:
            return OpenVinoEngine(
                path,
                precision="fp32",
                input_side=side,
                categories=record.categories,
                category_mode="auto",
                threads=threads,
            )

        def quantised(
            layers: Sequence[str], method: str = METHOD, *, corrected: bool = True
        ) -> OpenVinoEngine:
            path = Path(scratch) / "int8.onnx"
            made = (
                rounded(graph, ranges[method], layers)
                if corrected
                else quantise_graph(graph, ranges[method].ranges, layers)
            )
            onnx.save(made, path)
            return opened(path)

        engines = {"float32": opened(source)}
        reference = judge(engines["float32"], frames)
        sets = sets_of(candidates, exported)
        engines |= {name: quantised(layers) for name, layers in sets.items()}
        seconds = time_in_turn(engines, frames[:1], rounds)
        rows = [
            compare(name, len(sets[name]), reference, judge(engine, frames))
            for name, engine in engines.items()
            if name in sets
        ]
        print(f"{record.settings.preset}, {len(frames)} held-out pictures; {processor_name()}\n")
        print(table_of(rows, {n: np.median(s / seconds["float32"]) for n, s in seconds.items()}))
        print("\nBiases not corrected\n")
        uncorrected = []
        for name in ("all", "as exported", "float: backbone"):
            judged = judge(quantised(sets[name], corrected=False), frames)
            uncorrected.append(compare(name, len(sets[name]), reference, judged))
        print(table_of(uncorrected))
        print("\nRanges, layers as exported\n")
        by_method = [
            compare(method, len(exported), reference, judge(quantised(exported, method), frames))
            for method in METHODS
        ]
        print(table_of(by_method))
        print("\n" + ", ".join(f"{m}: {found.pictures} pictures" for m, found in ranges.items()))
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
