"""Two lanes to a GPU: while one batch is computed, the next is copied there and the last back.

A lane has buffers of its own, page-locked here and on the GPU. Copies there, computing and copies
back have a stream each, events say what waits for what, and computing stays in one order: a
TensorRT context must not be on two streams at once. Where the memory library has CUDA graphs, a
batch size that comes again on its lane is captured and launched as one.

https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import HvqEdgeError
from hvq_edge.runtime.cuda.memory import CudaMemory

LANES = 2


class BatchRefused(Exception):
    """The library refuses to run a batch; its log says why."""


@dataclass(frozen=True)
class Port:
    """An input or output of an engine."""

    name: str
    is_input: bool
    shape: tuple[int, ...]
    """Shape for one frame, without the batch."""
    dtype: np.dtype[Any]


@dataclass(eq=False)
class Flight:
    """A batch on its way."""

    lane: int
    frames: int
    results: dict[str, NDArray[Any]] | None = None
    """Outputs by name once it has landed."""
    error: Exception | None = None
    """Why it will not land."""

    def landed(self) -> dict[str, NDArray[Any]]:
        """Return the outputs of a batch that has landed.

        Raises:
            Exception: the GPU failed while it was on its way.
        """
        if self.results is None:
            raise self.error or HvqEdgeError("this batch was given up.")
        return self.results


@dataclass
class _Lane:
    host: dict[str, NDArray[Any]]
    device: dict[str, int]
    uploaded: int
    computed: int
    done: int
    flight: Flight | None = None
    graphs: dict[int, int] = field(default_factory=dict)
    """One captured graph for each batch size."""
    seen: set[int] = field(default_factory=set)
    """Batch sizes that ran on this lane: a capture must not be the first run of a shape."""


class Lanes:
    """Runs batches of one engine; one thread at a time, the memory's context current.

    Args:
        memory: where buffers and streams come from; its opener closes it.
        context: TensorRT's ``IExecutionContext``.
        ports: the engine's inputs and outputs.
        least: smallest batch that the engine takes.
        most: largest; room for it is made once, a run allocates nothing.
        graphs: whether to use CUDA graphs where the memory has them.
    """

    def __init__(
        self,
        memory: CudaMemory,
        context: Any,  # noqa: ANN401
        ports: Sequence[Port],
        least: int,
        most: int,
        *,
        graphs: bool = True,
    ) -> None:
        self._memory = memory
        self._context = context
        self._ports = tuple(ports)
        self._least = least
        self.uses_graphs = graphs and memory.can_capture
        self._upload, self._compute, self._download = (memory.new_stream() for _ in range(3))
        self._lanes = [self._new_lane(most) for _ in range(LANES)]
        self._next = 0

    def start(self, feed: Mapping[str, NDArray[Any]]) -> Flight:
        """Put a batch on its way and return without waiting for it.

        Where the lane is taken, the batch on it lands first.

        Args:
            feed: inputs by name, at most the largest batch.

        Raises:
            BatchRefused: the library refuses it; the lanes can be used again.
        """
        number = self._next
        lane = self._lanes[number]
        self._next = (number + 1) % LANES
        if lane.flight is not None:
            self.land(lane.flight)
        frames = len(next(iter(feed.values())))
        batch = max(frames, self._least)  # a DLA knows one batch size: the rest is black frames
        try:
            for port in self._ports:
                if port.is_input:
                    host = lane.host[port.name][:batch]
                    host[:frames] = feed[port.name]
                    host[frames:] = 0
                    self._memory.to_device(lane.device[port.name], host, self._upload)
            self._memory.record(lane.uploaded, self._upload)
            self._memory.wait(self._compute, lane.uploaded)
            self._execute(lane, batch)
            self._memory.record(lane.computed, self._compute)
            self._memory.wait(self._download, lane.computed)
            for port in self._ports:
                if not port.is_input:
                    host = lane.host[port.name][:batch]
                    self._memory.to_host(host, lane.device[port.name], self._download)
            self._memory.record(lane.done, self._download)
        except BaseException:
            self._memory.drain()  # else a copy could still read buffers that the next run fills
            raise
        lane.flight = Flight(number, frames)
        return lane.flight

    def land(self, flight: Flight) -> dict[str, NDArray[Any]]:
        """Wait for a batch and return its outputs, which are the caller's own.

        Raises:
            Exception: the GPU failed while it was on its way.
        """
        lane = self._lanes[flight.lane]
        if lane.flight is flight:
            lane.flight = None
            try:
                self._memory.synchronise(lane.done)
                flight.results = {
                    port.name: lane.host[port.name][: flight.frames].copy()
                    for port in self._ports
                    if not port.is_input
                }
            except Exception as error:  # noqa: BLE001  # of any library; this batch's caller gets it
                flight.error = error
        return flight.landed()

    def land_all(self) -> None:
        """Let everything that is on its way land, so that buffers can be freed."""
        for lane in self._lanes:
            if lane.flight is not None:
                with suppress(Exception):  # its owner is told when it asks
                    self.land(lane.flight)

    def _new_lane(self, most: int) -> _Lane:
        memory = self._memory
        host, device = {}, {}
        for port in self._ports:
            shape = (most, *port.shape)
            host[port.name] = memory.page_locked(shape, port.dtype)
            device[port.name] = memory.allocate(math.prod(shape) * port.dtype.itemsize)
        uploaded, computed, done = (memory.new_event() for _ in range(3))
        return _Lane(host, device, uploaded, computed, done)

    def _execute(self, lane: _Lane, batch: int) -> None:
        if batch in lane.graphs:
            self._memory.launch(lane.graphs[batch], self._compute)
            return
        for port in self._ports:
            shape = (batch, *port.shape)
            if port.is_input and not self._context.set_input_shape(port.name, shape):
                raise BatchRefused
            self._context.set_tensor_address(port.name, lane.device[port.name])
        if not self._context.execute_async_v3(self._compute):
            raise BatchRefused
        if self.uses_graphs and batch in lane.seen:
            self._capture(lane, batch)
        lane.seen.add(batch)

    def _capture(self, lane: _Lane, batch: int) -> None:
        """Note the run that was just started as a graph for the next time."""
        memory = self._memory
        try:
            memory.begin_capture(self._compute)
            try:
                taken = self._context.execute_async_v3(self._compute)
            finally:
                graph = memory.end_capture(self._compute)
        except HvqEdgeError:
            # Loops, conditions and DLAs cannot be captured: it runs as before.
            self.uses_graphs = False
        else:
            self.uses_graphs = bool(taken)
            if taken:
                lane.graphs[batch] = graph
