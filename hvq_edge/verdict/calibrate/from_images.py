"""A bundle and a folder of good images in, thresholds with an upper bound out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import put_thresholds, threshold_records
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.errors import InputError
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.verdict.calibrate.expected_rate import expected_rate
from hvq_edge.verdict.calibrate.gathering import Gathering, gather_images
from hvq_edge.verdict.calibrate.good_images import find_good_images
from hvq_edge.verdict.calibrate.refusals import refuse_harm, strays
from hvq_edge.verdict.decision import as_text
from hvq_edge.verdict.defaults import CONFIDENCE, FALSE_REJECT
from hvq_edge.verdict.threshold import Threshold
from hvq_edge.verdict.tolerance_bound import (
    ThresholdRule,
    check_asked,
)


@dataclass(frozen=True)
class Calibrated:
    """What was learnt."""

    bundle: Bundle
    """As it is now."""
    thresholds: dict[Precision, dict[str, Threshold]]
    """The new ones."""
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)
    """Good images above the threshold, the highest first: of how many precisions; by category."""
    notes: tuple[str, ...] = ()
    """What was left out or looks odd, a sentence each."""


def calibrate_run(
    path: Path,
    good: Path,
    *,
    false_reject: float = FALSE_REJECT,
    confidence: float = CONFIDENCE,
    rule: ThresholdRule = expected_rate,
    precisions: Collection[Precision] = (),
    backend: str = "auto",
    run: Path | None = None,
    force: bool = False,
    on_progress: ProgressCallback = silent,
) -> Calibrated:
    """Learn thresholds from good images and write them into ``bundle.json``.

    Args:
        path: the bundle's folder.
        good: folder of good images that the model has not seen
            (:data:`hvq_edge.verdict.calibrate.good_images.TREE`).
        false_reject: rate that is asked for.
        confidence: of the upper bound.
        rule: how a threshold follows from scores.
        precisions: of the bundle's graphs; empty: all.
        backend: what runs them.
        run: the training run; default: the bundle's parent folder, where it is one.
        force: write thresholds that look harmful all the same.
        on_progress: called within every stage.

    Raises:
        GateFailed: the thresholds would probably let defects pass
            (:mod:`hvq_edge.verdict.calibrate.refusals`); nothing is written.
        SettingsError: a rate or confidence that means nothing, an unknown backend.
        BundleError: no bundle there, or it lacks a precision.
        DatasetError, ImageError: no good images, or one cannot be read.
        InputError: no image is left, or the rule cannot work with the scores.
        MissingCapability: the backend is not installed.
        OutputError: ``bundle.json`` cannot be written.
    """
    check_asked(false_reject, confidence)
    bundle = open_bundle(path)
    found = find_good_images(good, bundle, run, on_progress)
    paths = [image.path for image in found.images]
    names = [image.category for image in found.images]
    notes = list(found.notes)
    folder = as_text(good.resolve().name)
    thresholds: dict[Precision, dict[str, Threshold]] = {}
    rejected: dict[str, Counter[str]] = {}
    reasons: list[str] = []
    for precision in precisions or tuple(bundle.manifest.models):
        bundle.model_file(precision)
        # No GPU here: of the CPU engines ONNX Runtime keeps nearest to a float16 file's casts.
        runs_on = "onnxruntime" if backend == "auto" and "fp16" in precision else backend
        with open_engine(bundle, precision=precision, backend=runs_on) as engine:
            judged = gather_images(engine, bundle.checks, Path(), paths, names, on_progress)
        notes += _notes(judged, precision, len(paths))
        left_out = strays(judged.parts)
        notes += [f"at {precision}, {said}" for said in left_out.values()]
        learnt_now = judged.thresholds(
            asked=false_reject,
            confidence=confidence,
            rule=rule,
            source=f"images in {folder}",
        )
        thresholds[precision] = {
            name: one for name, one in learnt_now.items() if name not in left_out
        }
        if not thresholds[precision]:
            raise InputError(
                f"none of the {counted(len(paths), 'image')} can be judged at {precision}: "
                f"{judged.reasons}.",
                next_step="give images of good parts, taken as on the line",
            )
        reasons += refuse_harm(
            judged.parts,
            thresholds[precision],
            threshold_records(bundle.manifest, precision),
            precision=precision,
            force=force,
        )
        for name, learnt in thresholds[precision].items():
            above = sorted((p for p in judged.parts[name] if p.score > learnt.value), reverse=True)
            rejected.setdefault(name, Counter()).update(part.name for part in above)
    notes += [f"written all the same, because --force was given: {one}" for one in reasons]
    written = put_thresholds(
        bundle,
        thresholds,
        [image.sha256 for image in found.images],
        why=f"calibrate --good {folder}",
    )
    above_it = {name: dict(count) for name, count in rejected.items()}
    return Calibrated(written, thresholds, above_it, tuple(notes))


def _notes(judged: Gathering, precision: str, total: int) -> list[str]:
    notes = []
    if judged.unusable:
        notes.append(
            f"{sum(judged.unusable.values())} of {counted(total, 'image')} would lead to no "
            f"decision at {precision}, and set no threshold: {judged.reasons}"
        )
    for name, count in judged.elsewhere.items():
        notes.append(
            f"{counted(count, 'image')} of {name} judged as another category at {precision}: what "
            "counts is the category whose threshold they will meet"
        )
    return notes
