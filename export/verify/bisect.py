"""Where a graph leaves another one: tensor by tensor, in the order they are computed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from polygraphy.backend.onnx import BytesFromOnnx, ModifyOutputs
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.logger import G_LOGGER

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.verification import Bisection, TensorError
from hvq_edge.export.graph.view import module_of

TOLERANCE_FLOAT = 1e-3
TOLERANCE_REDUCED = 0.25
"""Rounding to int8 leaves a few per cent on each tensor; a wrong range or weight leaves more."""
_SHOWN = 8


def bisect_precision(
    bundle: Bundle, run: Path, precision: Precision, feed: Mapping[str, NDArray[Any]], image: str
) -> Iterator[Bisection]:
    """Compare a reduced graph with the float32 one, or that one with PyTorch and a new export.

    Args:
        bundle: the bundle.
        run: the run it was exported from.
        precision: precision of the graph that is looked at.
        feed: inputs by name, of one image.
        image: the image's name.
    """
    other = bundle.model_file(precision)
    if precision != "fp32":
        yield bisect_graph(
            bundle.model_file("fp32"),
            other,
            feed,
            precision=precision,
            against="the float32 graph",
            image=image,
        )
        return
    from hvq_edge.export.graph.onnx_graph import export_graph
    from hvq_edge.export.verify.module_outputs import bisect_modules
    from hvq_edge.model.checkpoint import load_run

    model, record = load_run(run, bundle=bundle)
    # First what no fault of the export can hide in, then tensor by tensor.
    yield bisect_modules(model, other, feed, image=image)
    mode = bundle.manifest.category_mode
    index = record.categories.index(bundle.manifest.categories[0]) if mode == "one" else None
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "fresh.onnx"
        export_graph(model, fresh, mode, index)
        yield bisect_graph(
            fresh,
            other,
            feed,
            precision=precision,
            against="the run's model, exported anew",
            image=image,
        )


def bisect_graph(
    reference: Path,
    other: Path,
    feed: Mapping[str, NDArray[Any]],
    *,
    precision: Precision,
    against: str,
    image: str,
    tolerance: float | None = None,
) -> Bisection:
    """Compare every tensor that two graphs share, on ONNX Runtime.

    Args:
        reference: graph that is right.
        other: graph that is looked at; tensors keep their names when a graph is quantised.
        feed: inputs by name, of one image.
        precision: of ``other``.
        against: what ``reference`` is, in words.
        image: its name.
        tolerance: largest relative error that is right; ``None``: that of the precision.
    """
    if tolerance is None:
        tolerance = TOLERANCE_FLOAT if precision == "fp32" else TOLERANCE_REDUCED
    ours, theirs = onnx.load(reference), onnx.load(other)
    writers = {name: node for node in theirs.graph.node for name in node.output if name}
    shared = [
        name
        for node in ours.graph.node
        for name in node.output
        if name in writers and node.op_type != "Constant"
    ]
    values = values_of(ours, shared, feed), values_of(theirs, shared, feed)
    errors = [
        TensorError(
            tensor=name,
            module=module_of(writers[name]),
            operator=writers[name].op_type,
            error=relative_error(values[0][name], values[1][name]),
        )
        for name in shared
    ]
    return first_outside(
        errors, precision=precision, against=against, image=image, tolerance=tolerance
    )


def first_outside(
    errors: Sequence[TensorError],
    *,
    precision: Precision,
    against: str,
    image: str,
    tolerance: float,
) -> Bisection:
    """Return the first tensor outside the tolerance with those before it; else the worst.

    Args:
        errors: in the order in which the tensors are computed.
        precision: of the graph that is looked at.
        against: what the reference is, in words.
        image: its name.
        tolerance: largest relative error that is right.
    """
    outside = [place for place, one in enumerate(errors) if not one.error <= tolerance]
    if outside:
        first = outside[0]
        before = list(errors[max(first - _SHOWN, 0) : first])
    else:
        before = sorted(errors, key=lambda one: -one.error)[:_SHOWN]
    return Bisection(
        precision=precision,
        against=against,
        image=image,
        tolerance=tolerance,
        compared=len(errors),
        first=errors[outside[0]] if outside else None,
        before=tuple(before),
    )


def values_of(
    model: onnx.ModelProto, names: list[str], feed: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return tensors of a graph by name, computed by ONNX Runtime.

    Args:
        model: left as it is.
        names: of the tensors.
        feed: inputs by name; those that the graph does not have are left out.
    """
    marked = ModifyOutputs(model, outputs=names, copy=True)
    session = SessionFromOnnx(BytesFromOnnx(marked), providers=["CPUExecutionProvider"])
    known = {value.name for value in model.graph.input}
    # Polygraphy logs to standard output, where --json must stand alone.
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), OnnxrtRunner(session) as runner:
        found = runner.infer({name: value for name, value in feed.items() if name in known})
        return {name: np.array(found[name]) for name in names}


def relative_error(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Return ``|theirs - ours| / |ours|``; for integers the share that differs."""
    if ours.shape != theirs.shape:
        return float("inf")
    if not np.issubdtype(ours.dtype, np.floating):
        return float((ours != theirs).mean()) if ours.size else 0.0
    exact = ours.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where(exact == theirs, 0.0, exact - theirs)  # equal infinities are equal
    finite = np.where(np.isfinite(exact), exact, 0.0)
    return float(np.linalg.norm(difference) / max(float(np.linalg.norm(finite)), 1e-12))
