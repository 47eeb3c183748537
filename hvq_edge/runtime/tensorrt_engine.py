"""TensorRT and TensorRT-RTX engines, by the same code.

Inputs and outputs go by name, batches beyond the engine's largest in parts. This has not been run
on a GPU by us (docs/engines.md): it is tested against stand-ins with each version's names.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle import CategoryMode
from hvq_edge.closing import Closing
from hvq_edge.errors import BundleError, HvqEdgeError
from hvq_edge.runtime.check_frames import (
    FRAMES,
    check_graph,
    closed_error,
    graph_feed,
    graph_result,
)
from hvq_edge.runtime.cuda_memory import CudaMemory
from hvq_edge.runtime.engine import EngineInfo, EngineOutput, Frames
from hvq_edge.runtime.engine_file import EngineRecord
from hvq_edge.runtime.tensorrt_log import BuildLog, listening


class TensorRTEngine(Closing):
    """Runs one plan on one GPU.

    Any number of threads may call :meth:`run` and :meth:`close`; they take turns.

    Args:
        plan: the engine's file, checked against its record and this machine
            (:func:`hvq_edge.runtime.engine_file.check_engine`).
        record: the plan's.
        module: ``tensorrt`` or ``tensorrt_rtx``.
        memory: closed together with the engine, also where opening fails.
        gpu_name: for :attr:`info`.
        input_side: pixels a side of its frames.
        categories: names in the order of the category index.
        category_mode: how the graph was exported.

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
        input_side: int,
        categories: tuple[str, ...],
        category_mode: CategoryMode,
    ) -> None:
        self._lock = threading.Lock()
        self._memory: CudaMemory | None = memory
        self._module = module
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._least = self._most = 1  # batches that the engine takes at once
        self._host: dict[str, NDArray[Any]] = {}
        self._device: dict[str, int] = {}
        library = "TensorRT-RTX" if record.backend == "tensorrt-rtx" else "TensorRT"
        self.info = EngineInfo(
            backend=record.backend,
            precision=record.precision,
            device=f"{gpu_name}, {library} {module.__version__}, {memory.name}",
            input_side=input_side,
            categories=categories,
            category_mode=category_mode,
        )
        try:
            with listening(module) as log, memory.current():
                self._load(plan, record, log)
                inputs = {name: self._shapes[name] for name in self._inputs}
                sides = {name: [None, *shape[1:]] for name, shape in inputs.items()}
                check_graph(plan, sides, self._outputs, category_mode, input_side)
                self._allocate(memory)
        except BaseException:
            self.close()
            raise

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch; see :meth:`hvq_edge.runtime.engine.Engine.run`."""
        feed = graph_feed(frames, category, self.info)
        with self._lock:
            memory = self._memory
            if memory is None:
                raise closed_error()
            with listening(self._module) as log, memory.current():
                parts = [
                    self._run_part(
                        memory,
                        {name: values[i : i + self._most] for name, values in feed.items()},
                        log,
                    )
                    for i in range(0, len(feed[FRAMES]), self._most)
                ]
        results = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return graph_result(results, feed, self.info)

    def close(self) -> None:
        """Free engine and memory once no :meth:`run` uses them; calling it twice is fine."""
        with self._lock:
            if self._memory is None:
                return
            with self._memory.current():
                # In this order: a context belongs to its engine, and that to its runtime.
                self._context = self._engine = self._runtime = None
            self._host, self._device = {}, {}
            self._memory.close()
            self._memory = None

    def _load(self, plan: Path, record: EngineRecord, log: BuildLog) -> None:
        module = self._module
        self._runtime = module.Runtime(log.logger)
        if record.options.version_compatible:
            self._runtime.engine_host_code_allowed = True  # the plan brings its own small runtime
        if record.options.dla_core is not None:
            self._runtime.DLA_core = record.options.dla_core
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise BundleError(
                f"{record.backend} {module.__version__} cannot load {plan}: {log.first_error}.",
                next_step=f"run hvq-edge build {plan.parent.parent} --backend {record.backend} "
                f"--precision {record.precision} --force",
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = module.TensorIOMode.INPUT
        self._inputs = [one for one in names if self._engine.get_tensor_mode(one) == is_input]
        self._outputs = [one for one in names if one not in self._inputs]
        self._shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        if FRAMES in self._inputs:
            least, _, most = self._engine.get_tensor_profile_shape(FRAMES, 0)
            self._least, self._most = int(least[0]), int(most[0])

    def _allocate(self, memory: CudaMemory) -> None:
        """Make room for the largest batch once: a run allocates nothing."""
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise HvqEdgeError(
                "the GPU has too little memory left to run this engine.",
                next_step="close other programs, or build with a lower --max-batch",
            )
        for name, shape in self._shapes.items():
            dtype = np.dtype(self._module.nptype(self._engine.get_tensor_dtype(name)))
            full = (self._most, *shape[1:])
            self._host[name] = memory.page_locked(full, dtype)
            self._device[name] = memory.allocate(math.prod(full) * dtype.itemsize)
            self._context.set_tensor_address(name, self._device[name])

    def _run_part(
        self, memory: CudaMemory, feed: Mapping[str, NDArray[Any]], log: BuildLog
    ) -> dict[str, NDArray[Any]]:
        """Run a batch that the engine takes at once; the lock must be held."""
        count = len(feed[FRAMES])
        batch = max(count, self._least)  # a DLA knows one batch size: the rest is black frames
        for name in self._inputs:
            host = self._host[name][:batch]
            host[:count] = feed[name]
            host[count:] = 0
            if not self._context.set_input_shape(name, host.shape):
                raise self._failed(log)
            memory.to_device(self._device[name], host)
        if not self._context.execute_async_v3(memory.stream):
            raise self._failed(log)
        for name in self._outputs:
            memory.to_host(self._host[name][:batch], self._device[name])
        memory.synchronise()
        # Copies: the next run writes into the same buffers.
        return {name: self._host[name][:count].copy() for name in self._outputs}

    def _failed(self, log: BuildLog) -> HvqEdgeError:
        return HvqEdgeError(
            f"{self.info.device} cannot run the engine: {log.first_error}.",
            next_step="see whether nvidia-smi works, then build the engine again",
        )
