"""Ours beside the graphs of other methods, each at its best: float32 and INT8, two engines.

    make peers                                      # theirs, into .peers/graphs
    python -m benchmarks.speed.peers .peers/graphs
    ONEDNN_MAX_CPU_ISA=AVX2 python -m benchmarks.speed.peers .peers/graphs --float32

The last takes a processor's newer instructions away from OpenVINO, as an older one lacks them;
where it still chooses bfloat16, some of their graphs fail then, so that is switched off.

Theirs are what anomalib exports and NNCF quantises (``peer_graphs.py``), ours are ``edge`` and
``tiny`` with random weights: for one product, and for five with the category chosen in the graph.
Theirs serve one product each, but for Dinomaly. So there are two tables. In the second, five
graphs of a method are open and take turns, as the products of a mixed line do; where nothing
says which product is in front of the camera, all five must run.

In each round every graph runs untimed until the threads of the one before sleep, and once timed, so
that a busy moment of the machine meets all of them. Ratios are taken within a round; printed are
medians, with quartiles. Ours keep float32 around int8. Theirs are also run as OpenVINO likes: left
alone, it computes float layers in bfloat16 where the processor has it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from benchmarks.gpu.paper_graphs import random_net, save_graphs
from benchmarks.markdown_table import markdown_table
from benchmarks.speed.peer_graphs import RECORD
from hvq_edge.bench.measure import busy_warning
from hvq_edge.bench.peer_graph import open_peer
from hvq_edge.bench.rounds import Seconds, time_rounds
from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.calibration.images.calibration_image import CalibrationImage
from hvq_edge.common.atomic import sha256_of
from hvq_edge.export.precision_files import FILE_NAMES, PrecisionOptions
from hvq_edge.run.settings import load_settings
from hvq_edge.runtime.cpu.processor import load_average, processor_name, usable_cpus

PRODUCTS = 5
CALIBRATION_IMAGES = 2
OURS = "edge"
"""The row that the others are compared with."""
FREE = "OpenVINO, free"
FLOAT_FORMS = ("OpenVINO, float32", FREE, "ONNX Runtime, float32")
INT8_FORMS = ("OpenVINO, INT8", "ONNX Runtime, INT8")
FORMS = (*FLOAT_FORMS, *INT8_FORMS)
IN_TURN = "in turn"

Call = Callable[[], object]


class Graph(NamedTuple):
    """One method's files for one product, or for all."""

    name: str
    files: dict[str, Path]
    """By form: ours have no :data:`FREE`."""
    exact: bool
    """Float layers of its INT8 file stay float32."""
    alone: bool
    """It serves one product; otherwise all."""


class Row(NamedTuple):
    """What was measured of one graph with one number of threads."""

    one: dict[str, Seconds]
    """Seconds of each form, ``[rounds, 1]``."""
    mixed: Seconds | None
    """In INT8, of an image that may be of any product; ``None`` of ours for a single one."""


def peers_of(folder: Path) -> tuple[list[Graph], dict[str, str]]:
    """Return the graphs that ``peer_graphs.py`` wrote, and the versions that it wrote them with."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    graphs = []
    for row in record["peers"]:
        at = folder / row["folder"]
        files = dict.fromkeys(FLOAT_FORMS, at / "fp32.onnx")
        files |= {INT8_FORMS[0]: at / "int8.xml", INT8_FORMS[1]: at / "int8.onnx"}
        graphs.append(Graph(row["name"], files, exact=False, alone=row["products"] == 1))
    return graphs, record["versions"]


def write_ours(presets: Iterable[str], folder: Path) -> list[Graph]:
    """Write our graphs with random weights: of each preset one product's, then all products'."""
    graphs = []
    for preset in presets:
        net = random_net(load_settings(preset).model, PRODUCTS)
        images = _noise(folder, net.settings.input_side)
        modes: dict[CategoryMode, str] = {"one": preset, "auto": f"{preset}, {PRODUCTS} products"}
        for mode, name in modes.items():
            at = folder / preset / mode
            options = PrecisionOptions(int8=True, ranges="minmax")
            save_graphs(net, at, images, mode=mode, options=options)
            files = {form: at / FILE_NAMES["fp32"] for form in FLOAT_FORMS if form != FREE}
            files |= dict.fromkeys(INT8_FORMS, at / FILE_NAMES["int8"])
            graphs.append(Graph(name, files, exact=True, alone=mode == "one"))
    return graphs


def _noise(folder: Path, side: int) -> list[CalibrationImage]:
    images = []
    for seed in range(CALIBRATION_IMAGES):
        path = folder / f"{seed}.png"
        pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
        cv2.imwrite(str(path), pixels)
        images.append(CalibrationImage(path, "noise", sha256_of(path)))
    return images


def measure(
    graphs: Sequence[Graph], threads: int, rounds: int, *, float32: bool = False
) -> dict[str, Row]:
    """Time all graphs side by side; return a row for each name."""
    with ExitStack() as stack:
        calls: dict[str, Call] = {}
        for graph in graphs:
            for form, path in graph.files.items():
                calls[f"{graph.name}: {form}"] = _opened(graph, form, path, threads, stack, float32)
            if graph.alone and not graph.exact:
                calls[f"{graph.name}: {IN_TURN}"] = _in_turn(graph, threads, float32)
        seconds = time_rounds(calls, rounds, runs_a_round=1, warm_ups=1)
    rows = {}
    for graph in graphs:
        own = {form: seconds[f"{graph.name}: {form}"] for form in graph.files}
        in_turn = seconds.get(f"{graph.name}: {IN_TURN}")
        rows[graph.name] = Row(own, in_turn if graph.alone else own[INT8_FORMS[0]])
    return rows


def _opened(
    graph: Graph,
    form: str,
    path: Path,
    threads: int,
    stack: ExitStack,
    float32: bool,
) -> Call:
    if form == FREE or (form == INT8_FORMS[0] and not graph.exact):
        return _free(path, threads, float32)
    backend = "openvino" if form.startswith("OpenVINO") else "onnxruntime"
    opened = stack.enter_context(open_peer(path, backend, threads, side=0))
    return opened.call(1)


def _free(path: Path, threads: int, float32: bool) -> Call:
    """Open a graph with OpenVINO's own choice of the precision of float layers, or in float32."""
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if float32:
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = _core().compile_model(path, "CPU", properties)
    image = np.random.default_rng(0).random(compiled.input(0).shape).astype(np.float32)
    request = compiled.create_infer_request()
    return lambda: request.infer([image])


