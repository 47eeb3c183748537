"""Thresholds from good parts in front of the camera: the device's own, in two minutes.

Light, lens and mount on the line are never quite those of the training images, and so the scores
of good parts are not either. Needs no PyTorch.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from hvq_edge.bundle.manifest import Bundle, Precision, Threshold
from hvq_edge.bundle.thresholds import GoodPart, learn_threshold, put_thresholds
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import fit_image
from hvq_edge.errors import ImageError, InputError
from hvq_edge.runtime.engine import Engine
from hvq_edge.stream.sources.source import Frame, Source
from hvq_edge.verdict.defaults import CONFIDENCE, FALSE_REJECT
from hvq_edge.verdict.tolerance_bound import (
    Rule,
    check_asked,
    order_statistic,
)
from hvq_edge.verdict.usable import CategoryChecks, CheckedFrame, FrameChecks

FRAMES = 500
MOST_UNUSABLE = 0.5
"""Share of frames without a score at which the camera, not the threshold, needs attention."""
FIRST_LOOK = 40
"""Frames before that share is judged."""
STAGE = "good parts"


@dataclass(frozen=True)
class StreamCalibration:
    """What was learnt from a stream."""

    bundle: Bundle
    """As it is now."""
    precision: Precision
    thresholds: dict[str, Threshold]
    """By category."""
    used: int
    """Frames that gave a score."""
    unusable: dict[str, int]
    """Frames that gave none, by reason."""
    copies: int
    """Frames with exactly the image of an earlier one, which count once."""


def calibrate_from_stream(
    engine: Engine,
    bundle: Bundle,
    source: Source,
    frames: int = FRAMES,
    *,
    false_reject: float = FALSE_REJECT,
    confidence: float = CONFIDENCE,
    rule: Rule = order_statistic,
    every: int = 1,
    on_progress: ProgressCallback = silent,
) -> StreamCalibration:
    """Learn thresholds from good parts that a source shows, and write them into ``bundle.json``.

    Only for the precision of the engine: other precisions keep their thresholds.

    Args:
        engine: judges the frames, as it will on the line.
        bundle: the device's own copy.
        source: shows good parts only; closed at the end.
        frames: scores to gather. A source that ends earlier gives fewer, and promises less.
        false_reject: rate that is asked for.
        confidence: with which it is promised.
        rule: how a threshold follows from scores.
        every: use each so-many-th frame, so that frames show different parts.
        on_progress: called after each usable frame.

    Raises:
        SettingsError: a rate or confidence that means nothing.
        InputError: more than half of the frames lead to no decision, the source shows nothing, or
            the rule cannot work with the scores. Nothing is written then.
        OutputError: ``bundle.json`` cannot be written.
    """
    check_asked(false_reject, confidence)
    gathering = _Gathering(engine, bundle, live=source.live)
    try:
        for number, frame in enumerate(source):
            if number % every:
                continue
            gathering.take(frame)
            _check_camera(gathering, source.name)
            on_progress(STAGE, gathering.used, frames, gathering.note)
            if gathering.used >= frames:
                break
    finally:
        source.close()
    if not gathering.used:
        raise InputError(
            f"{source.name} gave no frame that can be judged{gathering.reasons}.",
            next_step="see that the camera shows good parts, sharp and lit as on the line",
        )
    _check_camera(gathering, source.name, at_end=True)
    precision = precision_of(bundle, engine)
    thresholds = {
        name: learn_threshold(
            parts,
            asked=false_reject,
            confidence=confidence,
            rule=rule,
            source=source.name,
            machine=f"{precision} on {engine.info.device}",
        )
        for name, parts in gathering.parts.items()
        if parts
    }
    return StreamCalibration(
        bundle=put_thresholds(bundle, {precision: thresholds}),
        precision=precision,
        thresholds=thresholds,
        used=gathering.used,
        unusable=dict(gathering.unusable),
        copies=gathering.copies,
    )


def precision_of(bundle: Bundle, engine: Engine) -> Precision:
    """Return the bundle's precision that an engine runs.

    Raises:
        InputError: the bundle has no such precision.
    """
    for name in bundle.manifest.models:
        if name == engine.info.precision:
            return name
    raise InputError(f"the bundle {bundle.path} has no {engine.info.precision} model.")


class _Gathering:
    """Scores of the frames taken so far."""

    def __init__(self, engine: Engine, bundle: Bundle, *, live: bool) -> None:
        self._engine = engine
        self._checks = FrameChecks(bundle.manifest.image_limits, live=live)
        self._of_category = CategoryChecks(bundle.manifest.category_limits)
        self._seen: set[bytes] = set()
        self.parts: dict[str, list[GoodPart]] = {name: [] for name in engine.info.categories}
        self.unusable: Counter[str] = Counter()
        self.copies = 0

    @property
    def used(self) -> int:
        return sum(len(parts) for parts in self.parts.values())

    @property
    def note(self) -> str:
        """For beside the progress bar."""
        missed = sum(self.unusable.values())
        return f"{missed} without a decision" if missed else ""

    @property
    def reasons(self) -> str:
        """Why frames gave no score; empty where each did."""
        said = ", ".join(f"{count} {why}" for why, count in self.unusable.most_common(3))
        return f" ({said})" if said else ""

    def take(self, frame: Frame) -> None:
        """Judge a frame, or count why it cannot be."""
        reason = self._score(frame)
        if reason:
            self.unusable[reason.partition(":")[0]] += 1

    def _score(self, frame: Frame) -> str:
        """Keep the frame's score; return why there is none, or nothing."""
        if frame.image is None:
            return "lost"
        try:
            fitted = fit_image(frame.image, self._engine.info.input_side)
        except ImageError as error:
            return error.cause
        fault, quality = self._checks.check(fitted)
        if fault is not None:
            return fault
        digest = hashlib.sha256(fitted.tobytes()).digest()
        if digest in self._seen:
            self.copies += 1
            return ""
        self._seen.add(digest)
        output = self._engine.run(fitted[np.newaxis])
        score, index = float(output["score"][0]), int(output["category"][0])
        categories = self._engine.info.categories
        if not (output["margin"][0] >= 0 and 0 <= index < len(categories)):
            return "unknown part"
        checked = CheckedFrame(frame, fitted, None, 0.0, quality)
        fault = self._of_category.fault(checked, categories[index])
        if fault is not None:
            return fault
        if not math.isfinite(score):
            return "score is not a finite number"
        name = frame.name or f"frame {frame.index}"
        self.parts[categories[index]].append(GoodPart(score, name))
        return ""


def _check_camera(gathering: _Gathering, source: str, *, at_end: bool = False) -> None:
    missed = sum(gathering.unusable.values())
    looked = missed + gathering.used
    if (looked >= FIRST_LOOK or at_end) and missed > MOST_UNUSABLE * looked:
        raise InputError(
            f"{missed} of {looked} frames of {source} lead to no decision{gathering.reasons}: "
            "thresholds learnt now would mean nothing, and nothing was written.",
            next_step="set up light, focus and the part's place as in the training images, then "
            "calibrate again",
        )
