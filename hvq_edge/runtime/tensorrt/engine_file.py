"""An engine's file and the record beside it: what it was built from, with and for.

An engine (a "plan") runs only where version, GPU and graph are those it was built for, and NVIDIA's
libraries end a program over some mismatches instead of saying so. So each plan has a record, and
:func:`differences` compares it with what is here before the library sees the plan.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from hvq_edge.bundle.manifest import Precision
from hvq_edge.common import records
from hvq_edge.common.atomic import sha256_of
from hvq_edge.common.records import Strict
from hvq_edge.errors import BundleError

ENGINES_FOLDER = "engines"
"""Folder of a bundle that holds its engines."""

EngineBackend = Literal["tensorrt", "tensorrt-rtx"]
ENGINE_BACKENDS: tuple[EngineBackend, ...] = get_args(EngineBackend)
HardwareCompatibility = Literal["none", "ampere+", "same-compute-capability"]


class BuildOptions(Strict):
    """What the builder is told; all of it stands in the engine's record."""

    opt_batch: int = Field(1, ge=1)
    """Batch that tactics are chosen for: a camera gives one frame at a time."""
    max_batch: int = Field(8, ge=1)
    version_compatible: bool = False
    """Runs in newer TensorRT versions too, somewhat slower."""
    hardware: HardwareCompatibility = "none"
    """Which other GPUs it runs on."""
    dla_core: int | None = Field(None, ge=0)
    """Layers that it can compute go to this Deep Learning Accelerator."""
    tf32: bool = False
    """Round the factors of float32 products to 10 bits: faster, but nearest codes may change."""
    optimisation_level: int | None = Field(None, ge=0, le=5)
    """Higher: a longer build for a faster engine; ``None``: the library's own default."""


