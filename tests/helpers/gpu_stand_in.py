"""A GPU whose memory is main memory.

Addresses are real ones, so a copy to a wrong place or of a wrong size shows. ``PyCuda`` and
``CudaBindings`` are the two libraries' calls that the project makes, and count what is held.

A stream does nothing before somebody waits for it, and then only what that needs: a copy that reads
a buffer which was filled again meanwhile, or a step that does not wait for the one before it, gives
wrong numbers.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import deque
from types import SimpleNamespace
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
import pytest

NON_BLOCKING, NO_TIMING, THREAD_LOCAL = 1, 2, "thread local"


class LazyStream:
    """Work in order, done as late as can be."""

    all: ClassVar[WeakValueDictionary[int, LazyStream]] = WeakValueDictionary()
    count: ClassVar[int] = 0

    def __init__(self) -> None:
        LazyStream.count += 1
        self.handle = 1000 + LazyStream.count
        self.work: deque[Any] = deque()
        self.put_so_far = self.done = 0
        self.noted: list[Any] | None = None
        LazyStream.all[self.handle] = self

    def put(self, step: Any) -> None:
        if self.noted is not None:
            self.noted.append(step)
            return
        self.work.append(step)
        self.put_so_far += 1

    def run(self, until: int | None = None) -> None:
        until = self.put_so_far if until is None else until
        while self.done < until:
            self.done += 1
            self.work.popleft()()


class LazyEvent:
    """A place in a stream's work."""

    def __init__(self) -> None:
        self.place: tuple[LazyStream, int] | None = None

    def record(self, stream: LazyStream) -> None:
        stream.put(lambda: None)
        self.place = (stream, stream.put_so_far)

    def happen(self) -> None:
        if self.place:
            stream, until = self.place
            stream.run(until)

    def hold(self, stream: LazyStream) -> None:
        if self.place:
            of, until = self.place  # what was recorded so far, not what will be
            stream.put(lambda: of.run(until))


