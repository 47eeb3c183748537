"""A few compared images as Polygraphy's own files, so that others can repeat a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from polygraphy.comparator import IterationResult, RunResults
from polygraphy.json import save_json

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.export.verify.agreement import LIMITS, Outputs
from hvq_edge.runtime.contract import graph_inputs, graph_outputs

FOLDER = "verify"
"""In the bundle's folder."""
INPUTS_NAME = "inputs.json"
SAVED_IMAGES = 4
"""A frame takes 200 kB as JSON."""


def write_polygraphy_files(
    folder: Path,
    bundle: Bundle,
    feeds: Sequence[Mapping[str, NDArray[Any]]],
    outputs: Mapping[str, Sequence[Outputs]],
) -> None:
    """Write ``inputs.json`` and an ``outputs-RUNNER.json`` each.

    Args:
        folder: where to; must be there.
        bundle: the bundle; only inputs and outputs of its graphs are written.
        feeds: inputs of each image; the first few are written.
        outputs: of each runner, in the same order.
    """
    mode = bundle.manifest.category_mode
    save_json(
        [{name: feed[name] for name in graph_inputs(mode)} for feed in feeds[:SAVED_IMAGES]],
        str(folder / INPUTS_NAME),
        description="images of hvq-edge verify",
    )
    for name, iterations in outputs.items():
        kept = [
            IterationResult(
                {key: np.asarray(one[key]) for key in graph_outputs(mode)}, runner_name=name
            )
            for one in iterations[:SAVED_IMAGES]
        ]
        RunResults([(name, kept)]).save(str(folder / outputs_name(name)))


def outputs_name(runner: str) -> str:
    """Return the name of a runner's file: ``outputs-fp32-onnx-runtime.json``."""
    return f"outputs-{runner.lower().replace(' ', '-')}.json"


def polygraphy_command(bundle: Bundle, precision: Precision, scale: float, reference: str) -> str:
    """Return the command line that compares a graph on ONNX Runtime with the saved outputs.

    It holds the limits of ``hvq-edge verify``: for maps and scores (a score is a largest value of
    the smoothed map, so it moves no further), and for the share of equal codes as a quantile.

    Args:
        bundle: the bundle; its path stands in the command as it is.
        precision: of the graph.
        scale: largest absolute value of the reference's maps.
        reference: name of the runner to compare with.
    """
    limits = LIMITS[precision]
    mode = bundle.manifest.category_mode
    distance = f"{limits.map_error * scale:.3g}"
    tolerances = [f"map:{distance}", f"score:{distance}", "codes:0"]
    if mode == "auto":
        tolerances += ["category:0", f"margin:{limits.map_error:g}"]
    folder = bundle.path / FOLDER
    words = [
        "polygraphy",
        "run",
        str(bundle.path / bundle.manifest.models[precision]),
        "--onnxrt",
        "--load-inputs",
        str(folder / INPUTS_NAME),
        "--load-outputs",
        str(folder / outputs_name(reference)),
        "--rtol",
        "0",
        "--atol",
        *tolerances,
        "--check-error-stat",
        "max",
        "codes:quantile",
        "--error-quantile",
        f"codes:{limits.code_agreement:g}",
    ]
    return shlex.join(words)
