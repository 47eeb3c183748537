"""A bundle and good images of a new product in, a new bundle beside it out, without PyTorch.

The new category's rows come behind those of the others in every table of every graph, so the
others compute with the bytes that they had. They are judged by both bundles to show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import save

from hvq_edge.bundle.integrity.content import CARD_NAME
from hvq_edge.bundle.learnt import ADDED_NAME, categories_added
from hvq_edge.bundle.manifest import (
    MANIFEST_NAME,
    AddedCategory,
    BundleManifest,
    ImageSet,
    Precision,
    digest_of_set,
    write_manifest,
)
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import thresholds_of
from hvq_edge.common.atomic import atomic_folder, sha256_of
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.errors import BundleError, DatasetError, InputError
from hvq_edge.evaluation.acceptance.model_card import write_card
from hvq_edge.export.graph.size import graph_numbers
from hvq_edge.export.learn.edited import Change, Graphs
from hvq_edge.export.learn.judged import (
    JudgedImage,
    Outcome,
    check_agreed,
    judge,
    list_judged,
    opened,
)
from hvq_edge.export.learn.new_category import Fitted, fit_category
from hvq_edge.export.learn.new_manifest import (
    carried_over,
    new_folder,
    values_cut,
    with_file,
    with_thresholds,
)
from hvq_edge.export.learn.others import compare_others, others_at_hand
from hvq_edge.export.lint.check import check_graph_file
from hvq_edge.run.settings import TrainingSettings
from hvq_edge.training.categories.images import check_name, good_images_of
from hvq_edge.verdict.calibrate.expected_rate import expected_rate
from hvq_edge.verdict.calibrate.gathering import HELD_OUT
from hvq_edge.verdict.defaults import CONFIDENCE, FALSE_REJECT
from hvq_edge.verdict.judgement import rule
from hvq_edge.verdict.threshold import GoodPart, Threshold, learn_threshold
from hvq_edge.verdict.tolerance_bound import check_asked

LEFT_OUT = (
    "its map rests on distances to prototypes alone: what the network would rebuild has no share "
    "in it, and its codes are those of {}. From 50 images on, hvq-edge add-category on a machine "
    "with PyTorch and the run usually finds more (docs/explanation/learning.md)"
)


class Tried(NamedTuple):
    """What one precision says of images that were not learnt from."""

    rejected: int
    """Of the held-out good images."""
    undecided: int
    """Of them: images that lead to no decision."""
    held_out: int
    good_rejected: int
    """Of the good images that people judged."""
    good_undecided: int
    good: int
    found: int
    """Of the defective ones."""
    defective_undecided: int
    defective: int


@dataclass(frozen=True)
class Added:
    """What came of it."""

    bundle: Bundle
    """The new one."""
    before: Bundle
    category: str
    images: int
    """That it was learnt from."""
    others: int
    """Images of other categories of which every output was compared."""
    tried: dict[Precision, Tried]
    notes: tuple[str, ...] = ()
    """A sentence each, without its full stop."""


def add_to_bundle(
    path: Path,
    name: str,
    good: Path,
    out: Path | None = None,
    *,
    judged: Sequence[Path] = (),
    false_reject: float | None = None,
    backend: str = "auto",
    on_progress: ProgressCallback = silent,
) -> Added:
    """Write a new bundle that knows one product more.

    Args:
        path: the bundle's folder; it is not changed.
        name: of the product.
        good: folder of good images of it, as for
            :func:`hvq_edge.training.categories.images.good_images_of`.
        out: folder of the new bundle; ``None``: ``<bundle>-added`` beside it.
        judged: images that people judged, good and defective, of the new product and of others:
            nothing is learnt from them.
        false_reject: rate that thresholds aim at; ``None``: the usual one.
        backend: what runs the graphs.
        on_progress: called within every stage.

    Raises:
        GateFailed: the graphs are computed wrongly here, another product's outputs change, or a
            graph breaks a rule.
        BundleError: no bundle, a changed file, one without prototypes or of one category alone.
        DatasetError, ImageError: no images, too few, known ones, one cannot be read, or people
            called it good and defective.
        InputError: the name is taken or none, or the product is too like another one.
        OutputError: ``out`` exists, or cannot be written.
        SettingsError: a rate that means nothing.
        MissingCapability: the package ``onnx`` or the backend is not installed.
    """
    if false_reject is not None:
        check_asked(false_reject, CONFIDENCE)
    before = open_bundle(path)
    old = before.manifest
    if old.category_mode == "one":
        raise BundleError(
            f"the bundle {before.path} serves {old.categories[0]} alone: it has no tables that a "
            "category could join.",
            next_step="export without --category NAME, or add it to the run with hvq-edge "
            "add-category and export that",
        )
    check_name(name, old.categories)
    graphs = Graphs(before)
    fit, held_out = _good_images(before, name, good, on_progress)
    shown = [one for folder in judged for one in list_judged(folder, (*old.categories, name))]
    own = [one for one in shown if one.category == name]
    check_agreed([*fit, *held_out, *own])
    own, said_of_own = _not_yet_known(name, own, [*fit, *held_out])
    out = new_folder(before, out, "added")
    others = others_at_hand(before, [one for one in shown if one.category != name], on_progress)
    fitted = fit_category(graphs.models["fp32"], old, fit, held_out, on_progress)
    with atomic_folder(out) as folder:
        for precision, graph in graphs.models.items():
            fitted.write(graph, len(old.categories))
            save(graph, folder / old.models[precision])
            check_graph_file(folder / old.models[precision])
        manifest, notes = carried_over(before, folder, (), {ADDED_NAME})
        manifest = _with_category(before, folder, manifest, name, fit, held_out, fitted)
        thresholds: dict[Precision, dict[str, Threshold]] = {}
        outcomes: dict[Precision, list[Outcome]] = {}
        for precision in old.models:
            made = Bundle(folder, manifest)
            with (
                opened(before, precision, backend) as was,
                # Its outputs are compared next: an answer that is another one is said in words.
                opened(made, precision, was.info.backend, unchecked=True) as now,
            ):
                notes += compare_others(name, precision, others, was, now, on_progress)
                stage = f"{name} {precision}"
                images = [*held_out, *own, *fit]
                found = judge(now, made.checks, images, on_progress, stage)
            tried, learnt = found[: -len(fit)], found[-len(fit) :]
            outcomes[precision] = tried
            new, said = _threshold(
                name, precision, held_out, tried, fit, learnt, now.info.device, false_reject
            )
            notes += said
            if new is not None:
                thresholds[precision] = {name: new}
        if not thresholds:
            raise InputError(
                f"no held-out image of {name} would be judged as {name}: {'; '.join(notes)}.",
                next_step="show other images of it; or train it together with the categories "
                "that it is like (hvq-edge train)",
            )
        manifest = with_thresholds(manifest, thresholds, held_out)
        for table, centres in fitted.centres.items():
            change = Change(table, name, tuple(range(len(centres))), centres)
            notes += values_cut(graphs, [change])
        files = {**manifest.files, CARD_NAME: write_card(Bundle(folder, manifest))}
        manifest = manifest.model_copy(update={"files": files})
        write_manifest(folder, manifest)
    made = Bundle(out, manifest)
    tried_by = {
        precision: _tried(made, precision, [*held_out, *own], len(held_out), found)
        for precision, found in outcomes.items()
    }
    notes += said_of_own
    notes.append(f"{name}: {LEFT_OUT.format(old.categories[fitted.source])}")
    return Added(made, before, name, len(fit), len(others), tried_by, tuple(notes))


def _good_images(
    before: Bundle, name: str, good: Path, on_progress: ProgressCallback
) -> tuple[list[JudgedImage], list[JudgedImage]]:
    """Divide the good images into those to learn from and those held out, as a training does."""
    manifest = before.manifest
    training = manifest.training
    settings = training.settings["training"] if training else {}
    known = {key: settings[key] for key in ("held_out", "seed") if key in settings}
    root = good.absolute()
    split = good_images_of(
        name, good, root, TrainingSettings.model_validate(known), on_progress=on_progress
    )
    known_ones = {*manifest.threshold_images, *(one for _, one in manifest.learnt_since_export)}
    for one in split.images:
        if one.sha256 in known_ones:
            raise DatasetError(
                f"{good / one.path} is known to the bundle as a good image of another category.",
                next_step="take it out",
            )
    divided: dict[str, list[JudgedImage]] = {"fit": [], "held_out": []}
    for one in split.images:
        image = JudgedImage(root / one.path, one.path, name, True, "", one.sha256)
        divided[one.use].append(image)
    return divided["fit"], divided["held_out"]


def _not_yet_known(
    name: str, judged: Sequence[JudgedImage], known: Sequence[JudgedImage]
) -> tuple[list[JudgedImage], list[str]]:
    """Leave out what was learnt from or held out: counted again, it would be no trial."""
    digests = {one.sha256 for one in known}
    kept = [one for one in judged if one.sha256 not in digests]
    left = len(judged) - len(kept)
    if not left:
        return kept, []
    return kept, [
        f"{name}: {left} of {counted(len(judged), 'judged image')} "
        f"{'is' if left == 1 else 'are'} among the good images that it learnt from or held out, "
        "and not counted as judged"
    ]


def _with_category(
    before: Bundle,
    folder: Path,
    manifest: BundleManifest,
    name: str,
    fit: Sequence[JudgedImage],
    held_out: Sequence[JudgedImage],
    fitted: Fitted,
) -> BundleManifest:
    """Return a manifest that names the category, with what is learnt of it but for thresholds."""
    new, every = len(manifest.categories), manifest.image_limits
    kept = {
        f"{index}.{key}": values
        for index, _, state in categories_added(before)
        for key, values in state.items()
    }
    kept |= {f"{new}.{key}": values for key, values in fitted.state.items()}
    np.savez_compressed(folder / ADDED_NAME, **kept)  # type: ignore[arg-type]  # as for learnt ones
    uses = [tuple(image.sha256 for image in images) for images in (fit, held_out)]
    record = AddedCategory(
        category=name,
        created=manifest.created,
        images=uses[0],
        held_out=uses[1],
        codes_of=manifest.categories[fitted.source],
        before=sha256_of(before.path / MANIFEST_NAME),
    )
    exported = graph_numbers(folder / manifest.models["fp32"])
    training = manifest.training
    if training is not None:
        learnt_from, apart = (
            {**had, name: ImageSet(images=len(own), sha256=digest_of_set(own))}
            for had, own in zip((training.learnt_from, training.held_out), uses, strict=True)
        )
        training = training.model_copy(update={"learnt_from": learnt_from, "held_out": apart})
    changed = manifest.model_copy(
        update={
            "categories": (*manifest.categories, name),
            "category_limits": {**manifest.category_limits, name: fitted.limits},
            "image_limits": every and every.with_all_of(fitted.limits.image),
            "graph": manifest.graph.model_copy(update={"exported": exported}),
            "training": training,
            "added": (*manifest.added, record),
        }
    )
    return with_file(folder, changed, ADDED_NAME)


def _threshold(
    name: str,
    precision: Precision,
    held_out: Sequence[JudgedImage],
    tried: Sequence[Outcome],
    fit: Sequence[JudgedImage],
    learnt: Sequence[Outcome],
    device: str,
    false_reject: float | None,
) -> tuple[Threshold | None, list[str]]:
    """Learn the threshold from the held-out images that the line would judge."""

    def parts(images: Sequence[JudgedImage], outcomes: Sequence[Outcome]) -> list[GoodPart]:
        return [
            GoodPart(outcome.score, image.name)
            for image, outcome in zip(images, outcomes, strict=False)
            if outcome.category == name and outcome.refused is None
        ]

    own = parts(held_out, tried)
    notes = []
    if len(own) < len(held_out):
        notes.append(
            f"{name} at {precision}: {len(held_out) - len(own)} of "
            f"{counted(len(held_out), 'held-out image')} would be taken for another category or "
            "lead to no decision"
        )
    if not own:
        return None, notes
    found = learn_threshold(
        own,
        asked=false_reject or FALSE_REJECT,
        rule=expected_rate,
        learnt=parts(fit, learnt),
        source=HELD_OUT,
        machine=f"{precision} on {device}",
    )
    return found, notes


def _tried(
    bundle: Bundle,
    precision: Precision,
    images: Sequence[JudgedImage],
    held_out: int,
    outcomes: Sequence[Outcome],
) -> Tried:
    thresholds = thresholds_of(bundle, precision)
    verdicts: list[str] = [
        rule(one.refused, one.category, one.score, thresholds).verdict for one in outcomes
    ]
    groups: dict[str, list[str]] = {"held out": verdicts[:held_out], "good": [], "defective": []}
    for image, verdict in zip(images[held_out:], verdicts[held_out:], strict=True):
        groups["good" if image.good else "defective"].append(verdict)
    counts = ((one.count("reject"), one.count("no_decision"), len(one)) for one in groups.values())
    return Tried(*(number for three in counts for number in three))
