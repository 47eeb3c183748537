"""A run with other categories, written beside the one that it is made from.

What the other categories have stays as it is, bit for bit: their tensors are copied. A new category
is learnt by :mod:`hvq_edge.training.categories.learn`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.wording import counted
from hvq_edge.data.splits import check_unchanged
from hvq_edge.errors import InputError, RunError
from hvq_edge.model.checkpoint import load_run, save_checkpoint, with_categories
from hvq_edge.model.device import choose_device
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.category_change import CategoryChange
from hvq_edge.run.record import (
    RECORD_NAME,
    ImageRecord,
    RunRecord,
    read_run,
    write_run,
)
from hvq_edge.training.batches import Images, standardised
from hvq_edge.training.categories.images import check_name, good_images_of
from hvq_edge.training.categories.learn import learn_category
from hvq_edge.training.category_limits import learn_category_limits
from hvq_edge.training.features import cache_features, drop_cache
from hvq_edge.training.train_run import cached_images, varied_images

_BATCH = 16
_OTHERS = "features_others"
"""The cache of the other categories' held-out images."""


@dataclass(frozen=True)
class ChangedRun:
    """A run with other categories."""

    path: Path
    record: RunRecord
    notes: tuple[str, ...] = ()
    """What the user should know before the run is used, a sentence each."""
    warnings: tuple[str, ...] = ()
    """Why the run is hardly of use as it is, a sentence each."""


def add_category(
    run: Path,
    out: Path,
    name: str,
    good: Path,
    *,
    device: str = "auto",
    on_progress: ProgressCallback = silent,
) -> ChangedRun:
    """Add a category to a finished run without training the others again.

    Args:
        run: the finished run; it stays as it is.
        out: folder of the new run.
        name: of the new category.
        good: folder of its good images, or in the MVTec or the plain layout the category's folder.
        device: ``auto`` or a torch device.
        on_progress: called within every stage.

    Raises:
        RunError: no finished run, one without images on record, or ``out`` holds a run.
        InputError: the run knows a category of that name, or it is no name.
        DatasetError: no folder, too few good images, or some are of another category.
        ImageError: an image cannot be read.
        CheckpointError, MissingCapability, OutputError.
    """
    record = read_run(run)
    check_name(name, record.categories)
    _check_out(out)
    if record.data is None:
        raise RunError(
            f"the run {run} has no images on record, so no category is added to it.",
            next_step="train with hvq-edge train, and add to that run",
        )
    data, training = Path(record.data), record.settings.training
    split = good_images_of(name, good, data, training, record.images, on_progress)
    model, _ = load_run(run, choose_device(device))
    new = len(record.categories)
    grown = with_categories(model, [*range(new), None])
    own = record.model_copy(
        update={
            "categories": (*record.categories, name),
            "images": split.images,
            "held_out_from": {**record.held_out_from, **split.held_out_from},
        }
    )
    fit, looks = cached_images(out, own, grown, "fit", on_progress)
    held_out, _ = cached_images(out, own, grown, "held_out", on_progress)
    with varied_images(out, own, grown, data, on_progress) as (varied, borne):
        learn_category(grown, new, fit, varied, held_out, training, on_progress)
    notes, warnings = _confusions(out, own, record.images, grown, held_out, on_progress)
    used = [image for image in split.images if image.use == "fit"]
    limits = learn_category_limits(used, looks, borne)
    every = record.image_limits
    changed = own.model_copy(
        update={
            "images": (*record.images, *split.images),
            "image_limits": every and every.with_all_of(limits[name].image),
            "category_limits": {**record.category_limits, **limits},
        }
    )
    what = CategoryChange(
        what="added",
        category=name,
        created=_now(),
        from_checkpoint=str(record.checkpoint_sha256),
        images=len(split.images),
    )
    written = _write(out, grown, changed, what)
    for cache in ("features", "features_held_out", _OTHERS):
        drop_cache(out, cache)  # of the new category's images alone: of no use to export
    return ChangedRun(out, written, notes, warnings)


def remove_category(run: Path, out: Path, name: str) -> ChangedRun:
    """Take a category out of a finished run; arguments and errors as for :func:`add_category`."""
    model, record = load_run(run)
    index = _index_of(record, name)
    _check_out(out)
    if len(record.categories) == 1:
        raise InputError(
            f"{name} is the only category of {run}.", next_step="name a run with several with --run"
        )
    left = [k for k in range(len(record.categories)) if k != index]
    changed = record.model_copy(
        update={
            "categories": tuple(record.categories[k] for k in left),
            "images": tuple(one for one in record.images if one.category != name),
            "known_defects": tuple(one for one in record.known_defects if one.category != name),
            **{
                table: {key: value for key, value in getattr(record, table).items() if key != name}
                for table in _BY_CATEGORY
            },
        }
    )
    what = CategoryChange(
        what="removed",
        category=name,
        created=_now(),
        from_checkpoint=str(record.checkpoint_sha256),
    )
    return ChangedRun(out, _write(out, with_categories(model, left), changed, what))


