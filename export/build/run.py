"""A bundle in, an engine inside it out: chosen, built once, recorded."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.precision import FOR_GPUS
from hvq_edge.bundle.verification import read_verdicts
from hvq_edge.common.atomic import atomic_file, write_text
from hvq_edge.common.cache_folder import default_cache
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.errors import BundleError, MissingCapability, OutputError, SettingsError
from hvq_edge.evaluation.acceptance.model_card import refresh_card
from hvq_edge.export.build.engine import BuiltEngine, build_engine, check_options
from hvq_edge.export.build.memory import FreeMemory, free_host_memory
from hvq_edge.export.build.versions import Version, version_of
from hvq_edge.runtime.cuda.device import CudaDevice, cuda_device
from hvq_edge.runtime.engine_names import AUTO
from hvq_edge.runtime.tensorrt.engine_file import (
    ENGINE_BACKENDS,
    ENGINES_FOLDER,
    BuildOptions,
    EngineBackend,
    EngineRecord,
    engine_backend,
    engine_stem,
    read_record,
    this_platform,
)
from hvq_edge.runtime.tensorrt.library import INSTALL, MODULES, load_backend

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildResult:
    """An engine in a bundle."""

    engine_file: Path
    """TensorRT's serialised engine, ``*.plan``."""
    record: EngineRecord
    reason: str
    """Why it was built, in words; empty where the engine that was there serves."""
    layers: str = ""
    """See :class:`hvq_edge.export.build.engine.BuiltEngine`."""


def build_run(
    bundle: Path,
    *,
    backend: str = AUTO,
    precision: str = AUTO,
    capabilities: Sequence[str] = (),
    options: BuildOptions | None = None,
    workspace: int | None = None,
    force: bool = False,
    log_layers: bool = False,
    load: Callable[[EngineBackend], Any] | None = None,
    device: Callable[[], CudaDevice] = cuda_device,
    on_progress: ProgressCallback = silent,
) -> BuildResult:
    """Build an engine of a bundle, unless the same is there already.

    One process builds at a time, others wait and then find it. Whatever ends a build leaves the
    former engine as it was, or none.

    Args:
        bundle: the bundle's folder; the engine comes into its ``engines`` folder.
        backend: ``tensorrt``, ``tensorrt-rtx``, or ``auto``: what is installed, in this order.
        precision: of the graph; ``auto``: int8-fp16, fp16, int8, fp32, the first that the bundle
            has and ``hvq-edge verify`` has not found wanting.
        capabilities: compute capabilities to build for; TensorRT-RTX only. Default: this GPU's.
        options: what the builder is told.
        workspace: bytes; default: from free memory.
        force: build even where the same engine is there.
        log_layers: keep the compiled layers' descriptions.
        load: gives a backend's module; default: imports it.
        device: gives this machine's GPU.
        on_progress: called in per cent of the build.

    Raises:
        BundleError: no bundle there, it is changed or lacks the precision, or is refused.
        SettingsError: an unknown name, or an option that the library does not have.
        MissingCapability: a library, driver or GPU is missing, or memory.
        OutputError: the bundle cannot be written to.
        KeyboardInterrupt: the user stopped it.
    """
    options = options or BuildOptions()
    opened = open_bundle(bundle)
    chosen = _chosen_precision(opened, precision)
    library = _chosen_backend(backend, find_spec if load is None else lambda _: True)
    module = (load or load_backend)(library)
    version = version_of(module, library)
    gpu = None if version.names_capabilities and capabilities else _gpu(version, device)
    targets = tuple(capabilities) or ((gpu.compute_capability,) if gpu else ())
    check_options(module, version, chosen, options, targets if version.names_capabilities else ())
    if not version.names_capabilities and gpu is not None:
        _check_gpu(version, gpu, capabilities)
    onnx_file = opened.model_file(chosen)
    stem = engine_stem(library, version.text, targets, chosen)
    engine_file = opened.path / ENGINES_FOLDER / f"{stem}.plan"
    digest = opened.manifest.files[onnx_file.name].sha256
    with _only_one(engine_file, on_progress):
        record, reason = _why_build(engine_file, digest, options, gpu, force)
        if record is not None and not reason:
            return BuildResult(engine_file, record, "")
        logger.info("building %s, because %s", engine_file, reason)
        cache = engine_file.with_name(f"{stem.removesuffix(f'-{chosen}')}.timing")
        built = build_engine(
            module,
            version,
            onnx_file,
            chosen,
            options,
            _free_memory(version, gpu),
            capabilities=targets if version.names_capabilities else (),
            workspace=workspace,
            timing_cache=cache.read_bytes() if cache.is_file() else b"",
            log_layers=log_layers,
            on_progress=on_progress,
        )
        record = _record(version, chosen, targets, gpu, options, digest, built)
        if built.timing_cache:
            _write(cache, built.timing_cache)
        _write(engine_file, built.engine)
        write_text(engine_file.with_suffix(".json"), record.model_dump_json(indent=2) + "\n")
    refresh_card(bundle)
    return BuildResult(engine_file, record, reason, built.layers)


