"""What goes into the folder of a bundle that has learnt, besides its graphs."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hvq_edge.bundle.integrity.content import MADE_AFTER_EXPORT, SIGNATURE_NAME
from hvq_edge.bundle.learnt import CENTRES, prototypes_learnt
from hvq_edge.bundle.manifest import BundleManifest, LearntImages, Precision, record_of
from hvq_edge.bundle.opened import Bundle
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.errors import OutputError
from hvq_edge.explain.exemplars import exemplars_name
from hvq_edge.export.learn.edited import Change, Graphs
from hvq_edge.export.learn.judged import JudgedImage
from hvq_edge.export.learn.tables import clipped
from hvq_edge.runtime.tensorrt.engine_file import ENGINES_FOLDER
from hvq_edge.verdict.calibrate.widened_limits import widened, wider
from hvq_edge.verdict.frame_quality import measure
from hvq_edge.verdict.threshold import Threshold


def new_folder(before: Bundle, out: Path | None, why: str) -> Path:
    """Return where the new bundle comes: beside the one before, unless a folder is named.

    Raises:
        OutputError: there is something.
    """
    own = before.path.resolve()
    folder = out or own.with_name(f"{own.name}-{why}")
    if folder.exists():
        raise OutputError(
            f"{folder} is there already; it is left as it is.",
            next_step="name a new folder with --out: a bundle never learns in its place",
        )
    return folder


def carried_over(
    before: Bundle, folder: Path, categories: Collection[str], renewed: Collection[str]
) -> tuple[BundleManifest, list[str]]:
    """Copy what still holds of the bundle that learnt into the folder of the new one.

    Args:
        before: the bundle that learnt.
        folder: of the new one: so far its graphs.
        categories: that learnt.
        renewed: files besides the graphs that are written anew.

    Returns:
        The new manifest, and in words what does not hold any more and was left behind.
    """
    notes: list[str] = []
    graphs = before.manifest.models.values()
    learnt = {before.category_index(name) for name in categories}
    outdated = {exemplars_name(index) for index in learnt} & set(before.manifest.files)
    if outdated:
        notes.append(
            "the images that hvq-edge explain shows of these categories are of the prototypes "
            "before and were left out: name the run with --run there"
        )
    files = {name: record_of(folder / name) for name in graphs}
    for name in before.manifest.files:
        if name in {*renewed, *graphs, *outdated} or name.startswith(MADE_AFTER_EXPORT):
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(before.file(name), target)
        files[name] = record_of(target)
    if any((before.path / ENGINES_FOLDER).glob("*")):
        notes.append(
            "engines are of the graphs before and were left behind: build them again (hvq-edge "
            "build)"
        )
    if (before.path / SIGNATURE_NAME).exists():
        notes.append("the bundle before was signed, this one is not: sign it (hvq-edge sign)")
    manifest = before.manifest.model_copy(
        update={
            "files": files,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "hvq_edge_version": version("hvq-edge"),
            "former_thresholds": (),  # they were of other graphs
        }
    )
    return manifest, notes


def with_limits(
    manifest: BundleManifest, by_category: Mapping[str, Sequence[JudgedImage]]
) -> BundleManifest:
    """Return a manifest whose limits of usable images hold the new ones."""
    limits, every = dict(manifest.category_limits), manifest.image_limits
    for name, own in by_category.items():
        images = [read_image(one.path) for one in own]
        fitted = [fit_image(image, manifest.frame_shape) for image in images]
        if name in limits:
            limits[name] = widened(limits[name], images, fitted)
        if every is not None:
            every = wider(every, [measure(frame) for frame in fitted])
    return manifest.model_copy(update={"category_limits": limits, "image_limits": every})


def values_cut(graphs: Graphs, changes: Sequence[Change]) -> list[str]:
    """Say where new prototypes do not fit an INT8 range: a sentence each without its full stop."""
    found = []
    for precision, graph in graphs.models.items():
        for change in changes:
            share = clipped(graph, change.table, change.centres)
            if share > 0:
                found.append(
                    f"{change.category} at {precision}: {share:.2%} of the values of its new "
                    f"{change.table} are beyond the INT8 range and were cut to it"
                )
    return found


def write_prototypes(path: Path, before: Bundle, graphs: Graphs, changes: Sequence[Change]) -> None:
    """Keep the prototypes of all that ever learnt, for whoever holds the graphs against a run."""
    kept = {
        f"{table}.{before.category_index(name)}": centres
        for table, name, centres in prototypes_learnt(before)
    }
    for change in changes:
        if change.table == CENTRES:
            key = f"{CENTRES}.{before.category_index(change.category)}"
            kept[key] = np.concatenate([*([kept[key]] if key in kept else []), change.centres])
            continue
        centres = graphs.centres(change.table, change.category)
        centres[list(change.columns)] = change.centres
        kept[f"{change.table}.{before.category_index(change.category)}"] = centres
    np.savez_compressed(path, **kept)  # type: ignore[arg-type]  # its stub takes them for flags


def with_file(folder: Path, manifest: BundleManifest, name: str) -> BundleManifest:
    """Return a manifest that names a file of its folder as it is now."""
    files = {**manifest.files, name: record_of(folder / name)}
    return manifest.model_copy(update={"files": files})


def with_thresholds(
    manifest: BundleManifest,
    thresholds: Mapping[Precision, Mapping[str, Threshold]],
    learnt: Sequence[JudgedImage],
) -> BundleManifest:
    """Return a manifest with thresholds, and the images that helped to learn them."""
    merged = {
        precision: {**manifest.thresholds.get(precision, {}), **thresholds.get(precision, {})}
        for precision in manifest.models
    }
    digests = dict.fromkeys((*manifest.threshold_images, *(image.sha256 for image in learnt)))
    update = {
        "thresholds": {precision: found for precision, found in merged.items() if found},
        "threshold_images": tuple(digests),
    }
    return manifest.model_copy(update=update)


def with_record(
    manifest: BundleManifest,
    by_category: Mapping[str, Sequence[JudgedImage]],
    changes: Sequence[Change],
    stamp: str,
) -> BundleManifest:
    """Return a manifest that keeps what was learnt, and from which ``bundle.json``."""
    records = tuple(
        LearntImages(
            category=name,
            created=manifest.created,
            images=tuple(image.sha256 for image in own),
            replaced={
                one.table: len(one.columns)
                for one in changes
                if one.category == name and one.table != CENTRES
            },
            centres=sum(one.category == name and one.table == CENTRES for one in changes),
            before=stamp,
        )
        for name, own in by_category.items()
    )
    return manifest.model_copy(update={"learnt": (*manifest.learnt, *records)})
