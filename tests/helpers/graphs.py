"""Small exported graphs for tests: docs/explanation/architecture.md, "The graph's contract"."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hvq_edge.bundle.manifest import (
    BundleManifest,
    GraphNumbers,
    GraphRecord,
    record_of,
    write_manifest,
)
from hvq_edge.bundle.opened import Bundle, open_bundle

SIDE = 64
GRID = SIDE // 16
_COUNTED = GraphNumbers(nodes=1, weights=0, tables=0, bytes=1, multiply_adds=0)
GRAPH_RECORD = GraphRecord(exported=_COUNTED, plain=_COUNTED)
LEVELS = 2
CATEGORIES = ("bolt", "nut", "washer plate")


def frames(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)


def expected(batch: np.ndarray, mode: str, category: np.ndarray | None = None) -> dict:
    """What the graph of :func:`save_graph` gives, in numpy."""
    means = batch.reshape(len(batch), GRID, 16, GRID, 16, 3).mean((2, 4))  # [b, g, g, 3]
    chosen = np.zeros(len(batch))
    margin = np.full(len(batch), np.inf)
    if mode == "auto":
        chosen = means.mean((1, 2)).argmax(1)
        margin = means.mean((1, 2)).max(1)
    elif mode == "input":
        chosen = category
    heat = means.mean(3) / 255 + 10 * chosen[:, None, None]
    codes = np.repeat(means.argmax(3).reshape(len(batch), 1, -1), LEVELS, axis=1)
    return {
        "score": heat.max((1, 2)),
        "map": heat,
        "codes": codes,
        "category": chosen,
        "margin": margin,
    }


def save_graph(path: Path, mode: str = "one", *, score_name: str = "score") -> Path:
    """Map: mean brightness of each 16x16 block, plus ten times the category; score: its maximum."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["means"], kernel_shape=[16, 16], strides=[16, 16]
        ),
        # A convolution: CPUs with bfloat16 would compute it in that, unless told not to.
        helper.make_node("Conv", ["means", "grey_weights"], ["grey"]),
        helper.make_node("Squeeze", ["grey", "channel_axis"], ["heat"]),
        helper.make_node("ArgMax", ["means"], ["brightest"], axis=1, keepdims=0),
        helper.make_node("Cast", ["brightest"], ["code"], to=TensorProto.INT32),
        helper.make_node("Reshape", ["code", "code_shape"], ["level"]),
        helper.make_node("Concat", ["level"] * LEVELS, ["codes"], axis=1),
    ]
    if mode == "auto":
        nodes += [
            helper.make_node("ReduceMean", ["means"], ["logits"], axes=[2, 3], keepdims=0),
            helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
            helper.make_node("Cast", ["best"], ["category"], to=TensorProto.INT32),
            helper.make_node("ReduceMax", ["logits"], ["margin"], axes=[1], keepdims=0),
        ]
    if mode == "one":
        nodes.append(helper.make_node("Identity", ["heat"], ["map"]))
    else:
        nodes += [
            helper.make_node("Cast", ["category"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["number", "ten"], ["offset"]),
            helper.make_node("Reshape", ["offset", "offset_shape"], ["offsets"]),
            helper.make_node("Add", ["heat", "offsets"], ["map"]),
        ]
    nodes.append(helper.make_node("ReduceMax", ["map"], [score_name], axes=[1, 2], keepdims=0))
    inputs = [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])]
    outputs = [
        helper.make_tensor_value_info(score_name, TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", GRID, GRID]),
        helper.make_tensor_value_info("codes", TensorProto.INT32, ["batch", LEVELS, GRID**2]),
    ]
    category = helper.make_tensor_value_info("category", TensorProto.INT32, ["batch"])
    if mode == "input":
        inputs.append(category)
    elif mode == "auto":
        margin = helper.make_tensor_value_info("margin", TensorProto.FLOAT, ["batch"])
        outputs += [category, margin]
    constants = {
        "grey_weights": np.full((1, 3, 1, 1), 1 / 765, np.float32),
        "channel_axis": np.array([1]),
        "ten": np.float32(10),
        "code_shape": np.array([0, 1, GRID**2]),
        "offset_shape": np.array([-1, 1, 1]),
    }
    graph = helper.make_graph(
        nodes,
        "block_brightness",
        inputs,
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def save_bundle(
    folder: Path,
    mode: str = "one",
    precisions: tuple[str, ...] = ("fp32",),
    categories: tuple[str, ...] | None = None,
) -> Bundle:
    """A bundle whose graphs are those of :func:`save_graph`."""
    if categories is None:
        categories = CATEGORIES[:1] if mode == "one" else CATEGORIES
    folder.mkdir(parents=True)
    models = {precision: f"model.{precision}.onnx" for precision in precisions}
    files = {name: record_of(save_graph(folder / name, mode)) for name in models.values()}
    manifest = BundleManifest(
        hvq_edge_version="0",
        created="2026-01-01T00:00:00Z",
        checkpoint_sha256="0" * 64,
        preset="tiny",
        input_side=SIDE,
        levels=LEVELS,
        codes=3,
        categories=categories,
        category_mode=mode,
        models=models,
        files=files,
        graph=GRAPH_RECORD,
    )
    write_manifest(folder, manifest)
    return open_bundle(folder)
