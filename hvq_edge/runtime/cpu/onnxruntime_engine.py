"""ONNX Runtime: on the CPU the reference for exported graphs, and the fallback everywhere."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.runtime.contract import (
    Graph,
    check_graph,
    closed_error,
    graph_feed,
    graph_result,
    run_error,
)
from hvq_edge.runtime.cpu.compiled import CompiledFile
from hvq_edge.runtime.cpu.graph_engine import CpuGraphEngine
from hvq_edge.runtime.cpu.onnxruntime_providers import (
    ONNXRUNTIME,
    open_session,
    provider_version,
)
from hvq_edge.runtime.cpu.processor import processor_name
from hvq_edge.runtime.engine import EngineOutput, Frames

logger = logging.getLogger(__name__)

_SEVERITY_ERROR = 3


class OnnxRuntimeEngine(CpuGraphEngine):
    """Runs one exported ONNX graph with ONNX Runtime's CPU provider, or one for NVIDIA GPUs.

    Any number of threads may call :meth:`run` at once.

    Args:
        graph: what is run.
        threads: threads of one ``run``; ``None``: the library's choice.
        backend: ``onnxruntime``, or one of
            :data:`hvq_edge.runtime.cpu.onnxruntime_providers.PROVIDERS`.

    Raises:
        MissingCapability: the library or the provider is not here.
        BundleError: the file is not a graph that it loads, or not one of this category mode.
        SettingsError: ``threads`` is less than one.
    """

    library = "onnxruntime"
    called = "ONNX Runtime"
    without = "run pip install onnxruntime, or use --backend openvino"
    unloaded = "run hvq-edge export again, or update onnxruntime"

    def __init__(
        self, graph: Graph, *, threads: int | None = None, backend: str = ONNXRUNTIME
    ) -> None:
        self.backend = backend
        super().__init__(graph, threads=threads)

    def _load(self, library: Any, graph: Graph, threads: int | None) -> str:  # noqa: ANN401  # untyped
        library.disable_telemetry_events()
        options = library.SessionOptions()
        options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _SEVERITY_ERROR
        options.intra_op_num_threads = threads or 0
        session = self._session_on(library, graph, options)
        check_graph(
            graph.file,
            {node.name: node.shape for node in session.get_inputs()},
            [node.name for node in session.get_outputs()],
            graph.category_mode,
            graph.frame_shape,
        )
        self._session: Any = session
        here = processor_name()
        if self.backend != ONNXRUNTIME:
            here = provider_version(self.backend)
        return f"{here}, ONNX Runtime {library.__version__}"

    def _session_on(self, library: Any, graph: Graph, options: Any) -> Any:  # noqa: ANN401  # untyped
        """Return a session on a graph, or on what the processor's provider has made of it before.

        Other providers keep what they compile themselves.
        """
        if self.backend != ONNXRUNTIME or not graph.sha256:
            return open_session(library, self.backend, graph.load(), options)
        file = CompiledFile(graph.sha256, self.backend, library.__version__)
        level, done = options.graph_optimization_level, library.GraphOptimizationLevel
        kept = file.read()
        if kept is not None:
            options.graph_optimization_level = done.ORT_DISABLE_ALL
            try:
                session = open_session(library, self.backend, kept.content, options)
            except Exception as error:  # noqa: BLE001  # its exceptions share no public base class
                logger.info("the graph is compiled again, as its kept form is refused: %s", error)
                options.graph_optimization_level = level
            else:
                self.compiled_sha256 = kept.sha256
                return session
        try:
            with file.scratch() as written:
                options.optimized_model_filepath = str(written)
                session = open_session(library, self.backend, graph.load(), options)
                file.keep(written.read_bytes())
                return session
        except Exception as error:  # noqa: BLE001  # likewise; a faulty graph fails once more below
            logger.info("the compiled graph is not kept: %s", error)
        options.optimized_model_filepath = ""
        return open_session(library, self.backend, graph.load(), options)

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch; see :meth:`hvq_edge.runtime.engine.Engine.run`."""
        session = self._session  # held here, so close() from another thread cannot free it
        if session is None:
            raise closed_error()
        feed = graph_feed(frames, category, self.info)
        try:
            results = session.run(self._outputs, feed)
        except Exception as error:  # its exceptions share no public base class
            raise run_error(self.info, error) from error
        return graph_result(dict(zip(self._outputs, results, strict=True)), feed, self.info)

    def close(self) -> None:
        """Free the session once no :meth:`run` uses it; calling it twice is fine."""
        self._session = None
