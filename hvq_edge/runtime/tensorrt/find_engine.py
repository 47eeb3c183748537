"""The engine of a bundle that runs here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.precision import FOR_GPUS
from hvq_edge.errors import BundleError
from hvq_edge.runtime.cuda.device import CudaDevice, cuda_device
from hvq_edge.runtime.cuda.memory import CudaMemory, open_cuda_memory
from hvq_edge.runtime.engine_names import known_precisions
from hvq_edge.runtime.tensorrt.engine import TensorRTEngine
from hvq_edge.runtime.tensorrt.engine_file import (
    ENGINES_FOLDER,
    EngineBackend,
    EngineRecord,
    Here,
    check_engine,
    read_record,
    rebuild_command,
    this_platform,
)
from hvq_edge.runtime.tensorrt.library import load_backend


def open_tensorrt(
    bundle: Bundle,
    backend: EngineBackend,
    precision: str,
    *,
    load: Callable[[EngineBackend], Any] = load_backend,
    device: Callable[[], CudaDevice] = cuda_device,
    memory: Callable[[], CudaMemory] = open_cuda_memory,
    cuda_graphs: bool = True,
) -> TensorRTEngine:
    """Open a bundle's engine on this machine's GPU.

    Args:
        bundle: the bundle.
        backend: the library.
        precision: of the graph; ``auto``: the first of ``FOR_GPUS`` with an engine that runs here.
        load: gives the backend's module.
        device: gives this machine's GPU.
        memory: gives its memory.
        cuda_graphs: whether to use them where the memory's library has them.

    Raises:
        SettingsError: an unknown precision.
        MissingCapability: the library, the driver or the GPU is missing.
        BundleError: no engine that runs here; how each that is there differs.
        HvqEdgeError: the GPU fails.
    """
    wanted = known_precisions(precision) or FOR_GPUS
    module = load(backend)
    gpu = device()
    file, record = find_engine_file(bundle, backend, wanted, str(module.__version__), gpu)
    manifest = bundle.manifest
    return TensorRTEngine(
        file,
        record,
        module=module,
        memory=memory(),
        gpu_name=gpu.name,
        frame_shape=manifest.frame_shape,
        categories=manifest.categories,
        category_mode=manifest.category_mode,
        cuda_graphs=cuda_graphs,
    )


def built_precision(bundle: Bundle, backend: EngineBackend, precision: str) -> Precision:
    """Return what ``auto`` means for a bundle: the preferred precision that has an engine.

    Whether that engine runs here is not looked at.

    Raises:
        SettingsError: an unknown precision.
        BundleError: the bundle has no engine of this backend.
    """
    asked = known_precisions(precision)
    if asked:
        return asked[0]
    for name in FOR_GPUS:
        if engine_files(bundle, backend, name):
            return name
    raise BundleError(
        f"the bundle {bundle.path} has no {backend} engine.",
        next_step=f"run hvq-edge build {bundle.path} --backend {backend}",
    )


def engine_files(bundle: Bundle, backend: EngineBackend, precision: Precision) -> list[Path]:
    """Return a bundle's engines that are named so, the newest first; they need not run here."""
    found = (bundle.path / ENGINES_FOLDER).glob(f"{backend}-[0-9]*-sm[0-9]*-{precision}.plan")
    own = [path for path in found if not path.stem.endswith(f"-int8-{precision}")]
    return sorted(own, key=lambda path: -path.stat().st_mtime)


def find_engine_file(
    bundle: Bundle,
    backend: EngineBackend,
    wanted: tuple[Precision, ...],
    version: str,
    gpu: CudaDevice,
) -> tuple[Path, EngineRecord]:
    """Return the first engine that runs here: preferred precisions first, the newest of each.

    Args:
        bundle: the bundle.
        backend: the library.
        wanted: precisions that will do.
        version: the library's.
        gpu: that it is to run on.

    Raises:
        BundleError: none runs here; how each that is there differs.
    """
    reasons = []
    for precision in (one for one in FOR_GPUS if one in wanted and one in bundle.manifest.models):
        here = Here(
            backend=backend,
            backend_version=version,
            onnx_sha256=bundle.manifest.files[bundle.manifest.models[precision]].sha256,
            compute_capability=gpu.compute_capability,
            gpu_name=gpu.name,
            driver=gpu.driver,
            platform=this_platform(),
        )
        for file in engine_files(bundle, backend, precision):
            try:
                record = read_record(file)
                _check_signed(bundle, file, record)
                check_engine(file, record, here)
            except BundleError as error:
                reasons.append(error.cause.rstrip("."))
            else:
                return file, record
    asked = next((one for one in FOR_GPUS if one in wanted and one in bundle.manifest.models), None)
    if asked is None:
        raise BundleError(
            f"the bundle {bundle.path} has no {' or '.join(wanted)} model.",
            next_step="name one that it has: " + ", ".join(bundle.manifest.models),
        )
    here_words = f"{backend} {version} on {gpu.name} ({gpu.compute_capability})"
    command = rebuild_command(bundle.path, backend, asked, gpu.compute_capability)
    raise BundleError(
        f"the bundle {bundle.path} has no engine for {here_words}"
        + (f": {'; '.join(reasons)}." if reasons else "."),
        next_step=f"run {command}",
    )


def _check_signed(bundle: Bundle, plan: Path, record: EngineRecord) -> None:
    """Refuse a plan that a signature, where one was required, does not cover with its record.

    Raises:
        BundleError: the manifest does not name the plan, or another one; or its record is another.
    """
    if not bundle.signed:
        return
    name = f"{ENGINES_FOLDER}/{plan.name}"
    listed = bundle.manifest.files.get(name)
    if listed is None or listed.sha256 != record.plan_sha256:
        raise BundleError(
            f"{plan} is not an engine that was signed.", next_step="run hvq-edge sign again"
        )
    signed = bundle.read(name.removesuffix(".plan") + ".json")
    if EngineRecord.model_validate_json(signed) != record:
        raise BundleError(f"the record of {plan} was changed while it was read.")
