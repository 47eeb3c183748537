"""What folding did to a graph: the exported file beside the model exported as it is."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from hvq_edge.bundle.manifest import CategoryMode, GraphNumbers, GraphRecord
from hvq_edge.export.graph.onnx_graph import export_graph
from hvq_edge.export.graph.size import graph_size
from hvq_edge.model.hvq_trans import HVQTrans


def compare_with_plain(
    model: HVQTrans, exported: Path, mode: CategoryMode, category: int | None = None
) -> GraphRecord:
    """Count the exported graph, and the same model's with nothing folded.

    Args:
        model: that was exported.
        exported: its float32 graph.
        mode: of its category.
        category: index of the only one, with mode ``one``.
    """
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "plain.onnx"
        export_graph(model, plain, mode, category, plain=True)
        return GraphRecord(exported=graph_numbers(exported), plain=graph_numbers(plain))


def graph_numbers(path: Path) -> GraphNumbers:
    """Count one file."""
    size = graph_size(onnx.load(path))
    return GraphNumbers(
        nodes=size.nodes,
        weights=size.weights,
        tables=size.code_tables + size.category_tables,
        bytes=path.stat().st_size,
        multiply_adds=size.multiply_adds,
    )
