"""Engines built on a GPU and run there: their results against ONNX Runtime's, and their time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.gpu.gpu_finding import Finding, attempt
from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.export.build.run import build_run
from hvq_edge.runtime.cuda.device import CudaDevice
from hvq_edge.runtime.cuda.memory import CudaMemory, open_cuda_memory
from hvq_edge.runtime.engine import Engine, Frames
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.runtime.run_ahead import run_ahead
from hvq_edge.runtime.tensorrt.engine import TensorRTEngine
from hvq_edge.runtime.tensorrt.engine_file import EngineBackend
from hvq_edge.runtime.tensorrt.find_engine import open_tensorrt
from hvq_edge.runtime.tensorrt.library import load_backend

RUNS = 50
WARM_UPS = 10


def check_engines(
    bundle: Bundle,
    backend: EngineBackend,
    frames: Frames,
    device: Callable[[], CudaDevice],
    *,
    load: Callable[[EngineBackend], Any] = load_backend,
    memory: Callable[[], CudaMemory] = open_cuda_memory,
    runs: int = RUNS,
) -> Iterator[Finding]:
    """Build each precision of a copy of a bundle and run it.

    Args:
        bundle: of category mode ``auto`` or one category.
        backend: the library.
        frames: uint8 ``[batch, side, side, 3]``, of real images.
        device: gives this machine's GPU.
        load: gives the library's module.
        memory: gives GPU memory.
        runs: timed runs of each.
    """
    load(backend)  # where it is missing, that is said once and not for each precision
    with tempfile.TemporaryDirectory(prefix="hvq-edge-gpu-check-") as folder:
        copy = Path(folder) / "bundle"
        shutil.copytree(bundle.path, copy, ignore=shutil.ignore_patterns("engines"))
        own = open_bundle(copy)
        for precision in own.manifest.models:
            yield from attempt(
                f"{backend} {precision}",
                partial(_one, own, backend, precision, frames, device, load, memory, runs),
            )


def _one(
    bundle: Bundle,
    backend: EngineBackend,
    precision: Precision,
    frames: Frames,
    device: Callable[[], CudaDevice],
    load: Callable[[EngineBackend], Any],
    memory: Callable[[], CudaMemory],
    runs: int,
) -> Iterator[Finding]:
    label = f"{backend} {precision}"
    built = build_run(
        bundle.path, backend=backend, precision=precision, load=load, device=device
    ).record
    yield Finding(f"{label}: build", "ok", f"{built.build_seconds:.1f} s", built.build_seconds)

    def opened(cuda_graphs: bool) -> TensorRTEngine:
        return open_tensorrt(
            bundle,
            backend,
            precision,
            load=load,
            device=device,
            memory=memory,
            cuda_graphs=cuda_graphs,
        )

    with opened(cuda_graphs=False) as engine:
        yield from _against_the_graph(label, bundle, precision, engine, frames)
        yield _latency(f"{label}: one frame", engine, frames[:1], runs)
        yield _rate(f"{label}: frames a second, one ahead", engine, frames[:1], runs)
    with opened(cuda_graphs=True) as engine:
        finding = _latency(f"{label}: one frame, CUDA graph", engine, frames[:1], runs)
        if engine.uses_cuda_graphs:
            yield finding
            yield from _against_the_graph(f"{label}, CUDA graph", bundle, precision, engine, frames)
        else:
            why = "the memory library has none, or the engine cannot be captured"
            yield Finding(f"{label}: one frame, CUDA graph", "not run", why)


def _against_the_graph(
    label: str, bundle: Bundle, precision: Precision, engine: Engine, frames: Frames
) -> Iterator[Finding]:
    with open_engine(bundle, precision=precision, backend="onnxruntime") as reference:
        wanted = reference.run(frames)
    found = engine.run(frames)
    equal = 100 * float(np.mean(found["codes"] == wanted["codes"]))
    spread = max(float(wanted["score"].std()), 1e-12)
    off = float(np.abs(found["score"] - wanted["score"]).max()) / spread
    yield Finding(f"{label}: codes equal to ONNX Runtime's", "ok", f"{equal:.2f} %", equal)
    yield Finding(
        f"{label}: largest change of a score, in spreads of the scores", "ok", f"{off:.3f}", off
    )


def _latency(what: str, engine: Engine, frame: Frames, runs: int) -> Finding:
    for _ in range(WARM_UPS):
        engine.run(frame)
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        engine.run(frame)
        seconds.append(time.perf_counter() - began)
    milliseconds = 1e3 * median(seconds)
    return Finding(what, "ok", f"{milliseconds:.2f} ms", milliseconds)


def _rate(what: str, engine: Engine, frame: Frames, runs: int) -> Finding:
    began = time.perf_counter()
    for _ in run_ahead(engine, [frame] * runs):
        pass
    rate = runs / (time.perf_counter() - began)
    return Finding(what, "ok", f"{rate:.0f}", rate)
