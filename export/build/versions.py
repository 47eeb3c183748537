"""What differs between the versions of TensorRT that build engines: this table, and nowhere else.

The names come from the libraries' own API lists (``tests/data/tensorrt_api``); what has no name
there comes from NVIDIA's pages, given beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hvq_edge.errors import MissingCapability
from hvq_edge.runtime.tensorrt.engine_file import EngineBackend, HardwareCompatibility

OLDEST = (10, 3)
"""JetPack 6.1. 8.x has no strongly typed networks, and 8.6.2 fails on some LayerNormalization."""


@dataclass(frozen=True)
class Version:
    """What a version of a library can do."""

    backend: EngineBackend
    text: str
    """The version as the library gives it, such as ``10.3.0``."""
    hardware: Mapping[HardwareCompatibility, str]
    """Enumerator of ``HardwareCompatibilityLevel`` for each level besides ``none``."""
    version_compatible: bool
    timing_cache: bool
    names_capabilities: bool
    """Engines are built for named compute capabilities, not for the GPU that is there."""
    least_max_batch: int
    no_dla: str
    """Why there is no DLA; empty where there may be one."""
    no_code_for: tuple[str, ...] = ()
    """Compute capabilities that the library was built without."""

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.backend == 'tensorrt-rtx' else 'TensorRT'} {self.text}"


def version_of(module: Any, backend: EngineBackend) -> Version:  # noqa: ANN401
    """Return what an imported library can do.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        backend: which of the two it is.

    Raises:
        MissingCapability: a version that cannot build these graphs.
    """
    text = str(module.__version__)
    numbers = tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
    if backend == "tensorrt-rtx":
        return Version(
            backend=backend,
            text=text,
            hardware={},  # 1.7 warns that setting it is unsupported; capabilities are named instead
            version_compatible=False,  # 1.7 asks for libnvinfer_lean.so.1, which it does not bring
            timing_cache=False,  # deprecated in 1.2, a no-op
            names_capabilities=True,
            least_max_batch=2,  # a profile of one batch size alone ends 1.7 with a segfault
            no_dla="TensorRT-RTX runs on GPUs only",
        )
    if numbers < OLDEST:
        raise MissingCapability(
            f"TensorRT {text} is too old: engines need strongly typed networks and a "
            "LayerNormalization that holds, from TensorRT 10.3 on.",
            next_step="on a Jetson Orin install JetPack 6.1 or newer (JetPack 5 has TensorRT 8.5); "
            "elsewhere TensorRT 10.3 or newer",
        )
    hardware: dict[HardwareCompatibility, str] = {"ampere+": "AMPERE_PLUS"}
    if hasattr(module.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY"):
        hardware["same-compute-capability"] = "SAME_COMPUTE_CAPABILITY"
    return Version(
        backend=backend,
        text=text,
        hardware=hardware,
        version_compatible=True,
        timing_cache=True,
        names_capabilities=False,
        least_max_batch=1,
        # docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/work-with-dla.html
        no_dla=""
        if numbers < (10, 8) or numbers >= (11, 4, 1)
        else f"TensorRT {text} has no DLA support: 10.7 was the last with it, until 11.4.1",
        no_code_for=("8.7",) if numbers[:2] == (10, 13) else (),
    )
