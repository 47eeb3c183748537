"""Exported graphs of a small net with random weights: real in structure, seconds to make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch

from hvq_edge.calibration.int8 import DEFAULT_METHOD, calibrate_graph, to_int8
from hvq_edge.calibration.quantise import quantisable_nodes
from hvq_edge.calibration.ranges.amax import RangeMethod
from hvq_edge.calibration.ranges.measure import MeasuredRanges
from hvq_edge.calibration.search.plan import default_plan
from hvq_edge.export.graph.onnx_graph import export_graph
from hvq_edge.model import HVQTrans
from hvq_edge.run.settings import ModelSettings

SIDE = 64
SMALL = {
    "input_side": SIDE,
    "width": 16,
    "heads": 2,
    "feedforward": 24,
    "layers": 2,
    "codes": 20,
    "prototypes": 8,
    "transport_weight": 0.5,
}


@torch.inference_mode()
def small_model(seed: int = 0, **changes: object) -> HVQTrans:
    """A net of two categories whose every statistic differs from what it begins with."""
    torch.manual_seed(seed)
    model = HVQTrans(ModelSettings(**{**SMALL, **changes}), 2).eval()
    model.classifier.fitted.fill_(True)
    for name, buffer in model.named_buffers():
        if name in ("classifier.centres", "feature_mean", "map_centre"):
            buffer.normal_()
        elif name.endswith("whitening") or name.startswith("prototypes."):
            buffer.normal_(std=buffer.shape[-1] ** -0.5)
        elif name.endswith(("feature_std", "map_spread", "running_var")):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    for name, weight in model.named_parameters():
        if name.endswith((".bias", "output_bias")):
            weight.normal_(std=0.1)
        elif "norm" in name:
            weight.uniform_(0.5, 1.5)
    return model


def save_float(folder: Path, mode: str, **changes: object) -> Path:
    """Export in float32; with mode ``one``, category 1."""
    path = folder / f"{mode}.fp32.onnx"
    export_graph(small_model(**changes), path, mode, 1 if mode == "one" else None)
    return path


def save_int8(source: Path) -> Path:
    """Quantise a graph that :func:`save_float` wrote, with images of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    images = []
    for i, image in enumerate(noise):
        images.append(source.with_name(f"{i}.png"))
        cv2.imwrite(str(images[-1]), image)
    target = source.with_name(source.name.replace("fp32", "int8"))
    write_int8(source, target, images, SIDE, [0, 1, 0] if source.name[0] == "i" else None)
    return target


def default_nodes(graph: onnx.ModelProto) -> tuple[str, ...]:
    """The nodes that are int8 where no plan says otherwise."""
    candidates = quantisable_nodes(graph)
    return default_plan(candidates).int8_layers(candidates)


def write_int8(
    source: Path,
    target: Path,
    images: Sequence[Path],
    side: int,
    categories: Sequence[int] | None = None,
    *,
    method: RangeMethod = DEFAULT_METHOD,
) -> MeasuredRanges:
    """Write the INT8 form of a float32 graph by the default plan."""
    measured = calibrate_graph(source, images, side, categories, method=method)
    graph = onnx.load(source)
    onnx.save(to_int8(graph, measured, default_nodes(graph)), target)
    return measured
