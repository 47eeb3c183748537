"""What a bundle is compared on: every library that runs it here, as Polygraphy runners.

Polygraphy's Comparator drives every comparison. Of a library that is not here, the reason is told.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.common import TensorMetadata

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.verification import NotRun, RunnerName
from hvq_edge.errors import HvqEdgeError
from hvq_edge.runtime.cpu.onnxruntime_providers import (
    ONNXRUNTIME,
    may_be_tried,
    provider_version,
)
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.runtime.tensorrt.engine_file import ENGINES_FOLDER, EngineBackend, read_record

_ENGINES: dict[EngineBackend, RunnerName] = {
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT-RTX",
}
PROVIDER_RUNNERS: dict[str, RunnerName] = {
    "onnxruntime-cuda": "ONNX Runtime CUDA",
    "onnxruntime-tensorrt": "ONNX Runtime TensorRT",
    "onnxruntime-tensorrt-rtx": "ONNX Runtime TensorRT-RTX",
}
"""By backend: each of ``PROVIDERS``."""


_MODULES: dict[RunnerName, str] = {
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "TensorRT": "tensorrt",
    "TensorRT-RTX": "tensorrt_rtx",
}
OF_THE_FILE = tuple(_MODULES)
"""Runners whose fault is one of the precision, whatever runs it."""


class EngineRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy has no types
    """Any engine as a Polygraphy runner.

    Args:
        name: shown in tables.
        open_engine: called when the runner is activated.
        takes_category: the feed has a ``category`` input that the engine must be given. The
            PyTorch engine takes one although a graph of mode ``one`` has none.
    """

    def __init__(self, name: str, open_engine: Callable[[], Engine], takes_category: bool) -> None:
        super().__init__(name=name)
        self._open_engine = open_engine
        self._takes_category = takes_category

    def activate_impl(self) -> None:
        """Open the engine."""
        self._engine = self._open_engine()

    def get_input_metadata_impl(self) -> TensorMetadata:
        """Return names, dtypes and shapes of the inputs."""
        metadata = TensorMetadata().add(
            "frames", np.uint8, (None, *self._engine.info.frame_shape, 3)
        )
        if self._takes_category:
            metadata.add("category", np.int32, (None,))
        return metadata

    def infer_impl(self, feed_dict: dict[str, NDArray[Any]]) -> OrderedDict[str, NDArray[Any]]:
        """Run one feed."""
        start = time.perf_counter()
        output = self._engine.run(feed_dict["frames"], feed_dict.get("category"))
        self.inference_time = time.perf_counter() - start
        return OrderedDict(output)  # type: ignore[arg-type]

    def deactivate_impl(self) -> None:
        """Close the engine."""
        self._engine.close()


@dataclass(frozen=True)
class Tested:
    """A precision on a library, to be compared."""

    precision: Precision
    library: RunnerName
    runner: BaseRunner

    @property
    def name(self) -> str:
        """The runner's name; no other of the bundle has it."""
        return f"{self.precision} {self.library}"


def library_version(library: RunnerName) -> str:
    """Return the version of a library that has run; empty where it does not say."""
    for backend, runner in PROVIDER_RUNNERS.items():
        if library == runner:
            return f"{library_version('ONNX Runtime')}, {provider_version(backend)}"
    version: str = getattr(import_module(_MODULES[library]), "__version__", "")
    return version.split("-", maxsplit=1)[0]  # OpenVINO adds the build


def runners_of(bundle: Bundle, providers: Sequence[str] = ()) -> tuple[list[Tested], list[NotRun]]:
    """Make a runner for every precision on every library that is here.

    Engines, and ONNX Runtime's providers, are opened to see whether they run; those that do are
    closed by their runner.

    Args:
        bundle: the bundle.
        providers: backends of those that must run; none: those that ``auto`` would try here.

    Raises:
        BundleError: a graph of the bundle is changed.
        MissingCapability: a provider that must run does not.
    """
    tested: list[Tested] = []
    not_run: list[NotRun] = []
    takes_category = bundle.manifest.category_mode == "input"
    has_openvino = find_spec("openvino") is not None
    for precision in bundle.manifest.models:
        session = SessionFromOnnx(
            str(bundle.model_file(precision)), providers=["CPUExecutionProvider"]
        )
        tested.append(
            Tested(
                precision, "ONNX Runtime", OnnxrtRunner(session, name=f"{precision} ONNX Runtime")
            )
        )
        if has_openvino:
            opener = partial(
                open_engine, bundle, precision=precision, backend="openvino", unchecked=True
            )
            runner = EngineRunner(f"{precision} OpenVINO", opener, takes_category)
            tested.append(Tested(precision, "OpenVINO", runner))
    if not has_openvino:
        not_run.append(NotRun(runner="OpenVINO", precision=None, reason="it is not installed here"))
    found: list[Tested | NotRun] = []
    with ExitStack() as opened:
        for name, library in _ENGINES.items():
            found += _engines_of(bundle, name, library, opened)
        for backend in dict.fromkeys(providers or may_be_tried()):
            if backend != ONNXRUNTIME:
                found += _provider_of(bundle, backend, opened, must_run=backend in providers)
        opened.pop_all()
    tested += [one for one in found if isinstance(one, Tested)]
    not_run += [one for one in found if isinstance(one, NotRun)]
    return tested, not_run


def _engines_of(
    bundle: Bundle, backend: EngineBackend, library: RunnerName, opened: ExitStack
) -> Iterator[Tested | NotRun]:
    files = sorted((bundle.path / ENGINES_FOLDER).glob(f"{backend}-[0-9]*.plan"))
    if not files:
        yield NotRun(runner=library, precision=None, reason="the bundle has no engine of it")
    built: dict[Precision, None] = {}
    for file in files:
        try:
            built[read_record(file).precision] = None
        except HvqEdgeError as error:
            yield NotRun(runner=library, precision=None, reason=error.cause)
    for precision in built:
        try:
            yield _opened(bundle, backend, precision, library, opened)
        except HvqEdgeError as error:
            yield NotRun(runner=library, precision=precision, reason=error.cause)


def _provider_of(
    bundle: Bundle, backend: str, opened: ExitStack, *, must_run: bool
) -> list[Tested | NotRun]:
    library = PROVIDER_RUNNERS[backend]
    found: list[Tested | NotRun] = []
    first: HvqEdgeError | None = None
    for precision in bundle.manifest.models:
        try:
            found.append(_opened(bundle, backend, precision, library, opened))
        except HvqEdgeError as error:
            first = first or error
            found.append(NotRun(runner=library, precision=precision, reason=error.cause))
    if must_run and first is not None and all(isinstance(one, NotRun) for one in found):
        raise first
    return found


def _opened(
    bundle: Bundle, backend: str, precision: Precision, library: RunnerName, opened: ExitStack
) -> Tested:
    """Open an engine and judge one frame with it: some fail only then.

    ``opened`` closes it unless its runner will.

    Raises:
        HvqEdgeError: it does not run here.
    """
    engine = open_engine(bundle, precision=precision, backend=backend, unchecked=True)
    opened.callback(engine.close)
    takes_category = bundle.manifest.category_mode == "input"
    try:
        frames = np.zeros((1, *engine.info.frame_shape, 3), np.uint8)
        engine.run(frames, np.zeros(1, np.int32) if takes_category else None)
    except HvqEdgeError:
        engine.close()
        raise
    runner = EngineRunner(f"{precision} {library}", lambda: engine, takes_category)
    return Tested(precision, library, runner)
