"""A plan for a float32 graph: given, searched for under a budget, or by rule."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

import onnx

from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.calibration.int8 import rounded
from hvq_edge.calibration.quantise import candidates_of
from hvq_edge.calibration.ranges.measure import MeasuredRanges
from hvq_edge.calibration.search.effect_store import EffectStore, key_of
from hvq_edge.calibration.search.evidence import Effect, Evidence, Judged, effect_of, judge
from hvq_edge.calibration.search.plan import Budget
from hvq_edge.calibration.search.plan_search import Found, search
from hvq_edge.common.atomic import sha256_of
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.runtime.engine import Engine


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
) -> Found:
    """Search for the fewest layers in float under a budget.

    Args:
        source: the float32 graph.
        measured: its ranges.
        evidence: images that every set of layers is judged on.
        budget: what may change.
        store: folder in which measurements are kept: a search that was stopped goes on with them.
        categories: of the graph.
        mode: of the graph.
        on_progress: called after each measurement.
    """
    graph = onnx.load(source)
    side = evidence.frames.shape[1]

    def judged(path: Path) -> Judged:
        with _open(path, side, categories, mode) as engine:
            return judge(engine, evidence, takes_category=mode == "input")

    with tempfile.TemporaryDirectory() as scratch:
        reference = judged(source)

        def measure(layers: Collection[str]) -> Effect:
            path = Path(scratch) / "int8.onnx"
            onnx.save(rounded(graph, measured, layers), path)
            return effect_of(reference, judged(path), evidence)

        key = key_of(sha256_of(source), measured.model_dump_json(), evidence.digest, _backend())
        return search(candidates_of(graph), EffectStore(store, key, measure), budget, on_progress)


def _backend() -> str:
    """OpenVINO runs symmetric int8 fast; where it is not installed ONNX Runtime does it."""
    return "openvino" if find_spec("openvino") else "onnxruntime"


def _open(path: Path, side: int, categories: tuple[str, ...], mode: CategoryMode) -> Engine:
    from hvq_edge.runtime.contract import Graph
    from hvq_edge.runtime.cpu.onnxruntime_engine import OnnxRuntimeEngine
    from hvq_edge.runtime.cpu.openvino_engine import OpenVinoEngine

    opener = OpenVinoEngine if _backend() == "openvino" else OnnxRuntimeEngine
    return opener(Graph(path, "int8", side, categories, mode))
