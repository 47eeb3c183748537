"""What a bundle is compared on: every library that runs it here, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

from hvq_edge.bundle.manifest import Bundle, Precision
from hvq_edge.bundle.verification import NotRun, RunnerName
from hvq_edge.errors import HvqEdgeError
from hvq_edge.export.verify.runners import EngineRunner
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.runtime.tensorrt.engine_file import ENGINES_FOLDER, EngineBackend, read_record

_ENGINES: dict[EngineBackend, RunnerName] = {
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT-RTX",
}


@dataclass(frozen=True)
class Tested:
    """A precision on a library."""

    precision: Precision
    library: RunnerName
    runner: BaseRunner

    @property
    def name(self) -> str:
        """The runner's name, unique in a bundle."""
        return f"{self.precision} {self.library}"


def runners_of(bundle: Bundle) -> tuple[list[Tested], list[NotRun]]:
    """Make a runner for every precision on every library, as far as they are here.

    Engines are opened to see whether they run; those that do are closed by their runner.

    Raises:
        BundleError: a graph of the bundle is changed.
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
            opener = partial(open_engine, bundle, precision=precision, backend="openvino")
            runner = EngineRunner(f"{precision} OpenVINO", opener, takes_category)
            tested.append(Tested(precision, "OpenVINO", runner))
    if not has_openvino:
        not_run.append(NotRun(runner="OpenVINO", precision=None, reason="it is not installed here"))
    for backend, library in _ENGINES.items():
        for one in _engines_of(bundle, backend, library):
            if isinstance(one, NotRun):
                not_run.append(one)
            else:
                tested.append(one)
    return tested, not_run


def _engines_of(
    bundle: Bundle, backend: EngineBackend, library: RunnerName
) -> Iterator[Tested | NotRun]:
    plans = sorted((bundle.path / ENGINES_FOLDER).glob(f"{backend}-[0-9]*.plan"))
    if not plans:
        yield NotRun(runner=library, precision=None, reason="the bundle has no engine of it")
    built: dict[Precision, None] = {}
    for plan in plans:
        try:
            built[read_record(plan).precision] = None
        except HvqEdgeError as error:
            yield NotRun(runner=library, precision=None, reason=error.cause)
    for precision in built:
        try:
            engine = open_engine(bundle, precision=precision, backend=backend)
        except HvqEdgeError as error:
            yield NotRun(runner=library, precision=precision, reason=error.cause)
            continue
        takes_category = bundle.manifest.category_mode == "input"

        def opened(engine=engine):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            return engine

        runner = EngineRunner(f"{precision} {library}", opened, takes_category)
        yield Tested(precision, library, runner)
