"""The reduced-precision files of a bundle, made of its float32 graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from hvq_edge.bundle.manifest import CalibrationRecord, CategoryMode, Fp16Record, Precision
from hvq_edge.calibration.images.calibration_image import CalibrationImage
from hvq_edge.calibration.int8 import DEFAULT_METHOD, calibrate_graph, to_int8
from hvq_edge.calibration.quantise import quantisable_nodes
from hvq_edge.calibration.ranges.amax import RangeMethod
from hvq_edge.calibration.ranges.measure import CACHE_FOLDER, MeasuredRanges
from hvq_edge.calibration.search.evidence import gather_evidence
from hvq_edge.calibration.search.find_plan import STORE_FOLDER, find_plan
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
from hvq_edge.run.tiling import FrameSize

FILE_NAMES: dict[Precision, str] = {
    "fp32": "model.fp32.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
    "int8-fp16": "model.int8-fp16.onnx",
}


@dataclass(frozen=True)
class PrecisionOptions:
    """Which reduced precisions a user asks for, and how they are made."""

    int8: bool = False
    fp16: bool = False
    """With ``int8`` there is also a file with float16 around the int8 layers."""
    ranges: RangeMethod = DEFAULT_METHOD
    plan: Path | None = None
    """An INT8 plan to keep to; ``None``: search under ``budget``, or take the default plan."""
    budget: Budget | None = None


@dataclass(frozen=True)
class Material:
    """What the files are made from."""

    run: Path
    """The run's folder: measurements are kept there."""
    source: Path
    """The float32 graph, in the bundle's folder."""
    size: FrameSize
    mode: CategoryMode
    categories: tuple[str, ...]
    images: Sequence[CalibrationImage]
    """Calibration images, the most different first; may be empty."""
    rule: str
    """How they were chosen, for the record."""
    held_out: Sequence[tuple[Path, str]]
    """Held-out good images and their categories: INT8 plans are judged on them."""

    @property
    def given(self) -> list[int] | None:
        """Category index of each calibration image; ``None`` where the graph has no such input."""
        if self.mode != "input":
            return None
        return [self.categories.index(image.category) for image in self.images]

    @property
    def paths(self) -> list[Path]:
        """The calibration images' files."""
        return [image.path for image in self.images]


@dataclass
class WrittenFiles:
    """The files that were written, all in the bundle's folder, and what they hold."""

    models: dict[Precision, str] = field(default_factory=dict)
    other_files: list[str] = field(default_factory=list)
    calibration: CalibrationRecord | None = None
    fp16: Fp16Record | None = None


def write_precision_files(
    material: Material, options: PrecisionOptions, on_progress: ProgressCallback = silent
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
    if options.int8:
        measured = calibrate_graph(
            material.source,
            material.paths,
            material.size,
            material.given,
            on_progress,
            method=options.ranges,
            cache=material.run / CACHE_FOLDER,
        )
        plan = _int8_plan(material, options, graph, measured, written, on_progress)
        candidates = quantisable_nodes(graph)
        layers = plan.int8_layers(candidates)
        graphs["int8"] = to_int8(graph, measured, layers)
        written.calibration = CalibrationRecord(
            method="symmetric int8, weights per output channel, biases corrected, "
            f"ranges: {options.ranges}",
            rule=material.rule,
            images=tuple(one.sha256 for one in material.images[: measured.images]),
            converged=measured.converged,
            int8_layers=len(layers),
            float_layers=len(candidates) - len(layers),
            plan_by=plan.made_by,
        )
    if options.fp16:
        islands: tuple[str, ...] = ()
        if material.images:
            found = find_islands(
                material.source, material.paths, material.size, material.given, on_progress
            )
            islands = found.islands
            written.fp16 = Fp16Record(
                nodes=found.nodes,
                islands=islands,
                amax=found.amax,
                tensor=found.tensor,
            )
        graphs["fp16"] = to_fp16(graph, islands)
        if options.int8:
            graphs["int8-fp16"] = to_fp16(graphs["int8"], islands)
    for precision, made in graphs.items():
        written.models[precision] = FILE_NAMES[precision]
        onnx.save(made, material.source.with_name(FILE_NAMES[precision]))
    return written


def _int8_plan(
    material: Material,
    options: PrecisionOptions,
    graph: onnx.ModelProto,
    measured: MeasuredRanges,
    written: WrittenFiles,
    on_progress: ProgressCallback,
) -> Plan:
    folder = material.source.parent
    candidates = quantisable_nodes(graph)
    if options.plan is not None:
        plan = read_plan(options.plan)
        plan.int8_layers(candidates)  # a plan of another model is an error before it is copied
    elif options.budget is not None:
        names = [name for _, name in material.held_out]
        evidence = gather_evidence(
            [path for path, _ in material.held_out],
            [material.categories.index(name) for name in names],
            material.size,
            on_progress,
        )
        found = find_plan(
            material.source,
            measured,
            evidence,
            options.budget,
            material.run / STORE_FOLDER,
            categories=material.categories,
            mode=material.mode,
            on_progress=on_progress,
        )
        plan = found.plan
        plot = trade_off_plot(found.trade_off, plan, len(candidates))
        write_text(folder / PLOT_NAME, plot)
        written.other_files.append(PLOT_NAME)
    else:
        plan = default_plan(candidates)
    write_plan(folder / PLAN_NAME, plan)
    written.other_files.append(PLAN_NAME)
    return plan
