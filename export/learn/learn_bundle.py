"""A bundle and images called good after all in, a new bundle beside it out.

The images join their category's prototypes, calibration scores and limits of usable images;
thresholds of the category are learnt anew. Nothing else moves: every other category computes with
the bytes it had.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.integrity.content import CARD_NAME
from hvq_edge.bundle.learnt import (
    LEARNT_NAME,
    PROTOTYPES_NAME,
    Seen,
    WhatChanged,
)
from hvq_edge.bundle.manifest import MANIFEST_NAME, Precision, write_manifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.common.atomic import atomic_folder, sha256_of, write_text
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.errors import InputError
from hvq_edge.evaluation.acceptance.model_card import write_card
from hvq_edge.export.learn.edited import Change, Graphs, Tokens
from hvq_edge.export.learn.judged import (
    JudgedImage,
    Outcome,
    check_agreed,
    judge,
    list_judged,
    opened,
)
from hvq_edge.export.learn.known_good import Known, known_good
from hvq_edge.export.learn.new_manifest import (
    carried_over,
    new_folder,
    values_cut,
    with_file,
    with_limits,
    with_record,
    with_thresholds,
    write_prototypes,
)
from hvq_edge.export.learn.outcome import compared, doubts, new_thresholds
from hvq_edge.export.learn.renewed_answers import renewed_answers
from hvq_edge.export.lint.check import check_graph_file
from hvq_edge.runtime.known_answers import ANSWERS_NAME, write_known_answers
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.verdict.defaults import CONFIDENCE
from hvq_edge.verdict.tolerance_bound import check_asked

FOLDS = 5
"""Parts into which new images are divided, each judged while only the others are learnt."""


@dataclass(frozen=True)
class Learnt:
    """What came of it."""

    bundle: Bundle
    """The new one."""
    before: Bundle
    images: dict[str, tuple[str, ...]]
    """Names of the images that were learnt, by category."""
    changed: WhatChanged
    notes: tuple[str, ...] = ()
    """What was left out, widened or is to be done, a sentence each."""


@dataclass
class _Work:
    """What one learning gathers on its way."""

    before: Bundle
    learn: list[JudgedImage]
    regression: list[tuple[JudgedImage, Seen]]
    known: dict[str, Known]
    backends: dict[Precision, str] = field(default_factory=dict)
    outcomes: dict[Precision, list[Outcome]] = field(default_factory=dict)
    """Of the bundle before, in the order of ``regression``."""
    crossed: dict[Precision, dict[tuple[str, str], Outcome]] = field(default_factory=dict)
    """By category and hash of an image that was learnt: as judged while only the others were."""
    unlike: set[tuple[str, str]] = field(default_factory=set)
    """By category and hash: images to learn that no centre reaches."""
    machines: dict[Precision, str] = field(default_factory=dict)
    """What judges, in words."""
    notes: list[str] = field(default_factory=list)


def learn_bundle(
    path: Path,
    good: Path,
    out: Path | None = None,
    *,
    judged: Sequence[Path] = (),
    category: str | None = None,
    data: Path | None = None,
    false_reject: float | None = None,
    backend: str = "auto",
    on_progress: ProgressCallback = silent,
) -> Learnt:
    """Write a new bundle that has learnt from images called good.

    Args:
        path: the bundle's folder; it is not changed.
        good: what to learn (:func:`hvq_edge.export.learn.judged.list_judged`). Defective images
            there join the regression set.
        out: folder of the new bundle; ``None``: ``<bundle>-learnt`` beside it.
        judged: more images that people judged, good and defective, for the regression set alone.
        category: of the images to learn, where no folder says it.
        data: folder of the training data, for its held-out images; ``None``: as the run around the
            bundle says.
        false_reject: rate that thresholds aim at; ``None``: each as its former one.
        backend: what runs the graphs.
        on_progress: called within every stage.

    Raises:
        GateFailed: the graphs are computed wrongly here, or a graph breaks a rule.
        BundleError: no bundle, a changed file, or one without prototypes.
        DatasetError, ImageError: no images, or one cannot be read.
        InputError: no image is left to learn.
        OutputError: ``out`` exists, or cannot be written.
        SettingsError: a rate that means nothing.
        MissingCapability: the package ``onnx`` or the backend is not installed.
    """
    if false_reject is not None:
        check_asked(false_reject, CONFIDENCE)
    before = open_bundle(path)
    categories = before.manifest.categories
    graphs = Graphs(before)
    named = list_judged(good, categories, category)
    goods = [image for image in named if image.good]
    shown = [image for image in named if not image.good]
    for folder in judged:
        shown += list_judged(folder, categories)
    check_agreed([*goods, *shown])
    out = new_folder(before, out, "learnt")
    known = known_good(before, {image.category for image in goods}, data, on_progress)
    work = _Work(before, _new_ones(before, goods, known), [], known)
    work.notes += _left_out(len(goods), len(work.learn))
    _need_images(work)
    _fill_regression(work, [*shown, *goods])
    _judge_before(work, backend, on_progress)
    _keep_own(work)
    learnt = sorted({image.category for image in work.learn})

    by_category = {
        name: [image for image in work.learn if image.category == name] for name in learnt
    }
    tokens = {name: graphs.tokens(own, on_progress) for name, own in by_category.items()}
    apart = {
        name: np.array([(name, image.sha256) in work.unlike for image in own])
        for name, own in by_category.items()
    }
    changes = [
        change
        for name, values in tokens.items()
        for change in graphs.changes(name, values, apart[name])
    ]
    _cross_fit(work, graphs, by_category, tokens, apart, on_progress)
    with atomic_folder(out) as folder:
        made = graphs.write(folder, changes)
        for name in made.manifest.models.values():
            check_graph_file(folder / name)
        renewed = {ANSWERS_NAME, LEARNT_NAME, PROTOTYPES_NAME}
        manifest, left = carried_over(before, folder, learnt, renewed)
        work.notes += left
        manifest = with_limits(manifest, by_category)
        work.notes += values_cut(graphs, changes)
        write_prototypes(folder / PROTOTYPES_NAME, before, graphs, changes)
        manifest = with_file(folder, manifest, PROTOTYPES_NAME)
        answers = renewed_answers(before, Bundle(folder, manifest), learnt, backend)
        if answers is not None:
            write_known_answers(folder / ANSWERS_NAME, answers)
            manifest = with_file(folder, manifest, ANSWERS_NAME)
        after = _judge_after(work, Bundle(folder, manifest), on_progress)
        thresholds, said = new_thresholds(
            before, work.regression, after, work.crossed, learnt, work.machines, false_reject
        )
        work.notes += said
        manifest = with_thresholds(manifest, thresholds, work.learn)
        made = Bundle(folder, manifest)
        rows = compared(before, made, work.regression, work.outcomes, after, work.crossed, learnt)
        stamp = sha256_of(before.path / MANIFEST_NAME)
        changed = WhatChanged(before=stamp, rows=rows, warnings=doubts(rows, learnt))
        write_text(folder / LEARNT_NAME, changed.model_dump_json(indent=1) + "\n")
        manifest = with_file(folder, manifest, LEARNT_NAME)
        manifest = with_record(manifest, by_category, changes, stamp)
        files = {**manifest.files, CARD_NAME: write_card(Bundle(folder, manifest))}
        manifest = manifest.model_copy(update={"files": files})
        write_manifest(folder, manifest)
    names = {name: tuple(image.name for image in own) for name, own in by_category.items()}
    return Learnt(Bundle(out, manifest), before, names, changed, tuple(work.notes))


def folds_of(images: int) -> list[tuple[list[int], list[int]]]:
    """Divide so many images: those that are learnt, and those that are judged meanwhile.

    Each is judged once; a single image cannot be divided.
    """
    parts = min(FOLDS, images)
    if parts < 2:
        return []
    return [
        (
            [number for number in range(images) if number % parts != fold],
            [number for number in range(images) if number % parts == fold],
        )
        for fold in range(parts)
    ]


def _new_ones(
    before: Bundle, goods: Sequence[JudgedImage], known: Mapping[str, Known]
) -> list[JudgedImage]:
    """Return the images that the category does not know already."""
    learnt = before.manifest.learnt_since_export
    return [
        image
        for image in goods
        if image.sha256 not in known[image.category].digests
        and (image.category, image.sha256) not in learnt
    ]


def _left_out(total: int, kept: int) -> list[str]:
    if total == kept:
        return []
    return [
        f"{total - kept} of {counted(total, 'good image')} the model knows already, from training, "
        "thresholds or learning before: left out"
    ]


def _fill_regression(work: _Work, shown: Iterable[JudgedImage]) -> None:
    """Put together what is judged before and after, each image once."""
    taken: set[tuple[str, str]] = set()
    groups: tuple[tuple[Iterable[JudgedImage], Seen], ...] = (
        (work.learn, "learnt"),
        ((image for one in work.known.values() for image in one.images), "held out"),
        (shown, "judged"),
    )
    for images, seen in groups:
        for image in images:
            if (key := (image.category, image.sha256)) not in taken:
                taken.add(key)
                work.regression.append((image, seen))


def _judge_before(work: _Work, backend: str, on_progress: ProgressCallback) -> None:
    images = [image for image, _ in work.regression]
    for precision in work.before.manifest.models:
        with opened(work.before, precision, backend) as engine:
            work.backends[precision] = engine.info.backend
            work.machines[precision] = f"{precision} on {engine.info.device}"
            stage = f"before {precision}"
            work.outcomes[precision] = judge(engine, work.before.checks, images, on_progress, stage)


def _keep_own(work: _Work) -> None:
    """Leave out images that the graph would not judge as their category whatever is learnt.

    Those that it takes for none are learnt, with a centre of their own.
    """
    elsewhere: set[tuple[str, str]] = set()
    unlike: set[tuple[str, str]] = set()
    for outcomes in work.outcomes.values():
        for (image, seen), outcome in zip(work.regression, outcomes, strict=True):
            if seen != "learnt":
                continue
            if outcome.category != image.category:
                elsewhere.add((image.category, image.sha256))
            elif not outcome.margin >= 0:
                unlike.add((image.category, image.sha256))
    names = [one.name for one in work.learn if (one.category, one.sha256) in elsewhere]
    if names:
        work.notes.append(
            f"{', '.join(names)}: taken for another category, which prototypes cannot change: left "
            "out. Put such images into train/good and train again"
        )
    work.unlike = unlike - elsewhere
    for name in sorted({category for category, _ in work.unlike}):
        number = sum(category == name for category, _ in work.unlike)
        work.notes.append(
            f"{name}: {counted(number, 'image')} unlike every category (margin below 0): the graph "
            "knows such parts by a centre of their own now, as far around it as around the others. "
            "What else looks like them is judged as well"
        )
    work.learn = [one for one in work.learn if (one.category, one.sha256) not in elsewhere]
    work.regression = [
        (image, "judged" if (image.category, image.sha256) in elsewhere else seen)
        for image, seen in work.regression
    ]
    _need_images(work)


def _need_images(work: _Work) -> None:
    if not work.learn:
        raise InputError(
            f"no image is left to learn: {'; '.join(work.notes)}.",
            next_step="name images of good parts that the line has judged as their category",
        )


def _cross_fit(
    work: _Work,
    graphs: Graphs,
    by_category: Mapping[str, Sequence[JudgedImage]],
    tokens: Mapping[str, Tokens],
    unlike: Mapping[str, NDArray[np.bool_]],
    on_progress: ProgressCallback,
) -> None:
    """Judge each new image while only the others are learnt: so a new part of its kind scores."""
    work.crossed = {precision: {} for precision in work.backends}
    folds = max(len(folds_of(len(own))) for own in by_category.values())
    checks = with_limits(work.before.manifest, by_category)
    for fold in range(folds):
        changes: list[Change] = []
        left: list[JudgedImage] = []
        for name, own in by_category.items():
            parts = folds_of(len(own))
            if fold >= len(parts):
                continue
            kept, alone = parts[fold]
            left += [own[number] for number in alone]
            fewer = {table: values[kept] for table, values in tokens[name].items()}
            changes += graphs.changes(name, fewer, unlike[name][kept])
        with tempfile.TemporaryDirectory() as scratch:
            made = graphs.write(Path(scratch), changes)
            for precision, backend in work.backends.items():
                with open_engine(
                    made, precision=precision, backend=backend, unchecked=True
                ) as engine:
                    limits = Bundle(made.path, checks).checks
                    for image, outcome in zip(left, judge(engine, limits, left), strict=True):
                        work.crossed[precision][image.category, image.sha256] = outcome
        on_progress("each from the others", fold + 1, folds)


def _judge_after(
    work: _Work, made: Bundle, on_progress: ProgressCallback
) -> dict[Precision, list[Outcome]]:
    found: dict[Precision, list[Outcome]] = {}
    images = [image for image, _ in work.regression]
    for precision, backend in work.backends.items():
        with opened(made, precision, backend) as engine:
            found[precision] = judge(engine, made.checks, images, on_progress, f"after {precision}")
    return found
