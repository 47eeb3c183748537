"""The GPU of this machine, asked of NVIDIA's driver itself.

With ctypes: a Jetson has the driver's library and none of the Python packages that wrap it, and
seven calls need no package.
https://docs.nvidia.com/cuda/cuda-driver-api/
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from hvq_edge.errors import MissingCapability

LIBRARY = "libcuda.so.1"

_INTEGRATED, _MAJOR, _MINOR = 18, 75, 76  # CUdevice_attribute
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_NAME_BYTES = 256


@dataclass(frozen=True)
class CudaDevice:
    """The first GPU that ``CUDA_VISIBLE_DEVICES`` shows."""

    name: str
    compute_capability: str
    """Such as ``8.7``."""
    driver: str
    """Newest CUDA version that the driver serves, such as ``12.6``."""
    total: int
    """Bytes of memory."""
    free: int
    """Bytes that are free now."""
    shared: bool
    """Whether its memory is the main memory, as on a Jetson."""


def cuda_device(driver: Any | None = None) -> CudaDevice:  # noqa: ANN401
    """Return the GPU of this machine.

    Args:
        driver: the driver's library, loaded; default: that of this machine.

    Raises:
        MissingCapability: no driver, no GPU, or the driver fails.
    """
    if driver is None:
        try:
            driver = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise MissingCapability(
                f"this machine has no NVIDIA driver: {error}.",
                next_step="install NVIDIA's driver; in a container start it with --gpus all, on a "
                "Jetson with --runtime nvidia",
            ) from error
    version, device, free, total = (ctypes.c_int(), ctypes.c_int(), *_two_sizes())
    name = ctypes.create_string_buffer(_NAME_BYTES)
    context = ctypes.c_void_p()
    _call(driver, "cuInit", 0)
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    _call(driver, "cuDeviceGet", ctypes.byref(device), 0)
    _call(driver, "cuDeviceGetName", name, _NAME_BYTES, device)
    _call(driver, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:  # memory is asked of the current context
        _call(driver, "cuCtxPushCurrent_v2", context)
        try:
            _call(driver, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        finally:
            _call(driver, "cuCtxPopCurrent_v2", ctypes.byref(context))
    finally:
        _call(driver, "cuDevicePrimaryCtxRelease_v2", device)
    major, minor, integrated = (
        _attribute(driver, number, device) for number in (_MAJOR, _MINOR, _INTEGRATED)
    )
    return CudaDevice(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major}.{minor}",
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
        total=total.value,
        free=free.value,
        shared=bool(integrated),
    )


def _two_sizes() -> tuple[ctypes.c_size_t, ctypes.c_size_t]:
    return ctypes.c_size_t(), ctypes.c_size_t()


def _attribute(driver: Any, number: int, device: ctypes.c_int) -> int:  # noqa: ANN401
    value = ctypes.c_int()
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), number, device)
    return value.value


def _call(driver: Any, name: str, *arguments: object) -> None:  # noqa: ANN401
    status = getattr(driver, name)(*arguments)
    if status == 0:
        return
    if status == _NO_DEVICE:
        raise MissingCapability(
            "NVIDIA's driver finds no GPU.",
            next_step="look at CUDA_VISIBLE_DEVICES; in a container start it with --gpus all",
        )
    said = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(said))
    text = said.value.decode(errors="replace") if said.value else "unknown error"
    raise MissingCapability(
        f"NVIDIA's driver fails: {name} gave error {status}, {text}.",
        next_step="see whether nvidia-smi works, and restart the machine after a driver update",
    )
