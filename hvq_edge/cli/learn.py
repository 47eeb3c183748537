"""``hvq-edge learn``: what people called good after all joins a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hvq_edge.cli.console import folded, messages, print_json, print_line, progress_bars
from hvq_edge.cli.options import (
    BackendOption,
    BundleArgument,
    BundleOption,
    FalseRejectOption,
    JsonOption,
    ProviderOption,
)
from hvq_edge.common.wording import counted
from hvq_edge.run.latest import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from hvq_edge.bundle.learnt import Seen
    from hvq_edge.bundle.precision import Precision
    from hvq_edge.export.learn.learn_bundle import Learnt

_NAMED = 20
"""Verdicts that flip, of which each is printed; all stand in ``learnt.json``."""


def learn(
    bundle: BundleArgument = DEFAULT_BUNDLE,
    named: BundleOption = None,  # noqa: ARG001  # it is in the bundle
    good: Annotated[
        Path | None,
        typer.Option(
            "--good",
            metavar="DIR",
            help="Images called good after all: what hvq-edge review --save wrote, or a "
            "category's folder.",
            show_default=False,
        ),
    ] = None,
    judged: Annotated[
        list[Path] | None,
        typer.Option(
            "--judged",
            metavar="DIR",
            help="More images that people judged, to measure on. May be given again.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder of the new bundle. Default: BUNDLE-learnt.", show_default=False
        ),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option("--category", help="Of the images, where no folder says it."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Training data, for its held-out images. Default: the run's."),
    ] = None,
    false_reject: FalseRejectOption = None,
    backend: BackendOption = "auto",
    provider: ProviderOption = None,  # noqa: ARG001  # it is in the backend
    as_json: JsonOption = False,
) -> None:
    """Learn from images that were called good after all.

    They join their category's prototypes, calibration scores and limits of usable images, and its
    thresholds are learnt anew; nothing else moves. The new bundle stands beside the old one, with
    every verdict that changes, measured on all that people judged and on held-out good images.
    """
    from hvq_edge.common.extras import require
    from hvq_edge.errors import SettingsError

    if good is None:
        raise SettingsError(
            "no folder of images to learn is named.",
            next_step="give --good DIR: images of good parts that the line rejected",
        )
    require("onnx")
    from hvq_edge.export.learn.learn_bundle import learn_bundle

    with progress_bars() as bars:
        done = learn_bundle(
            bundle,
            good,
            out,
            judged=judged or (),
            category=category,
            data=data,
            false_reject=false_reject,
            backend=backend,
            on_progress=bars,
        )
    if as_json:
        print_json(_as_values(done))
    else:
        _show(done)


def _as_values(done: Learnt) -> dict[str, Any]:
    thresholds = done.bundle.manifest.thresholds
    return {
        "bundle": str(done.bundle.path),
        "before": str(done.before.path),
        "learnt": {name: list(images) for name, images in done.images.items()},
        "thresholds": {
            precision: {name: found[name].value for name in done.images if name in found}
            for precision, found in thresholds.items()
        },
        "flipped": {
            precision: [row.model_dump(mode="json") for row in rows if row.flipped]
            for precision, rows in done.changed.rows.items()
        },
        "images": {precision: len(rows) for precision, rows in done.changed.rows.items()},
        "warnings": list(done.changed.warnings),
        "notes": _notes(done),
    }


def _show(done: Learnt) -> None:
    from hvq_edge.bundle.learnt import LEARNT_NAME, count
    from hvq_edge.cli.threshold_changes import say_notes

    rows_of = done.changed.rows
    for name, images in done.images.items():
        print_line(f"{name}: {counted(len(images), 'image')} learnt")
        thresholds = {
            precision: " → ".join(
                f"{found[name].value:.4g}" if name in found else "none"
                for found in (one.manifest.thresholds.get(precision, {}) for one in both)
            )
            for both in [(done.before, done.bundle)]
            for precision in rows_of
        }
        print_line(f"  threshold: {folded(thresholds)}")
        groups: dict[str, tuple[bool, tuple[Seen, ...]]] = {
            "good images rejected": (True, ("held out", "judged")),
            "learnt ones rejected, each judged with only the others learnt": (True, ("learnt",)),
            "defects found": (False, ()),
        }
        for what, (good, seen) in groups.items():
            counts = {one: count(rows, name, good, *seen) for one, rows in rows_of.items()}
            if any(one.images for one in counts.values()):
                said = {
                    precision: f"{one.rejected_before} → {one.rejected_after} of {one.images}"
                    for precision, one in counts.items()
                }
                print_line(f"  {what}: {folded(said)}")
    others = {
        precision: [row.identical for row in rows if row.category not in done.images]
        for precision, rows in rows_of.items()
    }
    if any(others.values()):
        said = {one: f"{sum(same)} of {len(same)}" for one, same in others.items()}
        print_line(f"images of other categories with the very same numbers: {folded(said)}")
    flips: dict[str, dict[Precision, str]] = {}
    for precision, rows in rows_of.items():
        for row in rows:
            if row.flipped:
                shows = "good" if row.good else row.defect or "defective"
                verdicts = f"{row.before.verdict} → {row.after.verdict}"
                flips.setdefault(f"{row.image} ({shows})", {})[precision] = verdicts
    numbers = {
        precision: f"{sum(row.flipped for row in rows)} of {len(rows)}"
        for precision, rows in rows_of.items()
    }
    print_line(f"verdicts that flip: {folded(numbers)}")
    for image, verdicts_by in list(flips.items())[:_NAMED]:
        print_line(f"  {image}: {folded(verdicts_by, of=len(rows_of))}")
    if len(flips) > _NAMED:
        print_line(f"  and {len(flips) - _NAMED} more: {done.bundle.path / LEARNT_NAME}")
    for warning in done.changed.warnings:
        messages.print(f"Look: {warning}.", markup=False, soft_wrap=True)
    say_notes(_notes(done))
    print_line(f"Bundle: {done.bundle.path}; {done.before.path} is as it was.")
    messages.print(
        f"Next:  hvq-edge verify {done.bundle.path}, then sign and install it as any bundle",
        markup=False,
        soft_wrap=True,
    )


def _notes(done: Learnt) -> list[str]:
    """Return what was left out or looks odd, and why the new thresholds may not hold."""
    from hvq_edge.cli.threshold_changes import threshold_notes

    new = {
        precision: {name: one for name, one in found.items() if name in done.images}
        for precision, found in done.bundle.manifest.thresholds.items()
    }
    return [*done.notes, *threshold_notes(new)]
