"""Whether a build will fit in memory, and how much of it the engine may use as workspace.

On a board whose GPU shares the main memory, a build that runs out ends in the kernel's killing the
process, after minutes and without a word. So free memory is compared with an estimate first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hvq_edge.errors import MissingCapability
from hvq_edge.runtime.tensorrt.engine_file import EngineBackend

MIB = 1 << 20

MOST_WORKSPACE = 2048 * MIB
"""More than any graph of ours used, and little enough to leave a GPU to others."""

_LIBRARY: dict[EngineBackend, int] = {
    # Measured (docs/how-to/engines.md): 302 MB, extrapolated from graphs of 8, 11 and 54 MB.
    "tensorrt-rtx": 350 * MIB,
    # Not measured: CUDA context, kernel libraries and tactics. Each engine's record has the peak of
    # its own build, to hold this against.
    "tensorrt": 1536 * MIB,
}
_COPIES = 4
"""Copies of the ONNX file in memory at once: measured 3.0 with TensorRT-RTX."""
_ACTIVATIONS = 3
"""Scratch memory in sizes of the largest activation: measured 2.0 to 2.6 at batch 8, and"""
_SMALL_SCRATCH = 64 * MIB
"""this much beside it: measured 28 MB."""


@dataclass(frozen=True)
class FreeMemory:
    """Bytes that a build may use."""

    host: int
    """Main memory, as far as the container's limit allows."""
    swap: int
    gpu: int | None = None
    """``None``: no GPU takes part in the build."""
    shared: bool = False
    """Whether the GPU's memory is the main memory, as on a Jetson."""


@dataclass(frozen=True)
class MemoryBudget:
    """What a build is expected to take, in bytes."""

    host: int
    workspace: int
    """Limit to give the builder."""


def free_host_memory(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> FreeMemory:
    """Return the free main memory and swap; the limit of a container counts.

    Args:
        meminfo: the kernel's table (kB).
        cgroup: folder of this process's control group (version 2).
    """
    table = {
        name: int(value.split()[0]) << 10
        for name, _, value in (
            line.partition(":") for line in meminfo.read_text(encoding="ascii").splitlines()
        )
        if value.split()
    }
    host, swap = table["MemAvailable"], table.get("SwapFree", 0)
    limit = _number(cgroup / "memory.max")
    if limit is not None:
        used = (_number(cgroup / "memory.current") or 0) - _reclaimable(cgroup / "memory.stat")
        host = min(host, max(limit - used, 0))
    return FreeMemory(host, swap)


def peak_host_memory(status: Path = Path("/proc/self/status")) -> int | None:
    """Return the most bytes of main memory that this process has had.

    From the kernel's table, ``None`` where there is none: what ``getrusage`` gives goes on from the
    process that started this one.
    """
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), None)


def memory_budget(
    backend: EngineBackend,
    onnx_bytes: int,
    largest_activation: int,
    free: FreeMemory,
    workspace: int | None = None,
) -> MemoryBudget:
    """Estimate what a build takes and choose the engine's workspace.

    Args:
        backend: the library.
        onnx_bytes: size of the graph's file.
        largest_activation: bytes of the largest tensor at the largest batch.
        free: what is free now.
        workspace: the user's own choice in bytes; nothing is checked then.

    Raises:
        MissingCapability: it would not fit.
    """
    host = _LIBRARY[backend] + _COPIES * onnx_bytes
    if workspace is not None:
        return MemoryBudget(host, workspace)
    least = _ACTIVATIONS * largest_activation + _SMALL_SCRATCH
    on_gpu = least + onnx_bytes if free.gpu is not None else 0
    in_main = host + (on_gpu if free.shared else 0)
    if in_main > free.host + free.swap:
        raise _too_little("memory", in_main, free.host + free.swap, free)
    if free.gpu is None:
        return MemoryBudget(host, max(least, MOST_WORKSPACE))
    room = free.gpu - onnx_bytes
    if free.shared:  # the GPU cannot use swap, but what the CPU needs may go there
        room = min(room, free.host - max(host - free.swap, 0) - onnx_bytes)
    if room < least:
        raise _too_little("GPU memory", on_gpu, max(room + onnx_bytes, 0), free)
    return MemoryBudget(host, max(least, min(room // 2, MOST_WORKSPACE)))


def _too_little(what: str, needed: int, there: int, free: FreeMemory) -> MissingCapability:
    swap = (
        "on a board add swap (sudo fallocate -l 8G /swap && sudo chmod 600 /swap && sudo mkswap "
        "/swap && sudo swapon /swap) and close the desktop (sudo systemctl isolate multi-user), or "
        if free.shared
        else "close other programs, or "
    )
    return MissingCapability(
        f"the build needs about {needed >> 20} MiB of {what}, and {there >> 20} MiB are free.",
        next_step=f"{swap}lower --max-batch; --workspace-mb N builds without this check",
    )


def _number(path: Path) -> int | None:
    """Return the number in a file of the kernel; ``None`` where there is none, or no limit."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reclaimable(path: Path) -> int:
    """Return what the kernel frees when it must: file contents that nobody used lately."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