def _chosen_backend(name: str, find: Callable[[str], object]) -> EngineBackend:
    if name == AUTO:
        for backend in ENGINE_BACKENDS:
            if find(MODULES[backend]):
                return backend
        raise MissingCapability(
            "neither TensorRT nor TensorRT-RTX is installed.",
            next_step=f"{INSTALL['tensorrt']}; for RTX cards {INSTALL['tensorrt-rtx']}",
        )
    known = engine_backend(name)
    if known is not None:
        return known
    raise SettingsError(
        f"backend: {name!r} builds no engines.",
        next_step=f"use one of auto, {', '.join(ENGINE_BACKENDS)}",
    )


def _chosen_precision(bundle: Bundle, name: str) -> Precision:
    models = bundle.manifest.models
    if name == AUTO:
        verdicts = read_verdicts(bundle)
        for precision in FOR_GPUS:
            if precision in models and (precision == "fp32" or verdicts.get(precision, True)):
                return precision
        raise BundleError(
            f"hvq-edge verify passed no graph of {bundle.path}.",
            next_step="name one with --precision, or export again",
        )
    for precision in FOR_GPUS:
        if name == precision:
            return precision
    raise SettingsError(
        f"precision: there is no {name!r}.", next_step=f"use one of auto, {', '.join(FOR_GPUS)}"
    )


def _gpu(version: Version, device: Callable[[], CudaDevice]) -> CudaDevice:
    try:
        return device()
    except MissingCapability as error:
        if not version.names_capabilities:
            raise
        raise MissingCapability(
            f"which GPU to build for is not said, and here is none: {error.cause}",
            next_step="name it: --compute-capability 8.6 (Ampere), 8.9 (Ada), 12.0 (Blackwell)",
        ) from error


def _check_gpu(version: Version, gpu: CudaDevice, capabilities: Sequence[str]) -> None:
    if any(one != gpu.compute_capability for one in capabilities):
        raise SettingsError(
            f"{version} builds for the GPU that is there, {gpu.name} ({gpu.compute_capability}), "
            f"not for {', '.join(capabilities)}.",
            next_step="leave out --compute-capability, or build on that device",
        )
    if gpu.compute_capability in version.no_code_for:
        raise MissingCapability(
            f"{version} was built without code for compute capability {gpu.compute_capability} "
            f"({gpu.name}).",
            next_step="install JetPack 6.1 (TensorRT 10.3) or 7.2 (TensorRT 10.16)",
        )


def _free_memory(version: Version, gpu: CudaDevice | None) -> FreeMemory:
    host = free_host_memory()
    if gpu is None or version.names_capabilities:  # compiled for the GPU when it is loaded
        return host
    return FreeMemory(host.host, host.swap, gpu.free, gpu.shared)


def _why_build(
    engine_file: Path, digest: str, options: BuildOptions, gpu: CudaDevice | None, force: bool
) -> tuple[EngineRecord | None, str]:
    """Return the record of the engine that is there, if any, and why it does not serve."""
    if not engine_file.exists():
        return None, "there was none"
    try:
        record = read_record(engine_file)
    except BundleError as error:
        return None, error.cause.rstrip(".")
    faults = [
        f"{name}: {was} before, now {now}"
        for name, was, now in (
            ("graph", record.onnx_sha256[:12], digest[:12]),
            ("gpu_name", record.gpu_name, gpu.name if gpu else None),
            ("platform", record.platform, this_platform()),
            *(
                (field, getattr(record.options, field), getattr(options, field))
                for field in BuildOptions.model_fields
            ),
        )
        if was != now
    ]
    return record, "; ".join(faults) or ("asked for" if force else "")


def _record(
    version: Version,
    precision: Precision,
    targets: Sequence[str],
    gpu: CudaDevice | None,
    options: BuildOptions,
    onnx_sha256: str,
    built: BuiltEngine,
) -> EngineRecord:
    return EngineRecord(
        backend=version.backend,
        backend_version=version.text,
        precision=precision,
        onnx_sha256=onnx_sha256,
        compute_capabilities=tuple(targets),
        platform=this_platform(),
        gpu_name=gpu.name if gpu else None,
        driver=gpu.driver if gpu else None,
        options=options,
        workspace=built.workspace,
        peak_memory=built.peak_memory,
        build_seconds=round(built.seconds, 3),
        bytes=len(built.engine),
        plan_sha256=hashlib.sha256(built.engine).hexdigest(),
        hvq_edge_version=installed_version("hvq-edge"),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _only_one(engine_file: Path, on_progress: ProgressCallback) -> Iterator[None]:
    """Hold the lock of an engine file; it stands in the cache, so bundles have no lock files.

    Raises:
        OutputError: no lock can be made.
    """
    try:
        folder = default_cache() / "locks"
    except RuntimeError:  # the user has no home, as in some containers
        folder = Path(tempfile.gettempdir())
    name = hashlib.sha256(str(engine_file.resolve()).encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"hvq-edge-build-{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_progress("waiting for another build", 0, 1)
            lock.acquire()
            on_progress("waiting for another build", 1, 1)
    except OSError as error:
        raise OutputError(
            f"cannot lock {engine_file.name} in {folder}: {error.strerror}.",
            next_step="set XDG_CACHE_HOME to a folder that can be written to",
        ) from error
    try:
        yield
    finally:
        lock.release()
