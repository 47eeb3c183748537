"""PyCUDA or cuda-python: which one, what they lack, how they fail."""

from __future__ import annotations

import sys

import pytest
from helpers.gpu_stand_in import CudaBindings, PyCuda
from helpers.graphs import save_bundle
from helpers.plans import opened, save_plan

from benchmarks.gpu.gpu_memory_check import check_memory
from hvq_edge.errors import HvqEdgeError, MissingCapability
from hvq_edge.runtime.cuda.device import cuda_device
from hvq_edge.runtime.cuda.memory import open_cuda_memory


def test_neither_memory_library(monkeypatch):
    for name in ("pycuda.driver", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingCapability, match="neither PyCUDA nor cuda-python"):
        open_cuda_memory()


def test_pycuda_comes_first(monkeypatch):
    for made in (CudaBindings(), PyCuda()):
        made.install(monkeypatch)
    memory = open_cuda_memory()
    assert memory.name == "PyCUDA 2026.1"
    memory.close()


def test_a_driver_that_fails_is_said(monkeypatch):
    made = PyCuda(error=RuntimeError("cuInit failed: no CUDA-capable device is detected"))
    made.install(monkeypatch)
    with pytest.raises(MissingCapability, match="no CUDA-capable device"):
        open_cuda_memory()


def test_cuda_python_that_fails(monkeypatch):
    made = CudaBindings("cuInit")
    made.install(monkeypatch)
    with pytest.raises(MissingCapability, match="cuInit gave error 2"):
        open_cuda_memory()
    assert made.held.nothing


@pytest.mark.parametrize("fails", ["cuStreamCreate", "cuEventCreate", "cuMemAllocHost"])
def test_cuda_python_that_fails_while_an_engine_is_opened(tmp_path, monkeypatch, fails):
    made = CudaBindings(fails)
    made.install(monkeypatch)
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with pytest.raises(HvqEdgeError, match=f"{fails} gave error 2"):
        opened(bundle)
    assert made.held.nothing


def test_on_a_real_gpu():
    try:
        open_cuda_memory().close()
    except MissingCapability as error:
        pytest.skip(error.cause)
    found = [*check_memory(open_cuda_memory, cuda_device, size=1 << 20, openings=3)]
    assert len(found) == 3
    assert {one.state for one in found} <= {"ok", "not run"}, found
