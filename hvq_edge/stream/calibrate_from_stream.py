"""Thresholds from good parts in front of the camera: the device's own, in two minutes.

Light, lens and mount on the line are never quite those of the training images, and so the scores
of good parts are not either. Needs no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import put_thresholds, threshold_records
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import fit_image
from hvq_edge.errors import ImageError, InputError
from hvq_edge.run.tiling import FrameSize
from hvq_edge.runtime.engine import Engine
from hvq_edge.stream.sources.source import Frame, Source, is_camera
from hvq_edge.verdict.calibrate.expected_rate import expected_rate
from hvq_edge.verdict.calibrate.gathering import Gathering
from hvq_edge.verdict.calibrate.refusals import refuse_harm, strays
from hvq_edge.verdict.defaults import CONFIDENCE, FALSE_REJECT
from hvq_edge.verdict.image_checks import FrameChecks, SeenFrame
from hvq_edge.verdict.threshold import Threshold
from hvq_edge.verdict.tolerance_bound import (
    ThresholdRule,
    check_asked,
)

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
    notes: tuple[str, ...] = ()
    """What was left out or looks odd, a sentence each."""


def calibrate_from_stream(
    engine: Engine,
    bundle: Bundle,
    source: Source,
    frames: int = FRAMES,
    *,
    false_reject: float = FALSE_REJECT,
    confidence: float = CONFIDENCE,
    rule: ThresholdRule = expected_rate,
    every: int = 1,
    force: bool = False,
    on_progress: ProgressCallback = silent,
) -> StreamCalibration:
    """Learn thresholds from good parts that a source shows, and write them into ``bundle.json``.

    Only for the precision of the engine: other precisions keep their thresholds.

    Args:
        engine: judges the frames, as it will on the line.
        bundle: the device's own copy.
        source: shows good parts only; closed at the end.
        frames: scores to gather. A source that ends earlier gives fewer, and a looser bound.
        false_reject: rate that is asked for.
        confidence: of the upper bound.
        rule: how a threshold follows from scores.
        every: use each so-many-th frame, so that frames show different parts.
        force: write thresholds that look harmful all the same.
        on_progress: called after each usable frame.

    Raises:
        GateFailed: the thresholds would probably let defects pass
            (:mod:`hvq_edge.verdict.calibrate.refusals`); nothing is written.
        SettingsError: a rate or confidence that means nothing.
        InputError: more than half of the frames lead to no decision, the source shows nothing, or
            the rule cannot work with the scores. Nothing is written then.
        OutputError: ``bundle.json`` cannot be written.
    """
    check_asked(false_reject, confidence)
    gathering = Gathering(engine, bundle.checks)
    checks = FrameChecks(bundle.checks, live=is_camera(source))
    try:
        for number, frame in enumerate(source):
            if number % every:
                continue
            _take(gathering, checks, frame, engine.info.frame_shape)
            _check_camera(gathering, source.name)
            missed = gathering.unusable.total()
            on_progress(
                STAGE, gathering.used, frames, f"{missed} without a decision" if missed else ""
            )
            if gathering.used >= frames:
                break
    finally:
        source.close()
    if not gathering.used:
        raise InputError(
            f"{source.name} gave no frame that can be judged{_reasons(gathering)}.",
            next_step="see that the camera shows good parts, sharp and lit as on the line",
        )
    _check_camera(gathering, source.name, at_end=True)
    precision = precision_of(bundle, engine)
    left_out = strays(gathering.parts)
    learnt = gathering.thresholds(
        asked=false_reject, confidence=confidence, rule=rule, source=source.name
    )
    thresholds = {name: one for name, one in learnt.items() if name not in left_out}
    reasons = refuse_harm(
        gathering.parts,
        thresholds,
        threshold_records(open_bundle(bundle.path).manifest, precision),
        precision=precision,
        force=force,
    )
    return StreamCalibration(
        bundle=put_thresholds(
            bundle, {precision: thresholds}, why=f"stream --calibrate with {source.name}"
        ),
        precision=precision,
        thresholds=thresholds,
        used=gathering.used,
        unusable=dict(gathering.unusable),
        copies=gathering.copies,
        notes=(
            *left_out.values(),
            *(f"written all the same, because --force was given: {one}" for one in reasons),
        ),
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


def _take(gathering: Gathering, checks: FrameChecks, frame: Frame, size: FrameSize) -> None:
    """Judge a frame, or count why it cannot be."""
    if frame.image is None:
        return gathering.refuse("lost")
    try:
        seen = SeenFrame(fit_image(frame.image, size))
    except ImageError as error:
        return gathering.refuse(error.cause)
    name = frame.name or f"frame {frame.index}"
    return gathering.take(seen, name, fault=checks.check(seen))


def _check_camera(gathering: Gathering, source: str, *, at_end: bool = False) -> None:
    missed = gathering.unusable.total()
    looked = missed + gathering.used
    if (looked >= FIRST_LOOK or at_end) and missed > MOST_UNUSABLE * looked:
        raise InputError(
            f"{missed} of {looked} frames of {source} lead to no decision{_reasons(gathering)}: "
            "thresholds learnt now would mean nothing, and nothing was written.",
            next_step="set up light, focus and the part's place as in the training images, then "
            "calibrate again",
        )


def _reasons(gathering: Gathering) -> str:
    return f" ({gathering.reasons})" if gathering.unusable else ""
