"""OpenVINO on the CPU: the default engine, and the one that runs symmetric INT8 fast."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.runtime.contract import (
    FRAMES,
    Graph,
    check_graph,
    closed_error,
    graph_feed,
    graph_result,
    run_error,
)
from hvq_edge.runtime.cpu.compiled import CompiledFile
from hvq_edge.runtime.cpu.graph_engine import CpuGraphEngine
from hvq_edge.runtime.engine import EngineOutput, Frames

logger = logging.getLogger(__name__)

PROPERTIES = {
    "PERFORMANCE_HINT": "LATENCY",
    # Precision is what the file says. Left alone, a CPU with bfloat16 computes float32
    # operations in it, and products with INT8 weights quantise activations on the fly.
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
"""How the CPU plugin compiles a graph."""


class OpenVinoEngine(CpuGraphEngine):
    """Runs one exported ONNX graph with OpenVINO's CPU plugin, tuned for latency.

    Single frames, which is what a camera gives, run through a graph compiled for batch 1: about
    15 % faster than one with a dynamic batch, which is compiled when the first larger batch comes.
    Threads may share the engine; their calls to :meth:`run` follow one another.
    """

    library = "openvino"
    called = "OpenVINO"
    without = "run pip install openvino, or use --backend onnxruntime"
    unloaded = "run hvq-edge export again, or use --backend onnxruntime"

    def _load(self, library: Any, graph: Graph, threads: int | None) -> str:  # noqa: ANN401  # untyped
        properties: dict[str, Any] = dict(PROPERTIES)
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        core = _core()
        compiled, self.compiled_sha256 = self._compiled(library, graph, properties, single=True)
        self._single: Any = compiled.create_infer_request()
        self._any_batch: Any = None
        self._compile_any_batch: Callable[[], Any] = partial(
            self._compiled, library, graph, properties, single=False
        )
        self._lock = threading.Lock()
        self._tensor: Any = library.Tensor
        processor = core.get_property("CPU", "FULL_DEVICE_NAME")
        number = library.__version__.split("-")[0]
        return f"{processor}, OpenVINO {number}"

    def _compiled(
        self,
        library: Any,  # noqa: ANN401  # untyped
        graph: Graph,
        properties: dict[str, Any],
        *,
        single: bool,
    ) -> tuple[Any, str]:
        """Return a graph compiled for single frames or any batch, and the hash of its kept form."""
        core = _core()
        how = ("openvino", library.__version__, str(properties), f"{single=}")
        file = CompiledFile(graph.sha256, *how) if graph.sha256 else None
        kept = file.read() if file else None
        if kept is not None:
            try:
                return core.import_model(kept.content, "CPU", properties), kept.sha256
            except RuntimeError as error:
                logger.info("the graph is compiled again, as its kept form is refused: %s", error)
        model = core.read_model(BytesIO(graph.load()))
        inputs = {_name_of(port, self._inputs): port for port in model.inputs}
        shapes = {name: _shape_of(port) for name, port in inputs.items()}
        outputs = [_name_of(port, self._outputs) for port in model.outputs]
        check_graph(graph.file, shapes, outputs, graph.category_mode, graph.frame_shape)
        if single:
            model.reshape({name: [1, *shape[1:]] for name, shape in shapes.items()})
        compiled = core.compile_model(model, "CPU", properties)
        if file:
            exported = BytesIO()
            compiled.export_model(exported)
            file.keep(exported.getvalue())
        return compiled, ""

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch; see :meth:`hvq_edge.runtime.engine.Engine.run`."""
        feed = graph_feed(frames, category, self.info)
        with self._lock:
            request = self._request(len(feed[FRAMES]))
            for name in self._inputs:
                request.set_tensor(name, self._tensor(feed[name]))
            try:
                request.infer()
            except RuntimeError as error:
                raise run_error(self.info, error) from error
            # Copies: the next infer() writes into the same buffers.
            results = {name: request.get_tensor(name).data.copy() for name in self._outputs}
        return graph_result(results, feed, self.info)

    def close(self) -> None:
        """Free the compiled graph once no :meth:`run` uses it; calling it twice is fine."""
        with self._lock:
            self._single = self._any_batch = None

    def _request(self, batch: int) -> Any:  # noqa: ANN401  # OpenVINO is untyped
        """Return the infer request for a batch size; the lock must be held."""
        if self._single is None:
            raise closed_error()
        if batch == 1:
            return self._single
        if self._any_batch is None:
            compiled, _ = self._compile_any_batch()
            self._any_batch = compiled.create_infer_request()
        return self._any_batch


@cache
def _core() -> Any:  # noqa: ANN401  # OpenVINO is untyped
    """Return OpenVINO's core: one for the whole process.

    The CPU plugin of a core gives the calling thread a signal stack, and at its end puts back the
    one before. Cores that end in another order than last-first leave the thread with memory that
    is freed already, and the next signal, Ctrl-C included, is a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _shape_of(port: Any) -> list[int | None]:  # noqa: ANN401  # OpenVINO is untyped
    """Return a port's shape, ``None`` where it is dynamic."""
    return [size.get_length() if size.is_static else None for size in port.partial_shape]


def _name_of(port: Any, wanted: tuple[str, ...]) -> str:  # noqa: ANN401  # OpenVINO is untyped
    """Return the wanted name of a port: it also bears those of tensors that were folded into it."""
    names = sorted(port.get_names())
    return next((name for name in wanted if name in names), names[0] if names else "(no name)")
