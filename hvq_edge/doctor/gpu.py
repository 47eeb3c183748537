"""NVIDIA's driver and GPU, TensorRT, and what gives engines their memory. Needs no PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from hvq_edge.common.child_process import NoAnswer, run_isolated
from hvq_edge.doctor.finding import CheckResult
from hvq_edge.runtime.tensorrt.engine_file import EngineBackend
from hvq_edge.runtime.tensorrt.library import INSTALL, MODULES

Ask = Callable[..., Any]

_GPU = (
    "from dataclasses import asdict\nfrom hvq_edge.errors import MissingCapability\n"
    "from hvq_edge.runtime.cuda.device import cuda_device\n"
    "try:\n    answer = asdict(cuda_device())\n"
    "except MissingCapability as error:\n    answer = [error.cause, error.next_step]"
)


def gpu(ask: Ask = run_isolated) -> list[CheckResult]:
    """Ask NVIDIA's driver for its version and the GPU."""
    found = ask(_GPU)
    if isinstance(found, list):
        cause, remedy = found
        return [CheckResult("gpu", "note", cause.rstrip("."), f"only for TensorRT: {remedy}")]
    memory = f"{found['total'] / 2**30:.1f} GiB{' shared with the processor' * found['shared']}"
    return [
        CheckResult(
            "gpu",
            "ok",
            f"{found['name']}, compute capability {found['compute_capability']}, {memory}, "
            f"{found['free'] / 2**30:.1f} GiB free; driver for CUDA {found['driver']}",
        )
    ]


def tensorrt(ask: Ask = run_isolated) -> list[CheckResult]:
    """Import TensorRT and TensorRT-RTX, each in a process of its own."""
    return [_library(backend, ask) for backend in MODULES]


def _library(backend: EngineBackend, ask: Ask) -> CheckResult:
    module = MODULES[backend]
    if importlib.util.find_spec(module) is None:
        return CheckResult(
            backend, "note", "not installed", f"only for its engines: {INSTALL[backend]}"
        )
    try:
        number = ask(f"import {module} as t\nt.Logger()\nanswer = t.__version__")
    except NoAnswer as error:
        return CheckResult(
            backend, "missing", f"{module} cannot be imported: {error}", INSTALL[backend]
        )
    return CheckResult(backend, "ok", str(number))


def gpu_memory(ask: Ask = run_isolated) -> list[CheckResult]:
    """Say which library would copy frames to the GPU: PyCUDA first, then cuda-python."""
    tried = []
    for name, code in (
        ("PyCUDA", "import pycuda, pycuda.driver\nanswer = pycuda.VERSION_TEXT"),
        ("cuda-python", "import cuda.bindings.driver, cuda.bindings as c\nanswer = c.__version__"),
    ):
        try:
            number = ask(code)
        except NoAnswer as error:
            absent = "ModuleNotFoundError" in str(error)
            tried.append(f"{name} is not installed" if absent else f"{name}: {error}")
        else:
            return [CheckResult("gpu-memory", "ok", f"{name} {number} is used")]
    return [
        CheckResult(
            "gpu-memory",
            "note",
            "; ".join(tried),
            "only for TensorRT: pip install pycuda, or pip install cuda-bindings where it does not "
            "build",
        )
    ]
