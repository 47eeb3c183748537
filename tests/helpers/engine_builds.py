"""Engines built without a GPU."""

from __future__ import annotations

from helpers.tensorrt_stand_in import RTX, tensorrt

from hvq_edge.export.build.run import build_run
from hvq_edge.runtime.cuda.device import CudaDevice

ORIN = CudaDevice("Orin", "8.7", "12.6", total=8 << 30, free=6 << 30, shared=False)


def build(bundle, library=None, *, device=lambda: ORIN, **more):
    library = library or tensorrt("10.3.0")
    if "backend" not in more:
        more["backend"] = "tensorrt-rtx" if library.__version__ == RTX else "tensorrt"
    return build_run(bundle, load=lambda _: library, device=device, **more)
