"""What works on this machine's GPU, and how fast: run it and send us the JSON.

    python -m benchmarks.gpu.gpu_check runs/demo

With a trained run and its bundle (`hvq-edge export --int8 --fp16`): GPU memory, streams and graphs
through PyCUDA and cuda-python; TensorRT and TensorRT-RTX engines built here and held against ONNX
Runtime; the PyTorch model's codes in float16 and bfloat16, and its latency eager, compiled and as a
CUDA graph. What is not installed is listed as not run, with the reason. It takes minutes, changes
nothing in the run, and ends with 0, with 1 where something failed, and with 3 without a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.as_json import versions_of
from benchmarks.gpu.gpu_finding import Finding, attempt
from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.common.atomic import write_text
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.errors import DatasetError, HvqEdgeError, MissingCapability
from hvq_edge.run.record import BUNDLE_FOLDER, read_run
from hvq_edge.runtime.cuda.cuda_python_memory import CudaPythonMemory
from hvq_edge.runtime.cuda.device import CudaDevice, cuda_device
from hvq_edge.runtime.cuda.memory import open_cuda_memory
from hvq_edge.runtime.cuda.pycuda_memory import PyCudaMemory
from hvq_edge.runtime.engine import Frames
from hvq_edge.runtime.tensorrt.engine_file import EngineBackend

LIBRARIES = ("torch", "tensorrt", "tensorrt-rtx-cu13", "pycuda", "cuda-bindings", "onnxruntime")
IMAGES = 32


def read_frames(run: Path, data: Path | None, most: int = IMAGES) -> Frames:
    """Read good and defective test images of a run's data, categories mixed.

    Raises:
        DatasetError: there are none.
    """
    record = read_run(run)
    folder = data or (Path(record.data) if record.data else None)
    if folder is None:
        raise DatasetError("the run has no data on record.", next_step="give it with --data DIR")
    images = find_dataset(folder).test()
    side = record.settings.model.input_side
    chosen = images[:: max(len(images) // most, 1)][:most]
    return np.stack([read_frame(image.path, side) for image in chosen])


def check_all(run: Path, frames: Frames, gpu: CudaDevice) -> Iterator[Finding]:
    """Make every check, the quick ones first."""
    from benchmarks.gpu.gpu_memory_check import check_memory

    yield Finding("GPU", "ok", f"{gpu.name}, compute capability {gpu.compute_capability}")
    yield Finding("CUDA that the driver serves", "ok", gpu.driver)
    for name, memory in (("PyCUDA", PyCudaMemory), ("cuda-python", CudaPythonMemory)):
        yield from attempt(name, partial(check_memory, memory, cuda_device))
    yield from attempt("PyTorch", lambda: _torch_findings(run, frames))
    backends: tuple[EngineBackend, ...] = ("tensorrt-rtx", "tensorrt")
    for backend in backends:
        yield from attempt(backend, partial(_engine_findings, run, backend, frames))


def _engine_findings(run: Path, backend: EngineBackend, frames: Frames) -> Iterator[Finding]:
    from benchmarks.gpu.gpu_engine_check import check_engines

    bundle = open_bundle(run / BUNDLE_FOLDER)
    yield from check_engines(bundle, backend, frames, cuda_device, memory=open_cuda_memory)


def _torch_findings(run: Path, frames: Frames) -> Iterator[Finding]:
    import torch

    from benchmarks.gpu.gpu_torch_check import check_codes, check_latency
    from hvq_edge.model.checkpoint import load_run

    if not torch.cuda.is_available():
        raise MissingCapability(f"PyTorch {torch.__version__} finds no GPU.")
    torch.backends.cudnn.allow_tf32 = False  # a reference is full float32
    model, _ = load_run(run, device="cuda")
    on_gpu = torch.tensor(frames, device="cuda")
    yield from check_codes(model, on_gpu, "cuda")
    yield from check_latency(model, on_gpu[:1], "cuda")


def report(findings: Sequence[Finding], gpu: CudaDevice | None, path: Path) -> str:
    """Write the JSON and return the table."""
    content = {
        "format": "hvq-edge-gpu-check/1",
        "gpu": asdict(gpu) if gpu else None,
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions_of(("hvq-edge", *LIBRARIES)),
        "findings": [asdict(one) for one in findings],
    }
    write_text(path, json.dumps(content, indent=2) + "\n")
    return markdown_table(
        ["check", "", "result"], [[one.what, one.state, one.value] for one in findings]
    )


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 where something failed, else 0."""
    return int(any(one.state == "failed" for one in findings))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and report; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a trained run with a bundle of all four files")
    parser.add_argument("--data", type=Path, help="its images; default: where it was trained")
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), dest="out")
    given = parser.parse_args(arguments)
    try:
        gpu = cuda_device()
    except MissingCapability as error:
        finding = Finding("everything", "not run", error.cause)
        print(report([finding], None, given.out))
        print(f"Next: {error.next_step}", file=sys.stderr)
        return MissingCapability.exit_code
    try:
        frames = read_frames(given.run, given.data)
    except HvqEdgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    findings = list(check_all(given.run, frames, gpu))
    print(report(findings, gpu, given.out))
    print(f"\nWritten to {given.out}.")
    return exit_code(findings)


if __name__ == "__main__":
    sys.exit(main())
