"""Known answers of the bundles of ``helpers.graphs``, and graphs that give others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from helpers.graph_edits import set_value, value_of
from helpers.graphs import expected, frames

from hvq_edge.bundle.manifest import record_of, write_manifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.runtime.known_answers import (
    ANSWERS_NAME,
    Answer,
    Deviation,
    KnownAnswers,
    write_known_answers,
)

TOLERANCE = Deviation(codes=0.02, map=0.01, score=0.01, margin=0.01)
IMAGES = 3


def answers_of(bundle: Bundle, **changes: object) -> KnownAnswers:
    """What is right for a bundle's graphs; ``changes`` are of every precision's answer."""
    mode = bundle.manifest.category_mode
    images = frames(IMAGES, seed=7)
    shown = np.arange(IMAGES, dtype=np.int32) % len(bundle.manifest.categories)
    known = expected(images, mode, shown)
    if mode == "auto":
        shown = known["category"].astype(np.int32)
    right = {
        "category": shown,
        "score": known["score"].astype(np.float32),
        "map": known["map"].astype(np.float32),
        "codes": known["codes"].astype(np.int32),
        "margin": known["margin"].astype(np.float32) if mode == "auto" else None,
        "tolerance": TOLERANCE,
    }
    answer = Answer(**{**right, **changes})
    return KnownAnswers(images, shown, dict.fromkeys(bundle.manifest.models, answer))


def give_answers(bundle: Bundle, answers: KnownAnswers | None = None) -> Bundle:
    """Write known answers into a bundle as the export does."""
    write_known_answers(bundle.path / ANSWERS_NAME, answers or answers_of(bundle))
    return take_in(bundle, ANSWERS_NAME)


def take_in(bundle: Bundle, name: str) -> Bundle:
    """Record a file of a bundle as it is now."""
    files = {**bundle.manifest.files, name: record_of(bundle.path / name)}
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": files}))
    return open_bundle(bundle.path)


def compute_wrongly(bundle: Bundle, precision: str = "fp32", factor: float = -1.0) -> Bundle:
    """Change a weight of a graph and make its recorded hash anew: as if a library were wrong."""
    path: Path = bundle.path / bundle.manifest.models[precision]
    proto = onnx.load(path)
    set_value(value_of(proto, "grey_weights"), lambda weights: factor * weights)
    onnx.save(proto, path)
    return take_in(bundle, path.name)
