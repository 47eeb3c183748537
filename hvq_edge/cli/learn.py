"""``hvq-edge learn``: what people called good after all joins a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.options import (
    BackendOption,
    BundleArgument,
    FalseRejectOption,
    JsonOption,
    ProviderOption,
)
from hvq_edge.common.wording import counted
from hvq_edge.run.latest import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from hvq_edge.export.learn.learn_bundle import Learnt

_NAMED = 20
"""Verdicts that flip, of which each is printed; all stand in ``learnt.json``."""


def learn(
    bundle: BundleArgument = DEFAULT_BUNDLE,
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

    They join their product's prototypes, calibration scores and limits of usable images, and its
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

    for name, images in done.images.items():
        _print(f"{name}: {counted(len(images), 'image')} learnt.")
    for precision, rows in done.changed.rows.items():
        for name in done.images:
            old, new = (
                one.manifest.thresholds.get(precision, {}).get(name)
                for one in (done.before, done.bundle)
            )
            values = " → ".join(f"{one.value:.4g}" if one else "none" for one in (old, new))
            _print(f"{name}, {precision}: threshold {values}")
            groups = {
                "good images rejected": count(rows, name, True, "held out", "judged"),
                "learnt ones, each while only the others were learnt": count(
                    rows, name, True, "learnt"
                ),
                "defects found": count(rows, name, False),
            }
            for what, found in groups.items():
                if found.images:
                    _print(
                        f"  {what}: {found.rejected_before} → {found.rejected_after} of "
                        f"{found.images}"
                    )
        others = [row for row in rows if row.category not in done.images]
        if others:
            same = sum(row.identical for row in others)
            _print(
                f"other categories, {precision}: {same} of {counted(len(others), 'image')} "
                "with the very same numbers"
            )
        flips = [row for row in rows if row.flipped]
        _print(f"verdicts that flip, {precision}: {len(flips)} of {len(rows)}")
        for row in flips[:_NAMED]:
            shows = "good" if row.good else row.defect or "defective"
            _print(f"  {row.image} ({shows}): {row.before.verdict} → {row.after.verdict}")
        if len(flips) > _NAMED:
            _print(f"  and {len(flips) - _NAMED} more: {done.bundle.path / LEARNT_NAME}")
    for warning in done.changed.warnings:
        messages.print(f"Look: {warning}.", markup=False, soft_wrap=True)
    say_notes(_notes(done))
    _print(f"Bundle: {done.bundle.path}; {done.before.path} is as it was.")
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


def _print(line: str) -> None:
    results.print(line, markup=False, highlight=False, soft_wrap=True)
