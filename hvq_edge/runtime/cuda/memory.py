"""GPU memory, page-locked main memory, streams and events, as an engine needs them.

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
    """What one engine has on one GPU: all of it is freed by :meth:`close`.

    A stream is an integer, the handle that TensorRT takes too; events and graphs are integers that
    mean something to this object only. Streams do not wait for the device's default stream, where
    PyTorch works.
    """

    name: str
    """Library and version, for reports."""
    can_capture: bool
    """Whether the library has CUDA graphs."""

    def current(self) -> AbstractContextManager[None]:
        """Make the context current in this thread; every other call needs that."""
        ...

    def page_locked(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array in main memory that the GPU copies from and to by itself."""
        ...

    def allocate(self, size: int) -> int:
        """Allocate bytes on the GPU and return their address."""
        ...

    def new_stream(self) -> int:
        """Return a stream. Its work is done in order, in parallel with other streams."""
        ...

    def new_event(self) -> int:
        """Return an event."""
        ...

    def to_device(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous page-locked array to the GPU, when the stream gets there."""
        ...

    def to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy from the GPU to a contiguous page-locked array, when the stream gets there."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Let the event happen when the stream gets there."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """Let the stream go on only once the event has happened."""
        ...

    def synchronise(self, event: int) -> None:
        """Wait here until the event has happened."""
        ...

    def drain(self) -> None:
        """Wait here until every stream has done everything."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Begin to record what this thread puts on the stream, instead of doing it."""
        ...

    def end_capture(self, stream: int) -> int:
        """Return what was noted, as a graph.

        Raises:
            HvqEdgeError: something was put on the stream that no graph can hold.
        """
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Do all that a graph holds, when the stream gets there."""
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
    from hvq_edge.runtime.cuda.pycuda_memory import PyCudaMemory

    return _opened(PyCudaMemory)


def _cuda_python() -> CudaMemory:
    from hvq_edge.runtime.cuda.cuda_python_memory import CudaPythonMemory

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
