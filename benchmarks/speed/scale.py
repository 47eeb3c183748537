"""What grows with categories, images and the side of the map, and what gives first.

    python -m benchmarks.speed.scale                    # all three tables
    python -m benchmarks.speed.scale --only categories --numbers 1 5 15

Weights are random: they take the time and the memory of trained ones. Each row is made in a process
of its own, so that its peak of memory is its own; an engine's memory is what loading it and judging
an image add. Latencies of a row's graph are measured in turns with those of the first row's graph,
and are given as ratios to it.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.paper_graphs import random_net
from benchmarks.markdown_table import markdown_table
from benchmarks.speed.folding import Judge, onnxruntime_judge, openvino_judge
from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.export.graph.onnx_graph import export_graph
from hvq_edge.model import HVQTrans
from hvq_edge.run.settings import load_settings
from hvq_edge.runtime.cpu.processor import processor_name
from hvq_edge.training.batches import shuffled_batches, to_tensor
from hvq_edge.training.fit_prototypes import fit_prototypes
from hvq_edge.training.statistics import fit_feature_statistics
from hvq_edge.training.trainer import Losses

PRESET = "edge"
CATEGORIES = (1, 5, 15, 50, 200)
SIDES = (224, 448)
FEW = 5
"""Categories where something else grows."""
IMAGES = (1_000, 10_000, 100_000)
STEPS = 20
ENGINES: dict[str, Callable[[Path, int], Judge]] = {
    "ONNX Runtime": onnxruntime_judge,
    "OpenVINO": openvino_judge,
}


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=("categories", "sides", "images"))
    parser.add_argument("--numbers", type=int, nargs="+", help="with --only; the first is the unit")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.numbers and not given.only:
        parser.error("--numbers says of which: give --only")
    if min(given.rounds, given.threads, *(given.numbers or [1])) < 1:
        parser.error("--numbers, --rounds and --threads must be at least 1")
    print(f"{processor_name()}, {given.threads} threads, preset {PRESET}, random weights\n")
    with tempfile.TemporaryDirectory() as folder:
        for what, numbers, table in (
            ("categories", CATEGORIES, graphs_table),
            ("sides", SIDES, graphs_table),
            ("images", IMAGES, images_table),
        ):
            if given.only in (None, what):
                print(table(what, given.numbers or numbers, Path(folder), given), end="\n\n")


def graphs_table(what: str, numbers: Sequence[int], folder: Path, given: argparse.Namespace) -> str:
    """Lay out what graphs of more categories, or of larger images, take."""
    forms: list[tuple[int, int, CategoryMode]] = (
        [(SIDES[0], number, "auto") for number in numbers] + [(SIDES[0], numbers[-1], "one")]
        if what == "categories"
        else [(side, FEW, "auto") for side in numbers]
    )
    rows = []
    first: tuple[Path, int] | None = None
    for side, categories, mode in forms:
        path = folder / f"{side}_{categories}_{mode}.onnx"
        exported = alone(export, categories, side, mode, path)
        row = [f"{side}", f"{categories}" if mode == "auto" else f"one of {categories}"]
        row += [f"{exported['seconds']:.0f}", f"{exported['peak'] / 1e3:.1f}"]
        if "fault" in exported:
            rows.append([*row, exported["fault"], *[""] * 2 * len(ENGINES)])
            continue
        first = first or (path, side)
        row.append(f"{path.stat().st_size / 1e6:.0f}")
        for engine in ENGINES:
            grown = alone(judge_once, engine, path, side, given.threads)["grown"]
            found = alone(ratio, engine, (path, side), first, given.threads, given.rounds)
            row += [f"{grown / 1e9:.2f}", found["ratio"]]
        if path != first[0]:
            path.unlink()
        rows.append(row)
    headings = ["side", "categories", "export s", "its peak GB", "graph MB"]
    for engine in ENGINES:
        headings += [f"{engine}: GB", "time"]
    return markdown_table(headings, rows)


def images_table(
    _what: str, numbers: Sequence[int], folder: Path, given: argparse.Namespace
) -> str:
    """Lay out what training on more images takes: cache, memory, prototypes, steps."""
    rows = []
    unit = None
    for number in numbers:
        found = alone(train, number, folder / "features.npy", given.threads)
        unit = unit or found
        rows.append(
            [
                f"{number}",
                f"{found['cache']:.1f}",
                f"{found['fit']:.1f}",
                f"{found['step'] * 1e3:.0f}",
                f"{found['step'] / unit['step']:.2f}",
                f"{found['peak']:.0f}",
            ]
        )
    return markdown_table(
        ["images", "cache GB", "prototypes s", "step ms", "times the first", "peak MB"], rows
    )


def alone(task: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """Run a task in a process of its own; ``peak`` of what it returns is its memory in MB."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(partial(_with_peak, task), *arguments).result()


