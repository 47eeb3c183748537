"""What the driver says of the GPU; a stand-in of the driver, for machines without one."""

from __future__ import annotations

import pytest

from hvq_edge.errors import MissingCapability
from hvq_edge.runtime.cuda import device as module
from hvq_edge.runtime.cuda.device import CudaDevice, cuda_device

ATTRIBUTES = {75: 8, 76: 7, 18: 1}


class Driver:
    """libcuda as ctypes shows it: results through pointers, a status returned."""

    def __init__(self, fails: dict[str, int] | None = None) -> None:
        self.fails = fails or {}
        self.retained = self.pushed = 0

    def __getattr__(self, name):
        def call(*arguments):
            if name in self.fails:
                return self.fails[name]
            getattr(self, f"_{name.removesuffix('_v2')}")(*arguments)
            return 0

        return call

    def _cuInit(self, flags):  # noqa: N802
        assert flags == 0

    def _cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = 12060

    def _cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = index

    def _cuDeviceGetName(self, name, size, device):  # noqa: N802
        name.value = b"Orin (nvgpu)"

    def _cuDeviceGetAttribute(self, value, number, device):  # noqa: N802
        value._obj.value = ATTRIBUTES[number]

    def _cuDevicePrimaryCtxRetain(self, context, device):  # noqa: N802
        self.retained += 1

    def _cuDevicePrimaryCtxRelease(self, device):  # noqa: N802
        self.retained -= 1

    def _cuCtxPushCurrent(self, context):  # noqa: N802
        self.pushed += 1

    def _cuCtxPopCurrent(self, context):  # noqa: N802
        self.pushed -= 1

    def _cuMemGetInfo(self, free, total):  # noqa: N802
        assert self.pushed == self.retained == 1
        free._obj.value, total._obj.value = 5 << 30, 8 << 30

    def _cuGetErrorString(self, status, text):  # noqa: N802
        text._obj.value = b"a reason"


def test_a_jetson():
    driver = Driver()
    assert cuda_device(driver) == CudaDevice(
        "Orin (nvgpu)", "8.7", "12.6", total=8 << 30, free=5 << 30, shared=True
    )
    assert (driver.pushed, driver.retained) == (0, 0)


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ({"cuInit": 100}, "finds no GPU"),
        ({"cuDeviceGet": 100}, "finds no GPU"),
        ({"cuMemGetInfo_v2": 2}, "cuMemGetInfo_v2 gave error 2, a reason"),
        ({"cuCtxPushCurrent_v2": 201}, "error 201"),
    ],
)
def test_a_driver_that_fails(fails, said):
    driver = Driver(fails)
    with pytest.raises(MissingCapability, match=said):
        cuda_device(driver)
    assert (driver.pushed, driver.retained) == (0, 0), "nothing stays held"


def test_no_driver(monkeypatch):
    monkeypatch.setattr(module, "LIBRARY", "libno-such-driver.so.1")
    with pytest.raises(MissingCapability, match=r"no NVIDIA driver: libno-such-driver\.so\.1"):
        cuda_device()
