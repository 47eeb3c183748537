"""ONNX to engine, with TensorRT 10.3 to 11.x and TensorRT-RTX 1.7 by the same code.

Networks are strongly typed: precision is what the ONNX file says, and no builder flag changes it.
What differs between versions is in
:mod:`hvq_edge.export.build.versions`. The library's module
is an argument, so that nothing here imports it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvq_edge.bundle.manifest import Precision
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.errors import BundleError, HvqEdgeError, MissingCapability, SettingsError
from hvq_edge.export.build.memory import FreeMemory, memory_budget, peak_host_memory
from hvq_edge.export.build.monitor import build_monitor, interruptible
from hvq_edge.export.build.versions import Version
from hvq_edge.runtime.tensorrt.engine_file import BuildOptions
from hvq_edge.runtime.tensorrt.log import BuildLog, listening

_BYTES_AT_MOST = 4  # of an element of an activation: float32 or int32


@dataclass(frozen=True)
class BuiltEngine:
    """An engine as it was built."""

    engine: bytes
    """The serialised engine, which TensorRT calls its plan."""
    timing_cache: bytes
    """Empty where the library has none."""
    workspace: int
    """The limit it was built with, in bytes."""
    seconds: float
    peak_memory: int | None
    """Most bytes of main memory that this process has had so far."""
    layers: str
    """The compiled layers as the library logs them; empty unless asked for."""


def build_engine(
    module: Any,  # noqa: ANN401
    version: Version,
    onnx_file: Path,
    precision: Precision,
    options: BuildOptions,
    free: FreeMemory,
    *,
    capabilities: Sequence[str] = (),
    workspace: int | None = None,
    timing_cache: bytes = b"",
    log_layers: bool = False,
    on_progress: ProgressCallback = silent,
) -> BuiltEngine:
    """Build an engine from an exported graph.

    Ctrl-C stops it at the builder's next step.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        version: see :func:`hvq_edge.export.build.versions.version_of`.
        onnx_file: the graph; its hash is checked already.
        precision: of the graph.
        options: what the builder is told.
        free: free memory now.
        capabilities: compute capabilities to build for, such as ``8.6``; TensorRT-RTX only.
        workspace: bytes, where the user chose it.
        timing_cache: of an earlier build with this version on this GPU.
        log_layers: keep the compiled layers' descriptions.
        on_progress: called in per cent of the build.

    Raises:
        SettingsError: an option that this version or device does not have.
        MissingCapability: too little memory, no driver, or a library that is missing.
        BundleError: the parser refuses the graph.
        HvqEdgeError: the builder failed.
        KeyboardInterrupt: the user stopped it.
    """
    check_options(module, version, precision, options, capabilities)
    stage = f"engine {precision}"

    def build(cancelled: threading.Event) -> BuiltEngine:
        began = time.monotonic()
        with listening(module, keep="LayerType:" if log_layers else None) as log:
            builder = module.Builder(log.logger)
            network = _parse(module, version, builder, onnx_file, log)
            memory = memory_budget(
                version.backend,
                onnx_file.stat().st_size,
                largest_activation(network, options.max_batch),
                free,
                workspace,
            )
            config = builder.create_builder_config()
            config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, memory.workspace)
            _apply_options(module, version, builder, config, options, log_layers)
            _apply_capabilities(module, config, capabilities)
            config.add_optimization_profile(_batch_profile(builder, network, options))
            if version.timing_cache:
                config.set_timing_cache(config.create_timing_cache(timing_cache), False)
            monitor = build_monitor(module, stage, on_progress, cancelled)
            config.progress_monitor = monitor
            serialised = builder.build_serialized_network(network, config)
            if monitor.failures:
                raise monitor.failures[0]
            if serialised is None:
                raise _build_error(version, onnx_file, log.errors)
            return BuiltEngine(
                engine=bytes(serialised),
                timing_cache=bytes(config.get_timing_cache().serialize())
                if version.timing_cache
                else b"",
                workspace=memory.workspace,
                seconds=time.monotonic() - began,
                peak_memory=peak_host_memory(),
                layers=log.kept,
            )

    built = interruptible(build)
    on_progress(stage, 100, 100)
    return built


def check_options(
    module: Any,  # noqa: ANN401
    version: Version,
    precision: Precision,
    options: BuildOptions,
    capabilities: Sequence[str],
) -> None:
    """Check options against what a version has; see :func:`build_engine`.

    Raises:
        SettingsError: all that is wrong, at once.
    """
    faults = []
    if options.opt_batch > options.max_batch:
        faults.append(
            f"the batch to optimise for, {options.opt_batch}, is above the largest, "
            f"{options.max_batch}"
        )
    if options.max_batch < version.least_max_batch:
        faults.append(f"{version} needs a largest batch of at least {version.least_max_batch}")
    if options.version_compatible and not version.version_compatible:
        faults.append(f"{version} builds no version-compatible engines")
    if options.hardware != "none" and options.hardware not in version.hardware:
        known = ", ".join(("none", *version.hardware))
        faults.append(f"{version} has no hardware compatibility {options.hardware}, only {known}")
    if options.dla_core is not None:
        if version.no_dla:
            faults.append(version.no_dla)
        elif precision not in ("fp16", "int8-fp16"):
            faults.append(
                f"a DLA computes float16 and int8, and a {precision} graph has float32 layers only "
                "it could not take"
            )
        if options.opt_batch != options.max_batch:
            faults.append("a DLA takes one batch size: --opt-batch and --max-batch must be equal")
    if capabilities and not version.names_capabilities:
        faults.append(f"{version} builds for the GPU that is there, not for named ones")
    if version.names_capabilities:
        offered = _offered_capabilities(module)
        faults += [
            f"{version} builds for compute capability {', '.join(offered)}, not for {one}"
            for one in capabilities
            if one not in offered
        ]
    if faults:
        raise SettingsError("; ".join(faults) + ".", next_step="see hvq-edge build --help")


def largest_activation(network: Any, batch: int) -> int:  # noqa: ANN401
    """Return the bytes of a parsed network's largest tensor at a batch.

    Args:
        network: ``INetworkDefinition``; only the batch, given as -1, may be open in a shape.
        batch: what the batch is.
    """
    return _BYTES_AT_MOST * max(
        (
            math.prod(batch if size < 0 else size for size in tuple(layer.get_output(i).shape))
            for layer in (network.get_layer(n) for n in range(network.num_layers))
            for i in range(layer.num_outputs)
        ),
        default=0,
    )


def _parse(
    module: Any,  # noqa: ANN401
    version: Version,
    builder: Any,  # noqa: ANN401
    onnx_file: Path,
    log: BuildLog,
) -> Any:  # noqa: ANN401
    """Return the network of a graph; the parser, which owns its weights, stays with it."""
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(onnx_file)):
        faults = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise BundleError(
            f"{version} cannot parse {onnx_file}: {'; '.join(faults) or log.first_error}.",
            next_step="run hvq-edge export again with this version",
        )
    return network


def _apply_options(
    module: Any,  # noqa: ANN401
    version: Version,
    builder: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    options: BuildOptions,
    log_layers: bool,
) -> None:
    flags = module.BuilderFlag
    if not options.tf32:  # on by default in all versions
        config.clear_flag(flags.TF32)
    if options.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if options.hardware != "none":
        level = getattr(module.HardwareCompatibilityLevel, version.hardware[options.hardware])
        config.hardware_compatibility_level = level
    if options.optimisation_level is not None:
        config.builder_optimization_level = options.optimisation_level
    if log_layers:
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    if options.dla_core is not None:
        if options.dla_core >= builder.num_DLA_cores:
            raise MissingCapability(
                f"this machine has {builder.num_DLA_cores} DLA cores, not core {options.dla_core}.",
                next_step="leave out --dla: the GPU computes all of it",
            )
        config.default_device_type = module.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(flags.GPU_FALLBACK)  # no DLA has ArgMax over codes or LayerNorm


def _apply_capabilities(module: Any, config: Any, capabilities: Sequence[str]) -> None:  # noqa: ANN401
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for i, one in enumerate(capabilities):
            chip = getattr(module.ComputeCapability, f"SM{one.replace('.', '')}")
            config.set_compute_capability(chip, i)


def _offered_capabilities(module: Any) -> list[str]:  # noqa: ANN401
    names = [name[2:] for name in module.ComputeCapability.__members__ if name.startswith("SM")]
    return [f"{name[:-1]}.{name[-1]}" for name in sorted(names, key=int)]


def _batch_profile(builder: Any, network: Any, options: BuildOptions) -> Any:  # noqa: ANN401
    """Return the profile of an exported graph: of each input only the batch is open."""
    profile = builder.create_optimization_profile()
    least = 1 if options.dla_core is None else options.max_batch
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        frame = tuple(tensor.shape)[1:]
        batches = (least, options.opt_batch, options.max_batch)
        profile.set_shape(tensor.name, *((batch, *frame) for batch in batches))
    return profile


def _build_error(version: Version, onnx_file: Path, errors: Sequence[str]) -> HvqEdgeError:
    said = " ".join(errors) or "it gave no reason"
    cause = f"{version} could not build an engine from {onnx_file.name}: {said}"
    if "cudaError 35" in said or "no CUDA-capable device" in said:
        return MissingCapability(
            cause,
            next_step="install NVIDIA's driver, or build on a machine with the GPU; TensorRT-RTX "
            "builds without one for a GPU named with --compute-capability",
        )
    if "Unable to load library" in said:
        return MissingCapability(cause, next_step="install that library beside TensorRT's")
    if "OutOfMemory" in said:
        return MissingCapability(cause, next_step="give it more with --workspace-mb N")
    return HvqEdgeError(cause, next_step="run hvq-edge export again, or use another precision")