class EngineRecord(Strict):
    """The JSON file that stands beside an engine file."""

    format: Literal["hvq-edge-engine/1"] = "hvq-edge-engine/1"
    backend: EngineBackend
    backend_version: str
    precision: Precision
    onnx_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of the graph that the engine was built from."""
    compute_capabilities: tuple[str, ...] = Field(min_length=1)
    """Such as ``8.7``; several with TensorRT-RTX."""
    platform: str
    """The platform in the words of :func:`this_platform`."""
    gpu_name: str | None
    """``None``: built without a GPU (TensorRT-RTX)."""
    driver: str | None
    """Newest CUDA version that the driver serves, such as ``12.6``."""
    options: BuildOptions
    workspace: int = Field(ge=0)
    """Bytes that the engine may use besides weights and activations."""
    peak_memory: int | None = Field(None, ge=0)
    """Most bytes of main memory that the building process has had."""
    build_seconds: float = Field(ge=0)
    bytes: int = Field(ge=1)
    """Hash of the engine file."""
    plan_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    hvq_edge_version: str
    created: str
    """ISO 8601, UTC."""


@dataclass(frozen=True)
class Here:
    """What a plan is to run with."""

    backend: EngineBackend
    backend_version: str
    onnx_sha256: str
    compute_capability: str
    gpu_name: str
    driver: str
    platform: str


@dataclass(frozen=True)
class Difference:
    """A field in which a plan and the place it is to run differ."""

    field: str
    built: str
    here: str
    blocks: bool
    """Whether the plan cannot be used; else it may only be slower."""

    def __str__(self) -> str:
        return f"{self.field}: built for {self.built}, here is {self.here}"


def engine_backend(name: str) -> EngineBackend | None:
    """Return the backend of a name; ``None`` where it is none that has engines."""
    if name == "tensorrt":
        return "tensorrt"
    return "tensorrt-rtx" if name == "tensorrt-rtx" else None


def this_platform() -> str:
    """Return operating system and processor, such as ``linux-aarch64``."""
    return f"{platform.system()}-{platform.machine()}".lower()


def engine_stem(
    backend: EngineBackend, version: str, capabilities: Sequence[str], precision: Precision
) -> str:
    """Return a plan's file name without its ending, such as ``tensorrt-10.3.0-sm87-int8``.

    Args:
        backend: the library.
        version: the library's.
        capabilities: such as ``("8.7",)``.
        precision: of the graph.
    """
    chips = "-".join(f"sm{one.replace('.', '')}" for one in capabilities)
    return f"{backend}-{version}-{chips}-{precision}"


def read_record(plan: Path) -> EngineRecord:
    """Return an engine file's record, after checking that it belongs to these bytes.

    Raises:
        BundleError: no such record or plan, one of another format, or of another plan.
    """
    path = plan.with_name(f"{plan.stem}.json") if plan.suffix == ".plan" else plan

    def unread(error: OSError) -> str:
        return f"the engine {plan} cannot be read with its record: {error.strerror}"

    build = "run hvq-edge build again"
    record = records.read_record(
        path, EngineRecord, BundleError, kind="an engine's record", unread=unread, next_step=build
    )
    try:
        digest = sha256_of(plan)
    except OSError as error:
        raise BundleError(f"{unread(error)}.", next_step=build) from error
    if digest != record.plan_sha256:
        raise BundleError(
            f"{plan} is not the engine that was built (SHA-256 {digest[:12]}…, its record says "
            f"{record.plan_sha256[:12]}…).",
            next_step="copy the bundle again, or run hvq-edge build again",
        )
    return record


def differences(record: EngineRecord, here: Here) -> tuple[Difference, ...]:
    """Return every field in which a plan's record and ``here`` differ.

    The rules are those of NVIDIA's page on engine compatibility: a plan runs in the version that
    built it, or a newer one where it was built version-compatible; on the GPU model it was built
    on, or others as its hardware compatibility says; TensorRT-RTX compiles its plans on the device,
    for each compute capability named at the build.
    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-compatibility.html
    """
    newer = _numbers(here.backend_version) >= _numbers(record.backend_version)
    compatible = record.options.version_compatible and newer
    return tuple(
        Difference(field, built, found, blocks)
        for field, built, found, blocks in (
            ("graph", f"{record.onnx_sha256[:12]}…", f"{here.onnx_sha256[:12]}…", True),
            ("backend", record.backend, here.backend, True),
            ("backend_version", record.backend_version, here.backend_version, not compatible),
            ("platform", record.platform, here.platform, True),
            (
                "compute_capability",
                ", ".join(record.compute_capabilities),
                here.compute_capability,
                not _runs_on(record, here.compute_capability),
            ),
            ("gpu_name", record.gpu_name or here.gpu_name, here.gpu_name, False),
            ("driver", record.driver or here.driver, here.driver, False),
        )
        if built != found
        and not (field == "compute_capability" and found in record.compute_capabilities)
    )


def check_engine(plan: Path, record: EngineRecord, here: Here) -> tuple[Difference, ...]:
    """Refuse a plan that cannot run here.

    Args:
        plan: for the message.
        record: the plan's.
        here: what it is to run with.

    Returns:
        Differences that do not matter, or only to speed.

    Raises:
        BundleError: fields that matter differ; each is named, with the command to build again.
    """
    found = differences(record, here)
    blocking = [str(one) for one in found if one.blocks]
    if blocking:
        command = rebuild_command(
            plan.parent.parent, here.backend, record.precision, here.compute_capability
        )
        raise BundleError(
            f"the engine {plan.name} cannot run here: {'; '.join(blocking)}.",
            next_step=f"run {command}",
        )
    return found


def rebuild_command(
    bundle: Path, backend: EngineBackend, precision: Precision, capability: str
) -> str:
    """Return the command that builds an engine for a GPU of a compute capability."""
    words = f"hvq-edge build {bundle} --backend {backend} --precision {precision}"
    return words + (f" --compute-capability {capability}" if backend == "tensorrt-rtx" else "")


def _runs_on(record: EngineRecord, capability: str) -> bool:
    if capability in record.compute_capabilities:
        return True
    return record.options.hardware == "ampere+" and _numbers(capability) >= (8, 0)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, for ordering."""
    parts = version.split(".")
    return tuple(int(part) for part in parts if part.isdigit())
