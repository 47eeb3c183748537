"""The PyTorch model on a device: its codes in 16 bits, and its latency in three ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median

import torch

from benchmarks.gpu.gpu_finding import Finding, attempt
from hvq_edge.errors import MissingCapability
from hvq_edge.model.hvq_trans import HVQTrans

WARM_UPS = 10
RUNS = 50
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def check_codes(
    model: HVQTrans, frames: torch.Tensor, device: str, halves: Mapping[str, torch.dtype] = HALVES
) -> Iterator[Finding]:
    """Count the codes that stay what they are in float32, under autocast.

    Args:
        model: a trained one on the device, in eval mode.
        frames: uint8 ``[batch, side, side, 3]`` on the device, of real images.
        device: PyTorch's name of it.
        halves: types to try, by name.
    """
    with torch.inference_mode():
        wanted = model(frames, None)
        category = wanted["category"].to(torch.int64)
        kind = torch.device(device).type
        for name, dtype in halves.items():
            with torch.autocast(kind, dtype=dtype):
                found = model(frames, category)
            equal = (found["codes"] == wanted["codes"]).float().mean().item()
            spread = wanted["score"].float().std().clamp_min(1e-12)
            off = ((found["score"].float() - wanted["score"]).abs().max() / spread).item()
            yield Finding(f"PyTorch {name}: equal codes", "ok", f"{100 * equal:.2f} %", 100 * equal)
            yield Finding(
                f"PyTorch {name}: largest change of a score, in spreads of the scores",
                "ok",
                f"{off:.3f}",
                off,
            )


def check_latency(
    model: HVQTrans, frame: torch.Tensor, device: str, *, runs: int = RUNS
) -> Iterator[Finding]:
    """Time one frame in float32: eager, compiled, and as a CUDA graph.

    Args:
        model: as above.
        frame: uint8 ``[1, side, side, 3]`` on the device.
        device: PyTorch's name of it.
        runs: timed runs of each.
    """
    label = f"PyTorch on {device}, one frame:"
    with torch.inference_mode():
        category = model(frame, None)["category"].to(torch.int64)

        def eager() -> object:
            return model(frame, category)

        yield _timed(f"{label} eager", eager, device, runs)
        yield from attempt(
            f"{label} compiled",
            lambda: [_timed(f"{label} compiled", _compiled(model, frame, category), device, runs)],
        )
        yield from attempt(
            f"{label} CUDA graph",
            lambda: [_timed(f"{label} CUDA graph", _graphed(eager, device), device, runs)],
        )


def _compiled(model: HVQTrans, frame: torch.Tensor, category: torch.Tensor) -> Callable[[], object]:
    compiled = torch.compile(model)
    compiled(frame, category)
    return lambda: compiled(frame, category)


def _graphed(run: Callable[[], object], device: str) -> Callable[[], object]:
    if torch.device(device).type != "cuda":
        raise MissingCapability(f"{device} has no CUDA graphs.")
    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):  # lazy set-up must not be captured
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _timed(what: str, run: Callable[[], object], device: str, runs: int) -> Finding:
    synchronise = torch.cuda.synchronize if torch.device(device).type == "cuda" else (lambda: None)
    for _ in range(min(WARM_UPS, runs)):
        run()
    synchronise()
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        run()
        synchronise()
        seconds.append(time.perf_counter() - began)
    milliseconds = 1e3 * median(seconds)
    return Finding(what, "ok", f"{milliseconds:.2f} ms", milliseconds)
