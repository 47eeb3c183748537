"""Engines that are graphs: a stand-in of TensorRT computes them on a stand-in of the GPU."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from helpers.gpu_stand_in import CudaBindings, PyCuda
from helpers.runtime_stand_in import add_runtime
from helpers.tensorrt_stand_in import RTX, tensorrt

from hvq_edge.runtime.cuda.device import CudaDevice
from hvq_edge.runtime.tensorrt.engine_file import (
    ENGINES_FOLDER,
    BuildOptions,
    EngineRecord,
    engine_stem,
    this_platform,
)
from hvq_edge.runtime.tensorrt.find_engine import open_tensorrt

GPU = CudaDevice("NVIDIA RTX 4000", "8.9", "13.0", total=20 << 30, free=19 << 30, shared=False)


def backend_of(version: str) -> str:
    return "tensorrt-rtx" if version == RTX else "tensorrt"


def save_plan(bundle, version="10.3.0", precision="fp32", *, options=None, **changes) -> Path:
    """A plan that is the graph itself, and its record."""
    backend = backend_of(version)
    graph = bundle.path / bundle.manifest.models[precision]
    content = graph.read_bytes()
    plan = (
        bundle.path / ENGINES_FOLDER / f"{engine_stem(backend, version, ['8.9'], precision)}.plan"
    )
    plan.parent.mkdir(exist_ok=True)
    plan.write_bytes(content)
    record = EngineRecord(
        **{
            "backend": backend,
            "backend_version": version,
            "precision": precision,
            "onnx_sha256": hashlib.sha256(content).hexdigest(),
            "compute_capabilities": ("8.9",),
            "platform": this_platform(),
            "gpu_name": GPU.name,
            "driver": GPU.driver,
            "options": options or BuildOptions(),
            "workspace": 0,
            "peak_memory": None,
            "build_seconds": 0,
            "bytes": len(content),
            "plan_sha256": hashlib.sha256(content).hexdigest(),
            "hvq_edge_version": "0",
            "created": "2026-01-01T00:00:00+00:00",
            **changes,
        }
    )
    plan.with_suffix(".json").write_text(record.model_dump_json())
    return plan


@pytest.fixture(params=[PyCuda, CudaBindings])
def gpu(request, monkeypatch):
    """Either library, as if it were installed."""
    made = request.param()
    made.install(monkeypatch)
    return made


def opened(bundle, version="10.3.0", *, precision="auto", library=None, **more):
    library = library or add_runtime(tensorrt(version))
    return open_tensorrt(
        bundle,
        backend_of(library.__version__),
        precision,
        load=lambda _: library,
        device=lambda: GPU,
        **more,
    )


def same(output, wanted):
    assert output["score"].dtype == np.float32
    assert output["codes"].dtype == np.int32
    for name, value in wanted.items():
        np.testing.assert_allclose(output[name], value, rtol=1e-5, err_msg=name)
