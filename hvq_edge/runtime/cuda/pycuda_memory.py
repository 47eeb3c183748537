"""GPU memory with PyCUDA: https://documen.tician.de/pycuda/driver.html."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import MissingCapability
from hvq_edge.runtime.cuda.device import LIBRARY

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, for which PyCUDA has no name
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING


def version() -> str:
    """Return library and version in words.

    Raises:
        ImportError: PyCUDA is missing.
    """
    return f"PyCUDA {'.'.join(map(str, importlib.import_module('pycuda').VERSION))}"


def driver_library() -> Any:  # noqa: ANN401
    """Return NVIDIA's driver itself, for what PyCUDA leaves undone."""
    return ctypes.CDLL(LIBRARY)


class PyCudaMemory:
    """See :class:`hvq_edge.runtime.cuda.memory.CudaMemory`.

    Args:
        driver: ``pycuda.driver``; default: imported.

    Raises:
        ImportError: PyCUDA or the driver's library is missing.
    """

    can_capture = False
    """PyCUDA 2026.1 has no call for it."""

    def __init__(self, driver: Any | None = None) -> None:  # noqa: ANN401
        self._driver: Any = driver or importlib.import_module("pycuda.driver")
        self.name = version()
        self._driver.init()
        self._context: Any = self._driver.Device(0).retain_primary_context()
        self._blocks: list[Any] = []
        self._pages: list[Any] = []
        self._streams: dict[int, Any] = {}
        self._events: list[Any] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current in this thread."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def page_locked(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a page-locked array."""
        array: NDArray[Any] = self._driver.pagelocked_empty(tuple(shape), dtype)
        self._pages.append(array.base)
        return array

    def allocate(self, size: int) -> int:
        """Return the address of new GPU memory."""
        block = self._driver.mem_alloc(size)
        self._blocks.append(block)
        return int(block)

    def new_stream(self) -> int:
        """Return a new stream's handle."""
        stream = self._driver.Stream(_NON_BLOCKING)
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def new_event(self) -> int:
        """Return a new event's number."""
        self._events.append(self._driver.Event(_NO_TIMING))
        return len(self._events) - 1

    def to_device(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy to the GPU on a stream."""
        self._driver.memcpy_htod_async(address, array, self._streams[stream])

    def to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy from the GPU on a stream."""
        self._driver.memcpy_dtoh_async(array, address, self._streams[stream])

    def record(self, event: int, stream: int) -> None:
        """Put an event on a stream."""
        self._events[event].record(self._streams[stream])

    def wait(self, stream: int, event: int) -> None:
        """Let a stream wait for an event."""
        self._streams[stream].wait_for_event(self._events[event])

    def synchronise(self, event: int) -> None:
        """Wait for an event."""
        self._events[event].synchronize()

    def drain(self) -> None:
        """Wait for all streams."""
        for stream in self._streams.values():
            stream.synchronize()

    def begin_capture(self, stream: int) -> None:  # noqa: ARG002
        """Refuse: :attr:`can_capture` is false."""
        raise self._no_graphs()

    def end_capture(self, stream: int) -> int:  # noqa: ARG002
        """Refuse as :meth:`begin_capture` does."""
        raise self._no_graphs()

    def launch(self, graph: int, stream: int) -> None:  # noqa: ARG002
        """Refuse as :meth:`begin_capture` does."""
        raise self._no_graphs()

    def close(self) -> None:
        """Free everything and leave the primary context to its other users."""
        if self._context is None:
            return
        self._context.push()
        self.drain()
        for held in (*self._blocks, *self._pages):
            held.free()
        # Their destructors need the context.
        self._streams.clear()
        self._events.clear()
        self._blocks, self._pages = [], []
        # PyCUDA leaves a primary context on the driver's stack, where other users would find it.
        driver_library().cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        # PyCUDA thinks it current: else it lets go of nothing but in the thread that opened it.
        self._context.detach()
        self._context = None

    def _no_graphs(self) -> MissingCapability:
        return MissingCapability(
            f"{self.name} has no CUDA graphs.",
            next_step="pip uninstall pycuda, and pip install cuda-bindings",
        )
