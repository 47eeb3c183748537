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


class CudaPythonMemory:
    """See :class:`hvq_edge.runtime.cuda_memory.CudaMemory`.

    Args:
        driver: ``cuda.bindings.driver``; default: imported.

    Raises:
        ImportError: cuda-python is missing.
        HvqEdgeError: the driver refuses something.
    """

    def __init__(self, driver: Any | None = None) -> None:  # noqa: ANN401
        self._driver: Any = driver or importlib.import_module("cuda.bindings.driver")
        self._call("cuInit", _DEFAULT)
        (self._device,) = self._call("cuDeviceGet", 0)
        (self._context,) = self._call("cuDevicePrimaryCtxRetain", self._device)
        self._blocks: list[int] = []
        self._pages: list[int] = []
        try:
            with self.current():
                (self._stream,) = self._call("cuStreamCreate", _DEFAULT)
        except BaseException:
            self._call("cuDevicePrimaryCtxRelease", self._device)
            raise
        self.name = f"cuda-python {importlib.import_module('cuda.bindings').__version__}"

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream)

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

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        """Copy to the GPU on the stream."""
        self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, self._stream)

    def to_host(self, array: NDArray[Any], address: int) -> None:
        """Copy from the GPU on the stream."""
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, self._stream)

    def synchronise(self) -> None:
        """Wait for the stream."""
        self._call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Free everything and leave the primary context to its other users."""
        if self._context is None:
            return
        with self.current():
            self.synchronise()
            for block in self._blocks:
                self._call("cuMemFree", block)
            for page in self._pages:
                self._call("cuMemFreeHost", page)
            self._call("cuStreamDestroy", self._stream)
        self._blocks, self._pages = [], []
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
