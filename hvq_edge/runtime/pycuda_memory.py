"""GPU memory with PyCUDA: https://documen.tician.de/pycuda/driver.html."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PyCudaMemory:
    """See :class:`hvq_edge.runtime.cuda_memory.CudaMemory`.

    Args:
        driver: ``pycuda.driver``; default: imported.

    Raises:
        ImportError: PyCUDA or the driver's library is missing.
    """

    def __init__(self, driver: Any | None = None) -> None:  # noqa: ANN401
        self._driver: Any = driver or importlib.import_module("pycuda.driver")
        self._driver.init()
        self._context: Any = self._driver.Device(0).retain_primary_context()
        self._blocks: list[Any] = []
        self._pages: list[Any] = []
        try:
            with self.current():
                self._stream: Any = self._driver.Stream()
        except BaseException:
            self._context.detach()
            raise
        self.name = f"PyCUDA {'.'.join(map(str, importlib.import_module('pycuda').VERSION))}"

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream.handle)

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

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        """Copy to the GPU on the stream."""
        self._driver.memcpy_htod_async(address, array, self._stream)

    def to_host(self, array: NDArray[Any], address: int) -> None:
        """Copy from the GPU on the stream."""
        self._driver.memcpy_dtoh_async(array, address, self._stream)

    def synchronise(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()

    def close(self) -> None:
        """Free everything and leave the primary context to its other users."""
        if self._context is None:
            return
        with self.current():
            self._stream.synchronize()
            for held in (*self._blocks, *self._pages):
                held.free()
            self._stream = None  # its destructor needs the context
        self._blocks, self._pages = [], []
        self._context.detach()
        self._context = None