def rename_category(run: Path, out: Path, name: str, new_name: str) -> ChangedRun:
    """Give a category another name; arguments and errors as for :func:`add_category`."""
    model, record = load_run(run)
    _index_of(record, name)
    check_name(new_name, record.categories)
    _check_out(out)

    def named(category: str) -> str:
        return new_name if category == name else category

    changed = record.model_copy(
        update={
            "categories": tuple(named(one) for one in record.categories),
            **{
                table: tuple(
                    one.model_copy(update={"category": named(one.category)})
                    for one in getattr(record, table)
                )
                for table in ("images", "known_defects")
            },
            **{
                table: {named(key): value for key, value in getattr(record, table).items()}
                for table in _BY_CATEGORY
            },
        }
    )
    what = CategoryChange(
        what="renamed",
        category=new_name,
        former_name=name,
        created=_now(),
        from_checkpoint=str(record.checkpoint_sha256),
    )
    return ChangedRun(out, _write(out, model, changed, what))


_BY_CATEGORY = ("known_defects_used", "held_out_from", "category_limits")
"""Tables of a run's record that have the categories' names as keys."""


def _write(out: Path, model: HVQTrans, record: RunRecord, what: CategoryChange) -> RunRecord:
    written = record.model_copy(
        update={
            "hvq_edge_version": version("hvq-edge"),
            "created": what.created,
            "checkpoint_sha256": save_checkpoint(out, model),
            "changes": (*record.changes, what),
        }
    )
    write_run(out, written)
    return written


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _index_of(record: RunRecord, name: str) -> int:
    if name not in record.categories:
        raise InputError(
            f"the run has no category {name!r}; it has {', '.join(record.categories)}.",
            next_step="name one of these",
        )
    return record.categories.index(name)


def _check_out(out: Path) -> None:
    if (out / RECORD_NAME).exists():
        raise RunError(f"{out} already holds a run.", next_step="choose another folder with --out")


def _confusions(
    scratch: Path,
    record: RunRecord,
    others: Sequence[ImageRecord],
    model: HVQTrans,
    held_out: Images,
    on_progress: ProgressCallback,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ask the classifier for the categories of images that nothing was learnt from.

    Returns:
        Notes; and warnings, of a category that looks like another one.
    """
    if not model.classifier.fitted:
        return (), ()
    names, new = record.categories, len(record.categories) - 1
    notes, doubles = [], []
    chosen, margin = _classified(model, held_out)
    for k, count in Counter(chosen[chosen != new].tolist()).most_common():
        if 2 * count >= len(chosen):
            doubles.append(_double(names[new], names[k], count, len(chosen)))
    wrong = int(((chosen != new) | (margin <= 0)).sum())
    if wrong:
        notes.append(
            f"{wrong} of {counted(len(chosen), 'held-out image')} of {names[new]} would be taken "
            "for another category or for none."
        )
    apart = [one for one in others if one.use == "held_out"]
    data = Path(str(record.data))
    try:
        check_unchanged(apart, data)
    except InputError as error:
        notes.append(
            f"whether images of the other categories would now be taken for {names[new]} is not "
            f"known: {error.cause}"
        )
        return tuple(notes), tuple(doubles)
    arguments = (scratch, model, data, apart, record.backbone_weights, on_progress)
    features, _ = cache_features(*arguments, name=_OTHERS)
    chosen, _ = _classified(model, Images(features, np.zeros(len(apart), np.int64)))
    taken = [one.category for one, k in zip(apart, chosen, strict=True) if k == new]
    if taken:
        notes.append(
            f"{len(taken)} of {counted(len(apart), 'held-out image')} of the other categories "
            f"({', '.join(sorted(set(taken)))}) would now be taken for {names[new]}."
        )
    own = Counter(one.category for one in apart)
    doubles += [
        _double(name, names[new], count, own[name])
        for name, count in Counter(taken).items()
        if 2 * count >= own[name]
    ]
    return tuple(notes), tuple(doubles)


def _double(name: str, other: str, count: int, of: int) -> str:
    return (
        f"{count} of {counted(of, 'held-out image')} of {name} are taken for {other}: the two look "
        "like one category. Where the graph chooses, their parts are judged by either's prototypes "
        "and threshold; if they are one, add its images to train/good and train again"
    )


def _classified(model: HVQTrans, images: Images) -> tuple[np.ndarray, np.ndarray]:
    found = [
        model.classify(standardised(model, images.features[start : start + _BATCH]))
        for start in range(0, len(images.features), _BATCH)
    ]
    chosen, margin = (torch.cat(one).cpu().numpy() for one in zip(*found, strict=True))
    return chosen, margin
