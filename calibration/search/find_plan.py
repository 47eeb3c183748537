"""The search for an INT8 plan on real graphs: every set of layers is built, run and compared."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Collection
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import onnx
from pydantic import TypeAdapter, ValidationError

from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.calibration.int8 import to_int8
from hvq_edge.calibration.quantise import quantisable_nodes
from hvq_edge.calibration.ranges.measure import MeasuredRanges
from hvq_edge.calibration.search.evidence import (
    Effect,
    Evidence,
    GraphResults,
    effect_of,
    results_on,
)
from hvq_edge.calibration.search.plan import Budget
from hvq_edge.calibration.search.plan_search import SearchResult, search
from hvq_edge.common.atomic import sha256_of, write_text
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.run.tiling import FrameShape
from hvq_edge.runtime.cpu.processor import processor_features, processor_name
from hvq_edge.runtime.engine import Engine

STORE_FOLDER = "int8-search"
"""The folder below a run's folder in which its measured effects are kept."""
AT_ONCE = 32
"""Images that OpenVINO is given at once: it judges each alone, on all cores."""
_EFFECTS = TypeAdapter(dict[str, Effect])


def find_plan(
    source: Path,
    measured: MeasuredRanges,
    evidence: Evidence,
    budget: Budget,
    store: Path,
    *,
    categories: tuple[str, ...],
    mode: CategoryMode,
    on_progress: ProgressCallback = silent,
) -> SearchResult:
    """Search for the fewest layers in float under a budget.

    Args:
        source: file of the float32 graph.
        measured: its ranges.
        evidence: images that every set of layers is judged on.
        budget: what may change.
        store: folder in which measurements are kept.
        categories: the graph's categories.
        mode: the graph's category mode.
        on_progress: called after each measurement.
    """
    graph = onnx.load(source)

    def results(path: Path, images: Evidence) -> GraphResults:
        with _open(path, images.frames.shape[1:3], categories, mode) as engine:
            many = AT_ONCE if engine.info.backend == "openvino" else 1
            return results_on(engine, images, takes_category=mode == "input", at_once=many)

    with tempfile.TemporaryDirectory() as scratch:

        def effects_on(images: Evidence) -> EffectStore:
            reference = results(source, images)

            def measure(layers: Collection[str]) -> Effect:
                path = Path(scratch) / "int8.onnx"
                onnx.save(to_int8(graph, measured, layers), path)
                return effect_of(reference, results(path, images), images)

            return EffectStore(store, store_key(source, measured, images), measure)

        effects, few = effects_on(evidence), evidence.thinned()
        alone = effects if few is evidence else effects_on(few)
        layers = quantisable_nodes(graph)
        return search(layers, effects, budget, on_progress, alone_of=alone)


class EffectStore:
    """Keeps the effect of each set of layers on disk: a search that was stopped goes on there.

    Args:
        folder: folder of the file; made if missing.
        key: names the graph, its ranges, the evidence and the engine.
        measure: called for a set that is not known; it is never asked about the same set twice.
    """

    def __init__(
        self, folder: Path, key: str, measure: Callable[[Collection[str]], Effect]
    ) -> None:
        self._path = folder / f"{key}.json"
        self._measure = measure
        self._known: dict[str, Effect] = {}
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._known = _EFFECTS.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            self._known = {}  # not there, or torn by something else than us: measured again

    def __call__(self, layers: Collection[str]) -> Effect:
        """Return what these layers in int8 change.

        Raises:
            OutputError: the file cannot be written.
        """
        name = hashlib.sha256("\n".join(sorted(layers)).encode()).hexdigest()
        if name not in self._known:
            self._known[name] = self._measure(layers)
            write_text(self._path, _EFFECTS.dump_json(self._known, indent=1).decode() + "\n")
        return self._known[name]


def store_key(source: Path, measured: MeasuredRanges, evidence: Evidence) -> str:
    """Return the name of all that effects depend on: 64 hexadecimal digits."""
    given = (sha256_of(source), measured.model_dump_json(), evidence.digest)
    # Each version may quantise otherwise, and a processor rounds INT8 by the instructions it has.
    parts = (*given, *_library(), version("hvq-edge"), processor_name(), processor_features())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _library() -> tuple[str, str]:
    """Return the library's name and version: the module's own, as ONNX Runtime's packages vary."""
    name = _backend()
    return name, import_module(name).__version__


def _backend() -> str:
    """Name the library: OpenVINO runs symmetric int8 fast; else ONNX Runtime does it."""
    return "openvino" if find_spec("openvino") else "onnxruntime"


def _open(path: Path, shape: FrameShape, categories: tuple[str, ...], mode: CategoryMode) -> Engine:
    from hvq_edge.runtime.contract import Graph
    from hvq_edge.runtime.cpu.onnxruntime_engine import OnnxRuntimeEngine
    from hvq_edge.runtime.cpu.openvino_engine import OpenVinoThroughput

    opener = OpenVinoThroughput if _backend() == "openvino" else OnnxRuntimeEngine
    return opener(Graph(path, "int8", shape, categories, mode))
