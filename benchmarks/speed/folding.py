"""What folding does to a graph and its time on a CPU, side by side with the forms it replaces.

    python -m benchmarks.speed.folding runs/latest            # a trained model
    python -m benchmarks.speed.folding --preset paper         # a preset's sizes with random weights

First the graphs: nodes, weights, tables, megabytes, multiply-adds. Then milliseconds an image: the
authors' form (a loop over images, ``authors_form.py``) of this model and of the ``paper`` preset,
which is what they released; our vectorised PyTorch model, and each graph in ONNX Runtime
and OpenVINO. In each round every form judges a few images, so that a busy moment of the machine
meets all of them; ratios are medians over the rounds' own ratios, with the 10th and 90th
percentile.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.paper_graphs import CATEGORIES, random_net
from benchmarks.markdown_table import markdown_table
from benchmarks.speed.authors_form import AuthorsForm, to_sequence
from benchmarks.speed.padim import Padim
from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.common.openvino_core import openvino_core
from hvq_edge.export.graph.onnx_graph import export_graph
from hvq_edge.export.graph.size import graph_numbers
from hvq_edge.model import HVQTrans, load_run
from hvq_edge.run.settings import load_settings
from hvq_edge.runtime.choice.measured_choice import settle
from hvq_edge.runtime.cpu.processor import processor_name

IMAGES_A_ROUND = 3
REFERENCE = "authors' loop"
PAPER = "authors' loop, `paper` size"
Judge = Callable[[np.ndarray], object]


def main() -> None:
    """Export, count, time, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="a finished run")
    parser.add_argument("--preset", choices=("edge", "tiny", "paper"), help="random weights")
    parser.add_argument("--categories", type=int, default=5, help="with --preset")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if (arguments.run is None) == (arguments.preset is None):
        parser.error("give a run, or --preset")
    torch.set_num_threads(arguments.threads)
    preset, categories = arguments.preset, arguments.categories
    model = (
        load_run(arguments.run)[0]
        if arguments.run
        else random_net(load_settings(preset).model, categories)
    )
    with tempfile.TemporaryDirectory() as scratch:
        graphs = export_all(model, Path(scratch))
        print(f"{model.categories} categories, input {model.settings.input_side} px\n")
        print(sizes_table(graphs))
        judges = torch_judges(model)
        for name, path in graphs.items():
            judges[f"ONNX Runtime, {name}"] = onnxruntime_judge(path, arguments.threads)
            judges[f"OpenVINO, {name}"] = openvino_judge(path, arguments.threads)
        other = export_padim(Path(scratch), model.settings.input_side)
        judges["OpenVINO, PaDiM ResNet-18"] = openvino_judge(other, arguments.threads)
        seconds = time_all(judges, model.settings.input_side, arguments.rounds)
    print(
        f"\n{processor_name()}, {arguments.threads} threads, batch 1, {arguments.rounds} rounds\n"
    )
    print(speed_table(seconds))


def export_all(model: HVQTrans, folder: Path) -> dict[str, Path]:
    """Write the graph of one category and of all, folded and as it is."""
    choices: dict[str, tuple[CategoryMode, int | None, dict[str, Any]]] = {
        "one category, nothing folded": ("one", 0, {"plain": True}),
        "one category": ("one", 0, {}),
        "all categories, nothing folded": ("auto", None, {"plain": True}),
        "all categories, no tables": ("auto", None, {"max_table_mb": 0.0}),
        "all categories": ("auto", None, {}),
    }
    graphs: dict[str, Path] = {}
    for name, (mode, category, options) in choices.items():
        graphs[name] = folder / f"{len(graphs)}.onnx"
        export_graph(model, graphs[name], mode, category, **options)
    return graphs


def sizes_table(graphs: dict[str, Path]) -> str:
    """Lay out what each graph holds."""
    rows = []
    for name, path in graphs.items():
        size = graph_numbers(path)
        millions = (size.weights, size.tables, size.bytes, size.multiply_adds)
        rows.append([name, str(size.nodes), *(f"{value / 1e6:.1f}" for value in millions)])
    headings = ["graph", "nodes", "weights (M)", "in tables (M)", "MB", "multiply-adds (M)"]
    return markdown_table(headings, rows)


def torch_judges(model: HVQTrans) -> dict[str, Judge]:
    """Return the authors' form, of the published size too, and ours, in PyTorch."""
    judges = {REFERENCE: authors_judge(model)}
    if model.settings.backbone != load_settings("paper").model.backbone:
        judges[PAPER] = authors_judge(random_net(load_settings("paper").model, CATEGORIES))
    category = torch.zeros(1, dtype=torch.int64)

    @torch.inference_mode()
    def ours(frames: np.ndarray) -> Tensor:
        return model(torch.from_numpy(frames), category)["score"]

    return {**judges, "PyTorch, vectorised": ours}


def authors_judge(model: HVQTrans) -> Judge:
    """Return a model in the authors' form: losses in eval mode too, under ``no_grad``."""
    loop = AuthorsForm(model, dropout=0.0).eval()
    category = torch.zeros(1, dtype=torch.int64)
    side = model.settings.input_side

    @torch.no_grad()
    def judge(frames: np.ndarray) -> Tensor:
        features = loop.features(torch.from_numpy(frames))
        rebuilt = loop.rebuild(features, category)
        heat = loop.anomaly_map(features, rebuilt)
        heat = F.interpolate(heat[:, None], size=side, mode="bilinear", align_corners=True)
        F.mse_loss(rebuilt.features, to_sequence(features))
        return F.avg_pool2d(heat, 16, stride=1).amax((1, 2, 3))

    return judge


def onnxruntime_judge(path: Path, threads: int) -> Judge:
    """Open a graph as the engine does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda frames: session.run(None, {"frames": frames})


def openvino_judge(path: Path, threads: int) -> Judge:
    """Open a graph as the engine does: float32, latency first."""
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino_core().compile_model(path, "CPU", hints).create_infer_request()
    return lambda frames: request.infer({0: frames})


def export_padim(folder: Path, side: int) -> Path:
    """Write PaDiM's graph."""
    torch.manual_seed(0)
    path = folder / "padim.onnx"
    frames = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    graph = torch.onnx.export(Padim(side), (frames,), input_names=["frames"], verbose=False)
    assert graph is not None
    graph.save(path)
    return path


def time_all(judges: dict[str, Judge], side: int, rounds: int) -> dict[str, np.ndarray]:
    """Seconds an image, float64 ``[rounds]`` for each form."""
    frames = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    seconds = {name: np.empty(rounds) for name in judges}
    for judge in judges.values():
        judge(frames)
    for i in range(rounds):
        for name, judge in judges.items():
            settle(partial(judge, frames))
            timed = []
            for _ in range(IMAGES_A_ROUND):
                start = perf_counter()
                judge(frames)
                timed.append(perf_counter() - start)
            seconds[name][i] = np.median(timed)
    return seconds


def speed_table(seconds: dict[str, np.ndarray]) -> str:
    """Lay out medians and ratios."""
    references = [name for name in (REFERENCE, PAPER) if name in seconds]
    rows = []
    for name, values in seconds.items():
        row = [name, f"{np.median(values) * 1e3:.1f}"]
        for reference in references:
            low, middle, high = np.percentile(seconds[reference] / values, [10, 50, 90])
            row.append(f"{middle:.1f} ({low:.1f} .. {high:.1f})")
        rows.append(row)
    return markdown_table(["form", "ms", *(f"times the {name}" for name in references)], rows)


if __name__ == "__main__":
    main()
