"""OpenVINO on the CPU: the default engine, and the one that runs symmetric INT8 fast."""

from __future__ import annotations

import logging
import threading
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.openvino_core import openvino_core
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

    The graph is compiled for single frames, which is what a camera gives, and a batch is judged
    frame by frame: a frame's score then does not depend on what is judged beside it. A graph
    compiled for any batch rounds INT8 otherwise: on a processor with AMX its scores were up to 4 %
    off, and it was hardly faster (0.99 to 1.03 times, on one core and on two).
    Threads may share the engine; their calls to :meth:`run` follow one another.
    """

    library = "openvino"
    called = "OpenVINO"
    hint = PROPERTIES["PERFORMANCE_HINT"]
    without = "run pip install openvino, or use --backend onnxruntime"
    unloaded = "run hvq-edge export again, or use --backend onnxruntime"

    def _load(self, library: Any, graph: Graph, threads: int | None) -> str:  # noqa: ANN401  # untyped
        properties: dict[str, Any] = {**PROPERTIES, "PERFORMANCE_HINT": self.hint}
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        core = openvino_core()
        compiled, self.compiled_sha256 = self._compiled(core, library, graph, properties)
        many = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests: list[Any] = [compiled.create_infer_request() for _ in range(many)]
        self._lock = threading.Lock()
        self._tensor: Any = library.Tensor
        processor = core.get_property("CPU", "FULL_DEVICE_NAME")
        number = library.__version__.split("-")[0]
        return f"{processor}, OpenVINO {number}"

    def _compiled(
        self,
        core: Any,  # noqa: ANN401  # untyped
        library: Any,  # noqa: ANN401
        graph: Graph,
        properties: dict[str, Any],
    ) -> tuple[Any, str]:
        """Return a graph compiled for single frames, and the hash of its kept form."""
        # What the bundle says of the graph, too: a kept form was held to that before it was kept.
        said = f"{graph.category_mode} {graph.frame_shape}"
        how = ("openvino", library.__version__, str(properties), said)
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
            if not self._requests:
                raise closed_error()
            rows = self._rows(
                [
                    {name: values[i : i + 1] for name, values in feed.items()}
                    for i in range(len(feed[FRAMES]))
                ]
            )
        results = {name: np.concatenate([row[name] for row in rows]) for name in self._outputs}
        return graph_result(results, feed, self.info)

    def close(self) -> None:
        """Free the compiled graph once no :meth:`run` uses it; calling it twice is fine."""
        with self._lock:
            self._requests = []

    def _rows(self, feeds: list[dict[str, NDArray[Any]]]) -> list[dict[str, NDArray[Any]]]:
        """Judge frames, as many at once as there are requests; the lock must be held."""
        rows = []
        many = len(self._requests)
        for first in range(0, len(feeds), many):
            busy = list(zip(self._requests, feeds[first : first + many], strict=False))
            for request, feed in busy:
                for name in self._inputs:
                    request.set_tensor(name, self._tensor(feed[name]))
            try:
                if len(busy) == 1:  # on this thread, sooner than on another
                    busy[0][0].infer()
                else:
                    for request, _ in busy:
                        request.start_async()
                    for request, _ in busy:
                        request.wait()
            except RuntimeError as error:
                raise run_error(self.info, error) from error
            # Copies: the next frames' results go into the same buffers.
            rows += [
                {name: request.get_tensor(name).data.copy() for name in self._outputs}
                for request, _ in busy
            ]
        return rows


class OpenVinoThroughput(OpenVinoEngine):
    """The same, to the last bit, for many frames: those of a batch are judged at once, a core each.

    On two cores 1.2 to 1.3 times the frames a second; one frame alone takes longer.
    """

    hint = "THROUGHPUT"


def _shape_of(port: Any) -> list[int | None]:  # noqa: ANN401  # OpenVINO is untyped
    """Return a port's shape, ``None`` where it is dynamic."""
    return [size.get_length() if size.is_static else None for size in port.partial_shape]


def _name_of(port: Any, wanted: tuple[str, ...]) -> str:  # noqa: ANN401  # OpenVINO is untyped
    """Return the wanted name of a port: it also bears those of tensors that were folded into it."""
    names = sorted(port.get_names())
    return next((name for name in wanted if name in names), names[0] if names else "(no name)")
