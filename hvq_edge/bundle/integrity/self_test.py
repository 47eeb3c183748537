"""A trial of a bundle where it is to run, before it comes into use.

``hvq-edge verify`` leaves a known answer in the bundle: a real image, and what the PyTorch model
said of it. Without one a grey frame shows at least that the graphs load and compute.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import Bundle, Precision
from hvq_edge.errors import GateFailed, HvqEdgeError
from hvq_edge.runtime.open_engine import choose, open_engine
from hvq_edge.verdict.judgement import judgements, refusal

CHECK_NAME = "verify/check.npz"
_GREY = 128


@dataclass(frozen=True)
class KnownAnswer:
    """An image, and what is to come out."""

    frames: NDArray[np.uint8]
    """``[1, side, side, 3]``."""
    category: int
    """Index in the bundle's categories: given with mode ``input``, else to come out."""
    score: float
    """Of the PyTorch model."""
    tolerance: dict[Precision, float]
    """Largest difference of a score that is right, by precision."""


def write_known_answer(path: Path, answer: KnownAnswer) -> None:
    """Write a known answer as ``.npz``; the folder must be there."""
    arrays: dict[str, Any] = {
        "frames": answer.frames,
        "category": answer.category,
        "score": answer.score,
        **{f"tolerance_{name}": value for name, value in answer.tolerance.items()},
    }
    np.savez_compressed(path, **arrays)


def read_known_answer(bundle: Bundle) -> KnownAnswer | None:
    """Return a bundle's known answer; ``None``: it has none in its manifest.

    Raises:
        GateFailed: it cannot be read.
        BundleError: it was changed.
    """
    if CHECK_NAME not in bundle.manifest.files:
        return None
    path = bundle.file(CHECK_NAME)
    try:
        with np.load(path, allow_pickle=False) as content:
            return KnownAnswer(
                frames=content["frames"],
                category=int(content["category"]),
                score=float(content["score"]),
                tolerance={
                    name: float(content[f"tolerance_{name}"])
                    for name in bundle.manifest.models
                    if f"tolerance_{name}" in content
                },
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise GateFailed(f"{path} cannot be read: {error}.") from error


def self_test(bundle: Bundle) -> str:
    """Run a bundle once, as ``hvq-edge stream`` would, and look at what comes out.

    Returns:
        What was tried, in words.

    Raises:
        GateFailed: it does not load or run, or another answer comes out than the known one.
    """
    answer = read_known_answer(bundle)
    manifest = bundle.manifest
    side = manifest.input_side
    grey = np.full((1, side, side, 3), _GREY, np.uint8)
    try:
        choice = choose(bundle)
        with open_engine(bundle, precision=choice.precision, backend=choice.backend) as engine:
            given = None
            if manifest.category_mode == "input":
                given = np.array([answer.category if answer else 0], np.int32)
            output = engine.run(answer.frames if answer else grey, given)
    except GateFailed:
        raise
    except HvqEdgeError as error:
        raise GateFailed(f"the bundle does not run here: {error.cause}") from error
    how = f"{choice.precision} on {choice.backend}"
    (judgement,) = judgements(output, manifest.categories)
    score = judgement.score
    if not judgement.finite:
        raise GateFailed(f"{how} gives a score or a map that is not finite.")
    if answer is None or choice.precision not in answer.tolerance:
        return f"{how}: a grey frame, score {score:.4g} (no known answer: run hvq-edge verify)"
    tolerance = answer.tolerance[choice.precision]
    refused = refusal(judgement, bundle.checks.fault(answer.frames[0], judgement))
    if refused is not None:
        raise GateFailed(
            f"{how} decides nothing on the check image: {refused}.",
            next_step="run hvq-edge verify on the host; if it passes, run hvq-edge doctor here",
        )
    right = manifest.categories[answer.category]
    if abs(score - answer.score) > tolerance or judgement.category != right:
        raise GateFailed(
            f"{how} gives the check image the score {score:.4g} as "
            f"{judgement.category}; right is {answer.score:.4g} within "
            f"{tolerance:.2g} as {right}.",
            next_step="run hvq-edge verify on the host; if it passes, run hvq-edge doctor here",
        )
    return f"{how}: the check image, score {score:.4g}, right is {answer.score:.4g}"
