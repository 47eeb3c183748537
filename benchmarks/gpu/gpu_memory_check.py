"""GPU memory, streams, events and CUDA graphs through each library, for real."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np

from benchmarks.gpu.gpu_finding import Finding
from hvq_edge.errors import HvqEdgeError
from hvq_edge.runtime.cuda.device import CudaDevice
from hvq_edge.runtime.cuda.memory import CudaMemory

MIB = 1 << 20
COPIED = 64 * MIB
ROUNDS = 5
OPENINGS = 50
MAY_MISS = 2 * MIB
"""Of GPU memory after all openings: others use the GPU too."""


def check_memory(
    memory: Callable[[], CudaMemory],
    device: Callable[[], CudaDevice],
    *,
    size: int = COPIED,
    openings: int = OPENINGS,
) -> Iterator[Finding]:
    """Copy there and back, on streams and as a graph, and look what is left after closing.

    Args:
        memory: opens the library.
        device: tells how much GPU memory is free.
        size: bytes to copy.
        openings: how often to open and close.
    """
    opened = memory()
    try:
        with opened.current():
            yield from _copies(opened, size)
    finally:
        opened.close()
    yield _what_stays(memory, device, openings)


def _copies(memory: CudaMemory, size: int) -> Iterator[Finding]:
    name = memory.name
    there, back = (memory.page_locked((size,), np.dtype(np.uint8)) for _ in range(2))
    address = memory.allocate(size)
    up, down = memory.new_stream(), memory.new_stream()
    arrived, done = memory.new_event(), memory.new_event()

    def round_trip(fill: int) -> float:
        there[:] = fill
        began = time.perf_counter()
        memory.to_device(address, there, up)
        memory.record(arrived, up)
        memory.wait(down, arrived)
        memory.to_host(back, address, down)
        memory.record(done, down)
        memory.synchronise(done)
        taken = time.perf_counter() - began
        if not (back == fill).all():
            raise HvqEdgeError(f"{name}: what came back is not what was copied there.")
        return taken

    seconds = median(round_trip(i + 1) for i in range(ROUNDS))
    rate = 2 * size / seconds / 1e9
    yield Finding(f"{name}: copies on two streams", "ok", f"{rate:.1f} GB/s", rate)
    if not memory.can_capture:
        yield Finding(f"{name}: CUDA graph", "not run", "the library has no call for it")
        return
    memory.begin_capture(up)
    memory.to_device(address, there, up)
    memory.to_host(back, address, up)
    graph = memory.end_capture(up)
    there[:] = 200
    memory.launch(graph, up)
    memory.drain()
    same = bool((back == 200).all())
    yield Finding(
        f"{name}: CUDA graph",
        "ok" if same else "failed",
        "copies there and back" if same else "the graph did not copy",
    )


def _what_stays(
    memory: Callable[[], CudaMemory], device: Callable[[], CudaDevice], openings: int
) -> Finding:
    def use() -> str:
        opened = memory()
        try:
            with opened.current():
                opened.allocate(8 * MIB)
                opened.page_locked((MIB,), np.dtype(np.uint8))
                opened.new_stream()
        finally:
            opened.close()
        return opened.name

    name = use()  # the first one loads modules, which stay
    before = device().free
    for _ in range(openings):
        use()
    missing = max(before - device().free, 0)
    return Finding(
        f"{name}: GPU memory missing after {openings} openings",
        "ok" if missing <= MAY_MISS else "failed",
        f"{missing / MIB:.1f} MiB",
        missing / MIB,
    )
