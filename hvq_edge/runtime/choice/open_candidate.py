"""Open one backend on one graph, or on an engine built from it, of a bundle."""

from __future__ import annotations

from hvq_edge.bundle.opened import Bundle
from hvq_edge.runtime.choice.measured_choice import Candidate
from hvq_edge.runtime.contract import Graph
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.engine_names import unknown_backend
from hvq_edge.runtime.tensorrt.engine_file import engine_backend


def open_built(bundle: Bundle, candidate: Candidate) -> Engine:
    """Open an engine that ``hvq-edge build`` made.

    Raises:
        HvqEdgeError: see :func:`hvq_edge.runtime.tensorrt.find_engine.open_tensorrt`.
    """
    from hvq_edge.runtime.tensorrt.find_engine import open_tensorrt

    library = engine_backend(candidate.backend)
    if library is None:
        raise unknown_backend(candidate.backend)
    return open_tensorrt(bundle, library, candidate.precision)


def open_graph(bundle: Bundle, candidate: Candidate, content: bytes, threads: int | None) -> Engine:
    """Open a graph in a library that runs it.

    Args:
        bundle: whose graph it is.
        candidate: backend and precision.
        content: of the graph's file (:meth:`hvq_edge.bundle.opened.Bundle.read`).
        threads: threads of one call; ``None`` leaves it to the library.

    Raises:
        MissingCapability: the library, or its provider for GPUs, is not here.
        BundleError: the graph is another than the bundle says.
    """
    from hvq_edge.runtime.cpu.onnxruntime_engine import OnnxRuntimeEngine
    from hvq_edge.runtime.cpu.openvino_engine import OpenVinoEngine

    manifest = bundle.manifest
    name = bundle.model_name(candidate.precision)
    graph = Graph(
        bundle.path / name,
        candidate.precision,
        manifest.frame_shape,
        manifest.categories,
        manifest.category_mode,
        content,
        # Where a signature is required, nothing runs that it does not cover.
        "" if bundle.signed else manifest.files[name].sha256,
    )
    if candidate.backend == "openvino":
        return OpenVinoEngine(graph, threads=threads)
    return OnnxRuntimeEngine(graph, threads=threads, backend=candidate.backend)
