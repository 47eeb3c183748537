"""GPU memory, page-locked main memory and a stream, as an engine needs them.

PyCUDA does it, or cuda-python where PyCUDA is not built: both behind one small interface, so that
engines know neither. Both use the device's primary context, which PyTorch in the same process uses
too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import MissingCapability


class CudaMemory(Protocol):
    """What one engine has on one GPU: all of it is freed by :meth:`close`."""

    name: str
    """Library and version, for reports."""

    @property
    def stream(self) -> int:
        """Handle of the stream that copies go on."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """Make the context current in this thread; every other call needs that."""
        ...

    def page_locked(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array in main memory that the GPU copies from and to by itself."""
        ...

    def allocate(self, size: int) -> int:
        """Return the address of so many bytes on the GPU."""
        ...

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous page-locked array to the GPU, when the stream gets there."""
        ...

    def to_host(self, array: NDArray[Any], address: int) -> None:
        """Copy from the GPU to a contiguous page-locked array, when the stream gets there."""
        ...

    def synchronise(self) -> None:
        """Wait until the stream has done everything."""
        ...

    def close(self) -> None:
        """Free everything; calling it twice is fine."""
        ...


def open_cuda_memory() -> CudaMemory:
    """Open PyCUDA, or cuda-python where that is not installed.

    Raises:
        MissingCapability: neither is installed, or there is no driver or GPU.
    """
    reasons = []
    for opener in (_pycuda, _cuda_python):
        try:
            return opener()
        except ImportError as error:  # PyCUDA says so of a missing driver as well
            reasons.append(str(error))
    raise MissingCapability(
        f"neither PyCUDA nor cuda-python can be imported: {'; '.join(reasons)}.",
        next_step="install NVIDIA's driver, then pip install pycuda, or pip install cuda-bindings "
        "where it does not build",
    )


def _pycuda() -> CudaMemory:
    from hvq_edge.runtime.pycuda_memory import PyCudaMemory

    return _opened(PyCudaMemory)


def _cuda_python() -> CudaMemory:
    from hvq_edge.runtime.cuda_python_memory import CudaPythonMemory

    return _opened(CudaPythonMemory)


def _opened(kind: Callable[[], CudaMemory]) -> CudaMemory:
    try:
        return kind()
    except (ImportError, MissingCapability):
        raise
    except Exception as error:  # the libraries' own errors share no base class
        raise MissingCapability(
            f"the GPU cannot be used: {str(error).rstrip('.')}.",
            next_step="see whether nvidia-smi works; in a container start it with --gpus all, on a "
            "Jetson with --runtime nvidia",
        ) from error
