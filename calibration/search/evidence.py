"""What a choice of INT8 layers is judged on: held-out good images, plain and with pseudo-defects.

Never the test images: a plan chosen on them would look better there than it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import read_frame
from hvq_edge.data.pseudo_defects import KINDS, pseudo_defect
from hvq_edge.errors import InputError
from hvq_edge.run.tiling import FrameSize
from hvq_edge.runtime.engine import EngineOutput, Frames

MOST_IMAGES = 64
"""At most this many good images are used, spread evenly over the held-out ones."""
DEFECTS = 2
"""Pseudo-defects that are made of each good image."""
THINNED = 4
"""One image of so many is enough to order layers by what each does alone."""
LEAST_THINNED = 64
"""Fewer images are not thinned out."""


class Evidence(NamedTuple):
    """Images to compare graphs on."""

    frames: Frames
    """uint8 ``[n, height, width, 3]``."""
    category: NDArray[np.int32]
    """``[n]``."""
    defective: NDArray[np.bool_]
    """``[n]``."""

    @property
    def digest(self) -> str:
        """The name of these very pixels, categories and labels: 64 hexadecimal digits."""
        parts = (self.frames, self.category, self.defective)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    def thinned(self) -> Evidence:
        """Return one of :data:`THINNED` images of each category, good and defective ones."""
        if len(self.frames) < LEAST_THINNED:
            return self
        kept = np.zeros(len(self.frames), np.bool_)
        for group in {*zip(self.category.tolist(), self.defective.tolist(), strict=True)}:
            own = (self.category == group[0]) & (self.defective == group[1])
            kept[np.flatnonzero(own)[::THINNED]] = True
        return Evidence(self.frames[kept], self.category[kept], self.defective[kept])


class GraphResults(NamedTuple):
    """A graph's outputs on the evidence."""

    codes: NDArray[np.int32]
    """``[n, levels, tokens]``."""
    maps: NDArray[np.float32]
    """``[n, height / 16, width / 16]``."""
    scores: NDArray[np.float32]
    """``[n]``."""


class Effect(BaseModel):
    """How far an INT8 graph's results are from the float32 graph's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codes: float
    """Share of equal codes, on the level where it is smallest."""
    maps: float
    """Correlation of the maps, over all cells."""
    scores: float
    """Correlation of the scores."""
    drop: float
    """Image AUROC lost, good against pseudo-defects: points, mean over the categories."""


class _Runs(Protocol):
    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput: ...


def gather_evidence(
    images: Sequence[Path],
    category: Sequence[int],
    size: FrameSize,
    on_progress: ProgressCallback = silent,
) -> Evidence:
    """Read held-out good images and damage copies of them, the same way every time.

    Args:
        images: held-out good images.
        category: each image's category index.
        size: of the graph's input in pixels.
        on_progress: called after each image.

    Raises:
        InputError: no images.
        ImageError: one cannot be read.
    """
    if not images:
        raise InputError("INT8 plans are judged on held-out good images, and there are none.")
    step = -(-len(images) // MOST_IMAGES)
    chosen = list(zip(images, category, strict=True))[::step]
    good = []
    for done, (path, _) in enumerate(chosen, start=1):
        good.append(read_frame(path, size))
        on_progress("images to judge", done, len(chosen))
    indices = [index for _, index in chosen]
    frames, categories = list(good), list(indices)
    kinds = list(KINDS)
    for number in range(DEFECTS):
        for i, frame in enumerate(good):
            kind = kinds[(i * DEFECTS + number) % len(kinds)]
            other = good[(i + 1 + number) % len(good)]
            frames.append(pseudo_defect(frame, other, kind, (i, number)).frame)
        categories += indices
    defective = np.arange(len(frames)) >= len(good)
    return Evidence(np.stack(frames), np.array(categories, np.int32), defective)


def results_on(
    engine: _Runs, evidence: Evidence, *, takes_category: bool, at_once: int = 1
) -> GraphResults:
    """Run a graph on the evidence, as on the line: what is judged beside it changes no image.

    Args:
        engine: runs the graph.
        evidence: the images.
        takes_category: whether the graph has a ``category`` input.
        at_once: images that the engine is given; only one that judges each alone takes more.
    """
    outputs = [
        engine.run(
            evidence.frames[i : i + at_once],
            evidence.category[i : i + at_once] if takes_category else None,
        )
        for i in range(0, len(evidence.frames), at_once)
    ]
    return GraphResults(
        np.concatenate([output["codes"] for output in outputs]),
        np.concatenate([output["map"] for output in outputs]),
        np.concatenate([output["score"] for output in outputs]),
    )


def effect_of(reference: GraphResults, found: GraphResults, evidence: Evidence) -> Effect:
    """Compare a graph's results with the float32 graph's.

    A graph with a value that is not finite agrees in nothing.
    """
    if not (np.isfinite(found.maps).all() and np.isfinite(found.scores).all()):
        return Effect(codes=0.0, maps=0.0, scores=0.0, drop=100.0)
    equal = (reference.codes == found.codes).mean((0, 2)).min()
    drops = [
        _auroc(reference.scores, evidence, index) - _auroc(found.scores, evidence, index)
        for index in np.unique(evidence.category)
    ]
    return Effect(
        codes=float(equal),
        maps=_correlation(reference.maps, found.maps),
        scores=_correlation(reference.scores, found.scores),
        drop=100 * float(np.mean(drops)),
    )


def _auroc(scores: NDArray[np.float32], evidence: Evidence, index: int) -> float:
    from sklearn.metrics import roc_auc_score

    mine = evidence.category == index
    return float(roc_auc_score(evidence.defective[mine], scores[mine]))


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    if np.array_equal(a, b):
        return 1.0
    if not (np.ptp(a) and np.ptp(b)):  # in float32, a constant has a standard deviation
        return 0.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
