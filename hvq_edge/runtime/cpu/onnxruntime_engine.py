"""ONNX Runtime on the CPU: the reference for exported graphs, and the fallback everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.closeable import Closeable
from hvq_edge.common.extras import missing_library
from hvq_edge.errors import BundleError, MissingCapability
from hvq_edge.runtime.contract import (
    Graph,
    check_graph,
    check_threads,
    closed_error,
    graph_feed,
    graph_outputs,
    graph_result,
)
from hvq_edge.runtime.cpu.processor import processor_name
from hvq_edge.runtime.engine import EngineOutput, Frames

_SEVERITY_ERROR = 3


class OnnxRuntimeEngine(Closeable):
    """Runs one exported ONNX graph with ONNX Runtime's CPU provider.

    Any number of threads may call :meth:`run` at once.

    Args:
        graph: what is run.
        threads: threads of one :meth:`run`; ``None``: one a physical core.

    Raises:
        MissingCapability: ONNX Runtime is not installed.
        BundleError: the file is not a graph that it loads, or not one of this category mode.
        SettingsError: ``threads`` is less than one.
    """

    def __init__(self, graph: Graph, *, threads: int | None = None) -> None:
        check_threads(threads)
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_library(error) or MissingCapability(
                f"ONNX Runtime cannot be imported: {error}.",
                next_step="run pip install onnxruntime, or use --backend openvino",
            ) from error
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _SEVERITY_ERROR
        options.intra_op_num_threads = threads or 0
        try:
            session = onnxruntime.InferenceSession(
                graph.load(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no public base class
            raise BundleError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {graph.file}: {error}.",
                next_step="run hvq-edge export again, or update onnxruntime",
            ) from error
        check_graph(
            graph.file,
            {node.name: node.shape for node in session.get_inputs()},
            [node.name for node in session.get_outputs()],
            graph.category_mode,
            graph.input_side,
        )
        self._session: Any = session
        self._outputs = graph_outputs(graph.category_mode)
        device = f"{processor_name()}, ONNX Runtime {onnxruntime.__version__}"
        self.info = graph.info("onnxruntime", device)

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch; see :meth:`hvq_edge.runtime.engine.Engine.run`."""
        session = self._session  # held here, so close() from another thread cannot free it
        if session is None:
            raise closed_error()
        feed = graph_feed(frames, category, self.info)
        results = session.run(self._outputs, feed)
        return graph_result(dict(zip(self._outputs, results, strict=True)), feed, self.info)

    def close(self) -> None:
        """Free the session once no :meth:`run` uses it; calling it twice is fine."""
        self._session = None
