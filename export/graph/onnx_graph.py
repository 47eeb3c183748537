"""PyTorch to ONNX: one graph, readable names, nothing in it from the machine that made it."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from hvq_edge.bundle.manifest import CategoryMode, GraphRecord
from hvq_edge.errors import HvqEdgeError
from hvq_edge.export.fold.code_tables import MAX_TABLE_MB, Fold
from hvq_edge.export.fold.folded import FoldedHVQTrans
from hvq_edge.export.graph.size import graph_numbers
from hvq_edge.model.hvq_trans import HVQTrans

OPSET = 18
"""The first with LayerNormalization that torch.onnx emits; within what TensorRT 10.3 parses."""


def export_graph(
    model: HVQTrans,
    path: Path,
    mode: CategoryMode,
    category: int | None = None,
    *,
    max_table_mb: float = MAX_TABLE_MB,
    plain: bool = False,
) -> list[Fold]:
    """Write the float32 graph of a model.

    Args:
        model: in eval mode, on the CPU; not changed.
        path: the ONNX file to write.
        mode: ``auto``, ``input`` or ``one``.
        category: index of the single category; with mode ``one``.
        max_table_mb: see :class:`FoldedHVQTrans`.
        plain: fold nothing: a graph to compare with.

    Returns:
        What could be a table, and whether it is one; empty where nothing is folded.

    Raises:
        CheckpointError: mode ``auto`` and the model has no classifier.
    """
    folded: FoldedHVQTrans | PlainHVQTrans = (
        PlainHVQTrans(model, mode, category)
        if plain
        else FoldedHVQTrans(model, mode, category, max_table_mb=max_table_mb)
    )
    frames = torch.zeros(2, *model.tiling.frame_shape, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=1024)
    inputs, arguments, shapes = ["frames"], [frames], [{0: batch}]
    outputs = ["score", "map", "codes"]
    if mode == "input":
        inputs.append("category")
        arguments.append(torch.zeros(2, dtype=torch.int32))
        shapes.append({0: batch})
    if mode == "auto":
        outputs += ["category", "margin"]
    proto = trace(folded, tuple(arguments), inputs, outputs, tuple(shapes))
    clean(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return folded.folds


def trace(
    model: nn.Module,
    arguments: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: tuple[Mapping[int, torch.export.Dim], ...],
) -> onnx.ModelProto:
    """Let torch.onnx write a module's graph: most of the time that an export takes.

    Args:
        model: the module, in eval mode.
        arguments: an example of its inputs.
        inputs: their names in the graph.
        outputs: names of what it returns.
        shapes: by input, the dimensions that may differ.
    """
    with _quiet():
        program = torch.onnx.export(
            model,
            arguments,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    if program is None:  # only with arguments that we do not give
        raise HvqEdgeError("torch.onnx gave no graph.")
    return program.model_proto


def compare_with_plain(
    model: HVQTrans, exported: Path, mode: CategoryMode, category: int | None = None
) -> GraphRecord:
    """Count what is in an exported graph, and in one of the same model with nothing folded.

    Args:
        model: the model that was exported.
        exported: its float32 graph.
        mode: the graph's category mode.
        category: index of the single category; with mode ``one``.
    """
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "plain.onnx"
        export_graph(model, plain, mode, category, plain=True)
        return GraphRecord(exported=graph_numbers(exported), plain=graph_numbers(plain))


class PlainHVQTrans(nn.Module):
    """:class:`HVQTrans` with a graph's inputs and outputs, and nothing folded: to compare with.

    Args:
        model: in eval mode; not changed.
        mode: ``one``, ``input`` or ``auto``, as for :class:`FoldedHVQTrans`.
        category: index of the single category; with mode ``one`` only.
    """

    def __init__(self, model: HVQTrans, mode: CategoryMode, category: int | None = None) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.mode = mode
        self.category = category
        self.folds: list[Fold] = []

    def forward(self, frames: Tensor, category: Tensor | None = None) -> tuple[Tensor, ...]:
        """Take and return what :meth:`FoldedHVQTrans.forward` does."""
        standardised = self.model.standardise(self.model.raw_features(frames))
        if self.category is not None:
            own = torch.full((frames.shape[0],), self.category, dtype=torch.int64)
        elif category is not None:
            own = category.to(torch.int64)
        else:
            own, margin = self.model.classifier(self.model.coarse(standardised))
        out = self.model.judge(standardised, own)
        found = (out["score"], out["map"], out["codes"])
        return (*found, out["category"], margin) if self.mode == "auto" else found


def clean(proto: onnx.ModelProto) -> None:
    """Name nodes after their modules and drop what the exporter noted of this machine.

    Node ``encoder.0.self_attention.out/MatMul`` belongs to that module of
    :class:`FoldedHVQTrans`; a number follows when a module has several of a kind.
    """
    seen: Counter[str] = Counter()
    for node in proto.graph.node:
        scopes = {prop.key: prop.value for prop in node.metadata_props}
        modules = ast.literal_eval(scopes.get("pkg.torch.onnx.name_scopes", "['', '']"))
        scope = modules[-2] if len(modules) > 1 else ""
        name = f"{scope or 'top'}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    values = [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    for entry in [*values, *proto.graph.initializer]:
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    proto.graph.ClearField("metadata_props")
    proto.ClearField("metadata_props")
    proto.graph.name = "hvq_trans"
    proto.producer_name = "hvq-edge"
    proto.producer_version = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The exporter warns of things that do not concern the user (torchvision missing, dynamic
    # shape names) on three different channels.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
