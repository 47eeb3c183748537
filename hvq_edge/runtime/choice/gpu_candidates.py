"""Which engines of a bundle ``auto`` may use on this GPU, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, get_args

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.precision import FOR_GPUS
from hvq_edge.bundle.verification import Verdicts
from hvq_edge.errors import BundleError, HvqEdgeError
from hvq_edge.runtime.choice.measured_choice import Candidate
from hvq_edge.runtime.cuda.device import CudaDevice, cuda_device
from hvq_edge.runtime.tensorrt.engine_file import EngineBackend
from hvq_edge.runtime.tensorrt.find_engine import engine_files, find_engine_file
from hvq_edge.runtime.tensorrt.library import load_backend


@dataclass(frozen=True)
class GpuCandidates:
    """Engines that run here and may be used."""

    engines: dict[Candidate, str]
    """SHA-256 of each one's file; float32 first, as for graphs."""
    versions: dict[EngineBackend, str]
    """Version of each library that an engine here needs."""
    gpu: str | None
    """Name and driver; ``None`` where there is no candidate."""
    left_out: tuple[str, ...]
    """Engines that the bundle has and that may not be used, each with the reason."""


def gpu_candidates(
    bundle: Bundle,
    precisions: Collection[Precision] | None,
    verdicts: Verdicts,
    *,
    load: Callable[[EngineBackend], Any] = load_backend,
    device: Callable[[], CudaDevice] = cuda_device,
) -> GpuCandidates:
    """Look through a bundle's engines.

    ``hvq-edge verify`` must have passed an engine's precision: what a GPU computes in is chosen
    when it is built, and nobody is there to look at the scores when ``auto`` takes it. Neither the
    GPU nor a library is touched for a bundle without engines.

    Args:
        bundle: the bundle.
        precisions: that the user asks for, verified or not; ``None``: any that passed.
        verdicts: what ``hvq-edge verify`` says.
        load: gives a backend's module.
        device: gives this machine's GPU.
    """
    engines: dict[Candidate, str] = {}
    versions: dict[EngineBackend, str] = {}
    left_out: list[str] = []
    gpu: CudaDevice | None = None
    backends: tuple[EngineBackend, ...] = get_args(EngineBackend)
    for backend in backends:
        built = [one for one in reversed(FOR_GPUS) if engine_files(bundle, backend, one)]
        wanted = [
            one
            for one in built
            if (verdicts.get(one, False) if precisions is None else one in precisions)
        ]
        if precisions is None:
            left_out += [
                f"the {one} engine for {backend}: hvq-edge verify has not passed {one}"
                for one in built
                if one not in wanted
            ]
        if not wanted:
            continue
        try:
            gpu = gpu or device()
            module = load(backend)
        except HvqEdgeError as error:
            left_out.append(f"engines for {backend}: {error.cause.rstrip('.')}")
            continue
        for precision in wanted:
            try:
                _, record = find_engine_file(
                    bundle, backend, (precision,), str(module.__version__), gpu
                )
            except BundleError as error:
                left_out.append(f"the {precision} engine for {backend}: {error.cause.rstrip('.')}")
            else:
                engines[Candidate(backend, precision)] = record.plan_sha256
                versions[backend] = str(module.__version__)
    here = f"{gpu.name}, driver {gpu.driver}" if gpu is not None and engines else None
    return GpuCandidates(engines, versions, here, tuple(left_out))
