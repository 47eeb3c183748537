"""Scores of good parts from which thresholds are learnt: of images that the line would decide on.

Whoever learns thresholds gathers here, from files or from a camera: ``export``, ``calibrate`` and
``stream --calibrate``. An image that would lead to no decision on the line sets no threshold.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import read_frame
from hvq_edge.runtime.engine import Engine
from hvq_edge.verdict.calibrate.expected_rate import expected_rate
from hvq_edge.verdict.decision import as_text
from hvq_edge.verdict.defaults import CONFIDENCE, FALSE_REJECT
from hvq_edge.verdict.image_checks import ImageChecks, SeenFrame
from hvq_edge.verdict.judgement import judgements, refusal
from hvq_edge.verdict.threshold import GoodPart, Threshold, learn_threshold
from hvq_edge.verdict.tolerance_bound import ThresholdRule

HELD_OUT = "held-out good images of the training data"


class Gathering:
    """Scores of the good parts that an engine was shown so far.

    Args:
        engine: runs the model file whose thresholds will be learnt.
        checks: which images lead to no decision.
    """

    def __init__(self, engine: Engine, checks: ImageChecks) -> None:
        self._engine = engine
        self._checks = checks
        self._seen: set[bytes] = set()
        self.parts: dict[str, list[GoodPart]] = {name: [] for name in engine.info.categories}
        """By the category each was judged as: that is the threshold its score meets on the line."""
        self.unusable: Counter[str] = Counter()
        """Images that would lead to no decision, by the reason's first words."""
        self.elsewhere: Counter[str] = Counter()
        """Images that were judged as another category than theirs, by that of theirs."""
        self.copies = 0
        """Images with exactly the pixels of an earlier one, which count once."""

    @property
    def used(self) -> int:
        """Images that gave a score."""
        return sum(len(parts) for parts in self.parts.values())

    @property
    def reasons(self) -> str:
        """Why images gave no score, the most frequent first; empty where each did."""
        return ", ".join(f"{count} {why}" for why, count in self.unusable.most_common())

    def refuse(self, reason: str) -> None:
        """Count an image that cannot be judged."""
        self.unusable[reason.partition(":")[0]] += 1

    def take(
        self,
        seen: SeenFrame,
        name: str,
        *,
        category: str | None = None,
        fault: str | None = None,
    ) -> None:
        """Judge one image and keep its score, or count why there is none.

        Args:
            seen: the image as the model sees it.
            name: of the image, for the record.
            category: of the part; ``None``: whatever the graph chooses.
            fault: why it cannot be judged, where that is known already.
        """
        fault = fault or self._checks.before(seen)
        if fault is not None:
            return self.refuse(fault)
        digest = hashlib.sha256(seen.fitted.tobytes()).digest()
        if digest in self._seen:
            self.copies += 1
            return None
        self._seen.add(digest)
        info = self._engine.info
        given = None
        if info.category_mode == "input" and category is not None:
            given = np.array([info.categories.index(category)], np.int32)
        # One at a time: an engine may round INT8 otherwise in a batch.
        (judgement,) = judgements(self._engine.run(seen.fitted[np.newaxis], given), info.categories)
        refused = refusal(judgement, self._checks.after(seen, judgement.category))
        if refused is not None or judgement.category not in self.parts:
            return self.refuse(refused or judgement.category)
        self.parts[judgement.category].append(GoodPart(judgement.score, as_text(name)))
        if category is not None and category != judgement.category:
            self.elsewhere[category] += 1
        return None

    def thresholds(
        self,
        *,
        asked: float = FALSE_REJECT,
        confidence: float = CONFIDENCE,
        rule: ThresholdRule = expected_rate,
        learnt: Gathering | None = None,
        source: str,
        other_sources: Mapping[str, str] | None = None,
    ) -> dict[str, Threshold]:
        """Learn the threshold of every category that has scores; see :func:`learn_threshold`.

        Args:
            asked: false-reject rate.
            confidence: of the bound.
            rule: how.
            learnt: scores of images that the model learnt from.
            source: where the parts were seen, for the record.
            other_sources: the same for categories where it was elsewhere.
        """
        info = self._engine.info
        return {
            name: learn_threshold(
                parts,
                asked=asked,
                confidence=confidence,
                rule=rule,
                learnt=learnt.parts[name] if learnt else (),
                source=(other_sources or {}).get(name, source),
                machine=f"{info.precision} on {info.device}",
            )
            for name, parts in self.parts.items()
            if parts
        }


def gather_images(
    engine: Engine,
    checks: ImageChecks,
    data: Path,
    images: Sequence[Path],
    category: Sequence[str | None],
    on_progress: ProgressCallback = silent,
    stage: str = "",
) -> Gathering:
    """Judge files of good images one at a time, as on the line.

    Args:
        engine: runs the model file whose thresholds will be learnt.
        checks: which images lead to no decision.
        data: what the images' paths are relative to.
        images: good images, relative to ``data``.
        category: each image's category, by name; ``None``: whatever the graph chooses.
        on_progress: called before each image.
        stage: what is said to be done; default: thresholds of the precision.

    Raises:
        ImageError: an image cannot be read.
    """
    gathering = Gathering(engine, checks)
    stage = stage or f"thresholds {engine.info.precision}"
    for done, (path, name) in enumerate(zip(images, category, strict=True), start=1):
        on_progress(stage, done, len(images))
        seen = SeenFrame(read_frame(data / path, engine.info.frame_shape))
        gathering.take(seen, path.as_posix(), category=name)
    return gathering