@cache
def _core() -> Any:  # noqa: ANN401  # OpenVINO is untyped
    """Return OpenVINO's core, under which five of one file share no memory: as five files."""
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})
    return core


def _in_turn(graph: Graph, threads: int, float32: bool) -> Call:
    """Open the graphs of all products; return a call that runs each once."""
    each = [_free(graph.files[INT8_FORMS[0]], threads, float32) for _ in range(PRODUCTS)]
    return lambda: [call() for call in each]


def spread(seconds: Seconds, reference: Seconds, times: float = 1.0) -> str:
    """Lay out how many times as long the one takes: median and quartiles of the rounds."""
    low, middle, high = np.percentile(times * seconds / reference, [25, 50, 75])
    return f"{middle:.2f} ({low:.2f} .. {high:.2f})"


def one_product(rows: Mapping[str, Row], names: Sequence[str]) -> str:
    """Lay out milliseconds of each form, and the fastest form beside the INT8 of :data:`OURS`."""
    reference = rows[OURS].one[INT8_FORMS[0]]
    lines = []
    for name in names:
        own = rows[name].one
        cells = [f"{_ms(own[form]):.1f}" if form in own else "" for form in FORMS]
        lines.append([name, *cells, spread(min(own.values(), key=_ms), reference)])
    return markdown_table(["ms", *FORMS, f"fastest / {OURS} INT8"], lines)


def _ms(seconds: Seconds) -> float:
    return float(np.median(seconds)) * 1e3


def all_products(rows: Mapping[str, Row], graphs: Sequence[Graph]) -> str:
    """Lay out milliseconds in INT8 in OpenVINO when several products are served."""
    reference = rows[f"{OURS}, {PRODUCTS} products"].mixed
    assert reference is not None
    lines = []
    for graph in graphs:
        seconds = rows[graph.name].mixed
        if seconds is None:
            continue
        known = 1 / PRODUCTS if graph.alone else 1.0
        lines.append(
            [
                graph.name,
                str(PRODUCTS if graph.alone else 1),
                f"{_ms(seconds) * known:.1f}",
                spread(seconds, reference, known),
                f"{_ms(seconds):.1f}",
                spread(seconds, reference),
            ]
        )
    times = f"times {OURS}"
    headings = ["INT8, OpenVINO", "graphs", "product known: ms", times, "not known: ms", times]
    return markdown_table(headings, lines)


def main() -> None:
    """Write ours, time all, print two tables for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peers", type=Path, help="what peer_graphs.py wrote")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--float32", action="store_true", help="float layers of all in float32")
    given = parser.parse_args()
    for warning in busy_warning(load_average(), usable_cpus()):
        print(f"Warning: {warning}.\n")
    peers, versions = peers_of(given.peers)
    with tempfile.TemporaryDirectory() as scratch:
        graphs = [*write_ours(("edge", "tiny"), Path(scratch)), *peers]
        written = ", ".join(f"{name} {number}" for name, number in versions.items())
        print(f"{processor_name()}, batch 1, {given.rounds} rounds; theirs by {written}")
        for threads in given.threads:
            rows = measure(graphs, threads, given.rounds, float32=given.float32)
            alone = [graph.name for graph in graphs if graph.alone or not graph.exact]
            print(f"\nOne product, threads: {threads}\n\n{one_product(rows, alone)}")
            print(f"\n{PRODUCTS} products, threads: {threads}\n\n{all_products(rows, graphs)}")


if __name__ == "__main__":
    main()
