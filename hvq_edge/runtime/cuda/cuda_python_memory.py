"""GPU memory with NVIDIA's cuda-python: https://nvidia.github.io/cuda-python/cuda-bindings/."""

from __future__ import annotations

import ctypes
import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import HvqEdgeError

_DEFAULT = 0  # flags
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING


def version() -> str:
    """Return library and version in words.

    Raises:
        ImportError: cuda-python is missing.
    """
    return f"cuda-python {importlib.import_module('cuda.bindings').__version__}"


class CudaPythonMemory:
    """See :class:`hvq_edge.runtime.cuda.memory.CudaMemory`.

    Args:
        driver: ``cuda.bindings.driver``; default: imported.

    Raises:
        ImportError: cuda-python is missing.
        HvqEdgeError: the driver refuses something.
    """

    can_capture = True

    def __init__(self, driver: Any | None = None) -> None:  # noqa: ANN401
        self._driver: Any = driver or importlib.import_module("cuda.bindings.driver")
        self.name = version()
        self._call("cuInit", _DEFAULT)
        (self._device,) = self._call("cuDeviceGet", 0)
        (self._context,) = self._call("cuDevicePrimaryCtxRetain", self._device)
        self._blocks: list[int] = []
        self._pages: list[int] = []
        self._streams: dict[int, Any] = {}
        self._events: list[Any] = []
        self._graphs: list[Any] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current in this thread."""
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def page_locked(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a page-locked array."""
        size = math.prod(shape) * dtype.itemsize
        (address,) = self._call("cuMemAllocHost", size)
        self._pages.append(address)
        buffer = (ctypes.c_uint8 * size).from_address(int(address))
        array: NDArray[Any] = np.frombuffer(memoryview(buffer), dtype=dtype)
        return array.reshape(tuple(shape))

    def allocate(self, size: int) -> int:
        """Return the address of new GPU memory."""
        (address,) = self._call("cuMemAlloc", size)
        self._blocks.append(address)
        return int(address)

    def new_stream(self) -> int:
        """Return a new stream's handle."""
        (stream,) = self._call("cuStreamCreate", _NON_BLOCKING)
        self._streams[int(stream)] = stream
        return int(stream)

    def new_event(self) -> int:
        """Return a new event's number."""
        self._events += self._call("cuEventCreate", _NO_TIMING)
        return len(self._events) - 1

    def to_device(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy to the GPU on a stream."""
        source = array.ctypes.data
        self._call("cuMemcpyHtoDAsync", address, source, array.nbytes, self._streams[stream])

    def to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy from the GPU on a stream."""
        target = array.ctypes.data
        self._call("cuMemcpyDtoHAsync", target, address, array.nbytes, self._streams[stream])

    def record(self, event: int, stream: int) -> None:
        """Put an event on a stream."""
        self._call("cuEventRecord", self._events[event], self._streams[stream])

    def wait(self, stream: int, event: int) -> None:
        """Let a stream wait for an event."""
        self._call("cuStreamWaitEvent", self._streams[stream], self._events[event], _DEFAULT)

    def synchronise(self, event: int) -> None:
        """Wait for an event."""
        self._call("cuEventSynchronize", self._events[event])

    def drain(self) -> None:
        """Wait for all streams."""
        for stream in self._streams.values():
            self._call("cuStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """Note what this thread puts on a stream; other threads' calls are left alone."""
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._streams[stream], mode)

    def end_capture(self, stream: int) -> int:
        """Return what was noted, as a graph that can be launched."""
        (noted,) = self._call("cuStreamEndCapture", self._streams[stream])
        try:
            self._graphs += self._call("cuGraphInstantiate", noted, _DEFAULT)
        finally:
            self._call("cuGraphDestroy", noted)
        return len(self._graphs) - 1

    def launch(self, graph: int, stream: int) -> None:
        """Launch a graph on a stream."""
        self._call("cuGraphLaunch", self._graphs[graph], self._streams[stream])

    def close(self) -> None:
        """Free everything and leave the primary context to its other users."""
        if self._context is None:
            return
        with self.current():
            self.drain()
            for call, held in (
                ("cuGraphExecDestroy", self._graphs),
                ("cuEventDestroy", self._events),
                ("cuStreamDestroy", list(self._streams.values())),
                ("cuMemFree", self._blocks),
                ("cuMemFreeHost", self._pages),
            ):
                for one in held:
                    self._call(call, one)
                held.clear()
            self._streams.clear()
        self._call("cuDevicePrimaryCtxRelease", self._device)
        self._context = None

    def _call(self, name: str, *arguments: object) -> tuple[Any, ...]:
        status, *results = getattr(self._driver, name)(*arguments)
        if int(status) != 0:
            raise HvqEdgeError(
                f"CUDA fails: {name} gave error {int(status)}.",
                next_step="see whether nvidia-smi works, and whether GPU memory is left",
            )
        return tuple(results)