def at(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(buffer, dtype=dtype).reshape(shape)


class Held:
    """Counts what is held."""

    def __init__(self) -> None:
        self.contexts = self.current = self.blocks = self.pages = 0
        self.streams = self.events = self.graphs = 0

    @property
    def nothing(self) -> bool:
        return not any(vars(self).values())


class PyCuda:
    """The modules ``pycuda`` and ``pycuda.driver``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.held = held = Held()

        class Freed:
            def __init__(self, size: int, kind: str) -> None:
                assert held.current
                self.buffer = np.full(max(size, 1), 0xAB, np.uint8)
                self.kind = kind
                setattr(held, kind, getattr(held, kind) + 1)

            def __int__(self) -> int:
                return self.buffer.ctypes.data

            def free(self) -> None:
                assert held.current
                setattr(held, self.kind, getattr(held, self.kind) - 1)

        class Page(np.ndarray):
            pass

        class Stream(LazyStream):
            def __init__(self, flags: int) -> None:
                assert held.current
                assert flags == NON_BLOCKING
                super().__init__()
                held.streams += 1

            def __del__(self) -> None:
                held.streams -= 1

            def synchronize(self) -> None:
                assert held.current
                self.run()

            def wait_for_event(self, event: Event) -> None:
                event.hold(self)

        class Event(LazyEvent):
            def __init__(self, flags: int) -> None:
                assert held.current
                assert flags == NO_TIMING
                super().__init__()
                held.events += 1

            def __del__(self) -> None:
                held.events -= 1

            def synchronize(self) -> None:
                assert held.current
                self.happen()

        class Context:
            """As PyCUDA 2026.1 does it: ``detach`` lets go of a primary context in the thread that
            opened it, or where it is current, and takes nothing off the driver's stack."""

            def __init__(self) -> None:
                held.contexts += 1
                self.thread = threading.get_ident()
                self.pushed = 0

            def push(self) -> None:
                held.current += 1
                self.pushed += 1

            def pop(self) -> None:
                held.current -= 1
                self.pushed -= 1

            def detach(self) -> None:
                if not self.pushed and self.thread != threading.get_ident():
                    return
                held.current += not self.pushed
                held.contexts -= 1

        def pop_current(_: Any) -> int:
            held.current -= 1
            return 0

        self.library = SimpleNamespace(cuCtxPopCurrent_v2=pop_current)

        def pagelocked_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            made = Freed(int(np.prod(shape)) * np.dtype(dtype).itemsize, "pages")
            memory = SimpleNamespace(
                __array_interface__={
                    "shape": shape,
                    "typestr": np.dtype(dtype).str,
                    "data": (int(made), False),
                    "version": 3,
                },
                free=made.free,
                made=made,
            )
            return np.asarray(memory)

        def copy(target: Any, source: Any, stream: Any) -> None:
            assert held.current
            assert isinstance(stream, Stream)
            array = source if isinstance(source, np.ndarray) else target
            assert array.flags.c_contiguous
            addresses = [
                one.ctypes.data if isinstance(one, np.ndarray) else int(one)
                for one in (target, source)
            ]
            stream.put(lambda: ctypes.memmove(*addresses, array.nbytes))

        def init() -> None:
            if error:
                raise error

        self.driver = SimpleNamespace(
            init=init,
            Device=lambda _: SimpleNamespace(retain_primary_context=Context),
            Stream=Stream,
            Event=Event,
            pagelocked_empty=pagelocked_empty,
            mem_alloc=lambda size: Freed(size, "blocks"),
            memcpy_htod_async=copy,
            memcpy_dtoh_async=copy,
        )
        self.modules = {
            "pycuda": SimpleNamespace(VERSION=(2026, 1)),
            "pycuda.driver": self.driver,
        }

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let it be found, before cuda-python."""
        for name, content in self.modules.items():
            patch.setitem(sys.modules, name, content)
        patch.setattr("hvq_edge.runtime.cuda.pycuda_memory.driver_library", lambda: self.library)


class CudaBindings:
    """The module ``cuda.bindings.driver``: each call returns its status first."""

    def __init__(self, fails: str = "") -> None:
        self.held = held = Held()
        buffers: dict[int, np.ndarray] = {}

        def call(name: str, work: Any) -> Any:
            def called(*arguments: Any) -> tuple[Any, ...]:
                results = work(*arguments) if name != fails or name == "cuStreamEndCapture" else ()
                return (2,) if name == fails else (0, *(results or ()))

            return called

        def count(kind: str, change: int) -> None:
            setattr(held, kind, getattr(held, kind) + change)

        def new(kind: str) -> Any:
            def work(size: int) -> tuple[int]:
                assert held.current
                made = np.full(max(size, 1), 0xAB, np.uint8)
                buffers[made.ctypes.data] = made
                count(kind, 1)
                return (made.ctypes.data,)

            return work

        def free(kind: str) -> Any:
            def work(address: int) -> None:
                assert held.current
                del buffers[address]
                count(kind, -1)

            return work

        def copy(target: int, source: int, size: int, stream: LazyStream) -> None:
            assert held.current
            stream.put(lambda: ctypes.memmove(target, source, size))

        class Stream(LazyStream):
            def __int__(self) -> int:
                return self.handle

        def stream(flags: int) -> tuple[Stream]:
            assert flags == NON_BLOCKING
            count("streams", 1)
            return (Stream(),)

        def destroy(stream: LazyStream) -> None:
            count("streams", -1)

        def event(flags: int) -> tuple[LazyEvent]:
            assert flags == NO_TIMING
            count("events", 1)
            return (LazyEvent(),)

        def begin(stream: LazyStream, mode: str) -> None:
            assert mode == THREAD_LOCAL
            assert stream.noted is None
            stream.noted = []

        def end(stream: LazyStream) -> tuple[list[Any]]:
            noted, stream.noted = stream.noted, None
            assert noted is not None
            return (noted,)

        def instantiate(noted: list[Any], flags: int) -> tuple[list[Any]]:
            count("graphs", 1)
            return (noted.copy(),)

        def launch(graph: list[Any], stream: LazyStream) -> None:
            assert graph
            self.launches += 1
            for step in graph:
                stream.put(step)

        self.launches = 0

        def retain(_: int) -> tuple[str]:
            count("contexts", 1)
            return ("context",)

        calls = {
            "cuInit": lambda _: None,
            "cuDeviceGet": lambda index: (index,),
            "cuDevicePrimaryCtxRetain": retain,
            "cuDevicePrimaryCtxRelease": lambda _: count("contexts", -1),
            "cuCtxPushCurrent": lambda _: count("current", 1),
            "cuCtxPopCurrent": lambda: count("current", -1),
            "cuStreamCreate": stream,
            "cuStreamDestroy": destroy,
            "cuStreamSynchronize": lambda stream: stream.run(),
            "cuStreamWaitEvent": lambda stream, event, _: event.hold(stream),
            "cuStreamBeginCapture": begin,
            "cuStreamEndCapture": end,
            "cuGraphInstantiate": instantiate,
            "cuGraphLaunch": launch,
            "cuGraphDestroy": lambda noted: noted.clear(),
            "cuGraphExecDestroy": lambda _: count("graphs", -1),
            "cuEventCreate": event,
            "cuEventRecord": lambda event, stream: event.record(stream),
            "cuEventSynchronize": lambda event: event.happen(),
            "cuEventDestroy": lambda _: count("events", -1),
            "cuMemAlloc": new("blocks"),
            "cuMemFree": free("blocks"),
            "cuMemAllocHost": new("pages"),
            "cuMemFreeHost": free("pages"),
            "cuMemcpyHtoDAsync": copy,
            "cuMemcpyDtoHAsync": copy,
        }
        self.driver = SimpleNamespace(**{name: call(name, work) for name, work in calls.items()})
        mode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=THREAD_LOCAL)
        self.driver.CUstreamCaptureMode = mode
        self.modules = {
            "cuda": SimpleNamespace(),
            "cuda.bindings": SimpleNamespace(__version__="13.5.0"),
            "cuda.bindings.driver": self.driver,
        }

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let it be found, without PyCUDA."""
        for name in ("pycuda", "pycuda.driver"):
            patch.setitem(sys.modules, name, None)
        for name, content in self.modules.items():
            patch.setitem(sys.modules, name, content)
