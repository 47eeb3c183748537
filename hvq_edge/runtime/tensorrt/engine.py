"""TensorRT and TensorRT-RTX engines, by the same code.

Inputs and outputs go by name, batches beyond the engine's largest in parts, and copies run beside
computing (:mod:`hvq_edge.runtime.tensorrt.lanes`). This has not been run on a GPU by us
(docs/how-to/engines.md): it is tested against stand-ins with each version's names.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.common.closeable import Closeable
from hvq_edge.common.plain_file import read_plain
from hvq_edge.errors import BundleError, HvqEdgeError
from hvq_edge.run.tiling import FrameShape
from hvq_edge.runtime.contract import (
    FRAMES,
    check_graph,
    closed_error,
    graph_feed,
    graph_result,
)
from hvq_edge.runtime.cuda.memory import CudaMemory
from hvq_edge.runtime.engine import EngineInfo, EngineOutput, Frames
from hvq_edge.runtime.tensorrt.engine_file import EngineRecord
from hvq_edge.runtime.tensorrt.lanes import BatchRefused, Flight, Lanes, Port
from hvq_edge.runtime.tensorrt.log import BuildLog, listening


class Pending:
    """A batch that an engine has been given: ask for its result later."""

    def __init__(
        self, engine: TensorRTEngine, feed: dict[str, NDArray[Any]], flights: list[Flight]
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._flights = flights

    def result(self) -> EngineOutput:
        """Wait for the result; also after the engine was closed.

        Raises:
            HvqEdgeError: the GPU failed.
        """
        return self._engine._landed(self._feed, self._flights)


class TensorRTEngine(Closeable):
    """Runs one plan on one GPU.

    Any number of threads may call :meth:`run`, :meth:`submit` and :meth:`close`; they take turns.
    Two batches may be on their way at once: give the next with :meth:`submit` before asking for the
    last one's result, and it is copied while that is computed.

    Args:
        plan: the engine's file, checked against its record and this machine
            (:func:`hvq_edge.runtime.tensorrt.engine_file.check_engine`).
        record: the plan's.
        module: ``tensorrt`` or ``tensorrt_rtx``.
        memory: closed together with the engine, also where opening fails.
        gpu_name: for :attr:`info`.
        frame_shape: height and width of its frames in pixels.
        categories: names in the order of the category index.
        category_mode: how the graph was exported.
        cuda_graphs: whether to use them where the memory has them.

    Raises:
        BundleError: the library refuses the plan, or it is of another graph.
        HvqEdgeError: the GPU has too little memory left, or fails.
    """

    def __init__(
        self,
        plan: Path,
        record: EngineRecord,
        *,
        module: Any,  # noqa: ANN401
        memory: CudaMemory,
        gpu_name: str,
        frame_shape: FrameShape,
        categories: tuple[str, ...],
        category_mode: CategoryMode,
        cuda_graphs: bool = True,
    ) -> None:
        self._lock = threading.Lock()
        self._memory: CudaMemory | None = memory
        self._module = module
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._lanes: Lanes | None = None
        self._most = 1  # the largest batch that the engine takes at once
        library = "TensorRT-RTX" if record.backend == "tensorrt-rtx" else "TensorRT"
        self.info = EngineInfo(
            backend=record.backend,
            precision=record.precision,
            device=f"{gpu_name}, {library} {module.__version__}, {memory.name}",
            frame_shape=frame_shape,
            categories=categories,
            category_mode=category_mode,
            plan_sha256=record.plan_sha256,
        )
        try:
            with listening(module) as log, memory.current():
                self._load(plan, record, log)
                ports, least = self._ports()
                inputs = {one.name: [None, *one.shape] for one in ports if one.is_input}
                outputs = [one.name for one in ports if not one.is_input]
                check_graph(plan, inputs, outputs, category_mode, frame_shape)
                self._context = self._new_context()
                self._lanes = Lanes(
                    memory, self._context, ports, least, self._most, graphs=cuda_graphs
                )
        except BaseException:
            self.close()
            raise

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch; see :meth:`hvq_edge.runtime.engine.Engine.run`."""
        return self.submit(frames, category).result()

    def submit(self, frames: Frames, category: NDArray[np.int32] | None = None) -> Pending:
        """Give a batch to the GPU without waiting for its result.

        Takes and raises what :meth:`run` does. ``frames`` are copied: the caller may reuse them.
        """
        feed = graph_feed(frames, category, self.info)
        with self._lock:
            memory, lanes = self._memory, self._lanes
            if memory is None or lanes is None:
                raise closed_error()
            with listening(self._module) as log, memory.current():
                try:
                    flights = [
                        lanes.start({name: all_[i : i + self._most] for name, all_ in feed.items()})
                        for i in range(0, len(feed[FRAMES]), self._most)
                    ]
                except BatchRefused as error:
                    raise self._failed(log) from error
        # Of the frames only their number is needed any more.
        kept = {name: values.copy() for name, values in feed.items() if name != FRAMES}
        kept[FRAMES] = np.empty((len(feed[FRAMES]), 0), dtype=np.uint8)
        return Pending(self, kept, flights)

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether batches that come again are launched as CUDA graphs."""
        return self._lanes is not None and self._lanes.uses_graphs

    def close(self) -> None:
        """Free engine and memory once nothing is on its way; calling it twice is fine."""
        with self._lock:
            if self._memory is None:
                return
            with self._memory.current():
                if self._lanes is not None:
                    self._lanes.land_all()
                # In this order: a context belongs to its engine, and that to its runtime.
                self._lanes = self._context = self._engine = self._runtime = None
            self._memory.close()
            self._memory = None

    def _landed(self, feed: dict[str, NDArray[Any]], flights: list[Flight]) -> EngineOutput:
        with self._lock:
            if self._memory is not None and self._lanes is not None:
                with self._memory.current():
                    parts = [self._lanes.land(one) for one in flights]
            else:  # closing let all of them land
                parts = [one.landed() for one in flights]
        results = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return graph_result(results, feed, self.info)

    def _load(self, plan: Path, record: EngineRecord, log: BuildLog) -> None:
        module = self._module
        self._runtime = module.Runtime(log.logger)
        if record.options.version_compatible:
            self._runtime.engine_host_code_allowed = True  # the plan brings its own small runtime
        if record.options.dla_core is not None:
            self._runtime.DLA_core = record.options.dla_core
        content = read_plain(plan)
        if hashlib.sha256(content).hexdigest() != record.plan_sha256:
            raise BundleError(
                f"{plan} was changed while it was opened.",
                next_step="copy the bundle again, or run hvq-edge build again",
            )
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise BundleError(
                f"{record.backend} {module.__version__} cannot load {plan}: {log.first_error}.",
                next_step=f"run hvq-edge build {plan.parent.parent} --backend {record.backend} "
                f"--precision {record.precision} --force",
            )

    def _ports(self) -> tuple[list[Port], int]:
        """Return the engine's inputs and outputs, and the smallest batch; notes the largest."""
        module, engine = self._module, self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        ports = [
            Port(
                name,
                engine.get_tensor_mode(name) == module.TensorIOMode.INPUT,
                tuple(engine.get_tensor_shape(name))[1:],
                np.dtype(module.nptype(engine.get_tensor_dtype(name))),
            )
            for name in names
        ]
        least = 1
        if any(one.is_input and one.name == FRAMES for one in ports):
            smallest, _, largest = engine.get_tensor_profile_shape(FRAMES, 0)
            least, self._most = int(smallest[0]), int(largest[0])
        return ports, least

    def _new_context(self) -> Any:  # noqa: ANN401
        context = self._engine.create_execution_context()
        if context is None:
            raise HvqEdgeError(
                "the GPU has too little memory left to run this engine.",
                next_step="close other programs, or build with a lower --max-batch",
            )
        return context

    def _failed(self, log: BuildLog) -> HvqEdgeError:
        return HvqEdgeError(
            f"{self.info.device} cannot run the engine: {log.first_error}.",
            next_step="see whether nvidia-smi works, then build the engine again",
        )
