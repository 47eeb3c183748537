"""The reduced-precision files of a bundle, made of its float32 graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from hvq_edge.bundle.manifest import CalibrationRecord, CategoryMode, Fp16Record, Precision
from hvq_edge.calibration.images.own_set import CalibrationImage
from hvq_edge.calibration.int8 import DEFAULT_METHOD, measure, rounded
from hvq_edge.calibration.quantise import quantisable_nodes
from hvq_edge.calibration.ranges.amax import RangeMethod
from hvq_edge.calibration.ranges.measure import MeasuredRanges
from hvq_edge.calibration.ranges.range_cache import CACHE_FOLDER
from hvq_edge.calibration.search.effect_store import STORE_FOLDER
from hvq_edge.calibration.search.evidence import gather_evidence
from hvq_edge.calibration.search.find_plan import find_plan
from hvq_edge.calibration.search.plan import (
    PLAN_NAME,
    Budget,
    Plan,
    default_plan,
    read_plan,
    write_plan,
)
from hvq_edge.calibration.search.trade_off_plot import PLOT_NAME, trade_off_plot
from hvq_edge.common.atomic import write_text
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.export.fp16.convert import to_fp16
from hvq_edge.export.fp16.islands import find_islands

FILE_NAMES: dict[Precision, str] = {
    "fp32": "model.fp32.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
    "int8-fp16": "model.int8-fp16.onnx",
}


@dataclass(frozen=True)
class PrecisionOptions:
    """What reduced precision a user asks for."""

    int8: bool = False
    fp16: bool = False
    """With ``int8`` too there is a file with float16 around the int8 layers as well."""
    ranges: RangeMethod = DEFAULT_METHOD
    plan: Path | None = None
    """A plan to keep to; ``None``: search under ``budget``, or go by the rule."""
    budget: Budget | None = None


@dataclass(frozen=True)
class Material:
    """What the files are made with."""

    run: Path
    """Folder of the run: measurements are kept there."""
    source: Path
    """The float32 graph, in the bundle's folder."""
    side: int
    mode: CategoryMode
    categories: tuple[str, ...]
    images: Sequence[CalibrationImage]
    """Calibration images, the most different first; empty: there are none."""
    rule: str
    """How they were chosen."""
    held_out: Sequence[tuple[Path, str]]
    """Held-out good images and their categories, which plans are judged on."""

    @property
    def given(self) -> list[int] | None:
        """Category of each image, where the graph asks for it."""
        if self.mode != "input":
            return None
        return [self.categories.index(image.category) for image in self.images]

    @property
    def paths(self) -> list[Path]:
        """Of the calibration images."""
        return [image.path for image in self.images]


@dataclass
class WrittenFiles:
    """What was written, all in the bundle's folder."""

    models: dict[Precision, str] = field(default_factory=dict)
    other_files: list[str] = field(default_factory=list)
    calibration: CalibrationRecord | None = None
    fp16: Fp16Record | None = None


def write_precision_files(
    material: Material, asked: PrecisionOptions, on_progress: ProgressCallback = silent
) -> WrittenFiles:
    """Write the files that are asked for beside the float32 graph.

    Raises:
        InputError: a plan that does not fit, or a value that is not finite.
        ImageError: an image cannot be read.
        OutputError: a file cannot be written.
    """
    written = WrittenFiles()
    graph = onnx.load(material.source)
    graphs: dict[Precision, onnx.ModelProto] = {}
    if asked.int8:
        measured = measure(
            material.source,
            material.paths,
            material.side,
            material.given,
            on_progress,
            method=asked.ranges,
            cache=material.run / CACHE_FOLDER,
        )
        plan = _plan(material, asked, graph, measured, written, on_progress)
        candidates = quantisable_nodes(graph)
        layers = plan.int8_layers(candidates)
        graphs["int8"] = rounded(graph, measured, layers)
        written.calibration = CalibrationRecord(
            method="symmetric int8, weights per output channel, biases corrected, "
            f"ranges: {asked.ranges}",
            rule=material.rule,
            images=tuple(one.sha256 for one in material.images[: measured.images]),
            converged=measured.converged,
            int8_layers=len(layers),
            float_layers=len(candidates) - len(layers),
            plan_by=plan.made_by,
        )
    if asked.fp16:
        islands: tuple[str, ...] = ()
        if material.images:
            found = find_islands(
                material.source, material.paths, material.side, material.given, on_progress
            )
            islands = found.islands
            written.fp16 = Fp16Record(
                nodes=found.nodes,
                islands=islands,
                largest=found.largest,
                tensor=found.tensor,
            )
        graphs["fp16"] = to_fp16(graph, islands)
        if asked.int8:
            graphs["int8-fp16"] = to_fp16(graphs["int8"], islands)
    for precision, made in graphs.items():
        written.models[precision] = FILE_NAMES[precision]
        onnx.save(made, material.source.with_name(FILE_NAMES[precision]))
    return written


def _plan(
    material: Material,
    asked: PrecisionOptions,
    graph: onnx.ModelProto,
    measured: MeasuredRanges,
    written: WrittenFiles,
    on_progress: ProgressCallback,
) -> Plan:
    folder = material.source.parent
    candidates = quantisable_nodes(graph)
    if asked.plan is not None:
        plan = read_plan(asked.plan)
        plan.int8_layers(candidates)  # a plan of another model is an error before it is copied
    elif asked.budget is not None:
        names = [name for _, name in material.held_out]
        evidence = gather_evidence(
            [path for path, _ in material.held_out],
            [material.categories.index(name) for name in names],
            material.side,
            on_progress,
        )
        found = find_plan(
            material.source,
            measured,
            evidence,
            asked.budget,
            material.run / STORE_FOLDER,
            categories=material.categories,
            mode=material.mode,
            on_progress=on_progress,
        )
        plan = found.plan
        plot = trade_off_plot(found.steps, plan, len(candidates))
        write_text(folder / PLOT_NAME, plot)
        written.other_files.append(PLOT_NAME)
    else:
        plan = default_plan(candidates)
    write_plan(folder / PLAN_NAME, plan)
    written.other_files.append(PLAN_NAME)
    return plan