def _with_peak(task: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    found = task(*arguments)
    return {**found, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def export(categories: int, side: int, mode: CategoryMode, path: Path) -> dict[str, Any]:
    """Write a graph of random weights; a fault is what the exporter says."""
    model = sized(categories, side)
    began = perf_counter()
    try:
        export_graph(model, path, mode, 0 if mode == "one" else None)
    except (ValueError, RuntimeError) as error:  # protobuf's limit among them
        return {"seconds": perf_counter() - began, "fault": f"{type(error).__name__}: {error}"[:60]}
    return {"seconds": perf_counter() - began}


def sized(categories: int, side: int) -> HVQTrans:
    """Return a model of random weights for images of a side."""
    settings = load_settings(PRESET).model.model_copy(update={"input_side": side})
    return random_net(settings, categories)


def judge_once(engine: str, path: Path, side: int, threads: int) -> dict[str, Any]:
    """Load a graph and judge an image; ``grown`` is by how many bytes memory grows at most."""
    before = float(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()
    judge = ENGINES[engine](path, threads)
    judge(frame(side))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"grown": peak - before}


def frame(side: int) -> np.ndarray:
    """Return an image of noise, ``[1, side, side, 3]``."""
    return np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)


def ratio(
    engine: str, here: tuple[Path, int], first: tuple[Path, int], threads: int, rounds: int
) -> dict[str, Any]:
    """Say how many times the first graph's time another one takes, in turns: quartiles."""
    judges = [(ENGINES[engine](path, threads), frame(side)) for path, side in (here, first)]
    found = np.empty((rounds, 2))
    for i in range(-2, rounds):
        for column, (judge, image) in enumerate(judges):
            judge(image)  # wakes its threads
            began = perf_counter()
            judge(image)
            found[max(i, 0), column] = perf_counter() - began
    low, middle, high = np.percentile(found[:, 0] / found[:, 1], (25, 50, 75))
    return {"ratio": f"{middle:.2f} ({low:.2f} to {high:.2f})"}


def train(images: int, cache: Path, threads: int) -> dict[str, Any]:
    """Take some steps on random features of so many images, from a cache on disk."""
    torch.set_num_threads(threads)
    model = sized(FEW, SIDES[0]).requires_grad_(True)
    settings = load_settings(PRESET).training
    shape = (images, model.tiling.tokens, model.raw_channels)
    written = np.lib.format.open_memmap(cache, "w+", np.float16, shape)
    random = np.random.default_rng(0)
    some = random.normal(size=(64, *shape[1:])).astype(np.float16)
    for start in range(0, images, len(some)):
        written[start : start + len(some)] = some[: images - start]
    written.flush()
    features = np.load(cache, mmap_mode="r")
    category = np.arange(images) % FEW
    began = perf_counter()
    fit_feature_statistics(model, features)
    fit_prototypes(model, features, category, seed=0)
    fitted = perf_counter() - began
    losses = Losses(model, settings).train()
    optimizer = torch.optim.AdamW([p for p in losses.parameters() if p.requires_grad])
    times = []
    batches = shuffled_batches(images, settings.batch_size, seed=0, epoch=0)
    for chosen, _ in zip(batches, range(STEPS), strict=False):
        began = perf_counter()
        label = torch.from_numpy(category[chosen])
        found = losses(to_tensor(model, features[chosen]), label)
        optimizer.zero_grad()
        found.total(settings.latent_weight).backward()
        optimizer.step()
        times.append(perf_counter() - began)
    cache.unlink()
    return {"cache": written.nbytes / 1e9, "fit": fitted, "step": float(np.median(times))}


if __name__ == "__main__":
    main()
