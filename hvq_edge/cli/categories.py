"""``hvq-edge add-category``, ``remove-category`` and ``rename-category``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import folded, messages, print_json, print_line, progress_bars
from hvq_edge.cli.options import (
    BackendOption,
    BundleArgument,
    BundleOption,
    FalseRejectOption,
    JsonOption,
)
from hvq_edge.run.latest import DEFAULT_BUNDLE, DEFAULT_RUN, new_run_folder

if TYPE_CHECKING:
    from hvq_edge.training.categories.change import ChangedRun

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the category.")]
RunOption = Annotated[
    Path, typer.Option("--run", help="Folder of the finished run, which stays as it is.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="The new run's folder. Default: runs/categories-<date>-<time>."),
]


def add(
    name: NameArgument,
    good: Annotated[
        Path,
        typer.Option(
            "--good",
            help="Folder of 10 or more good images, or with train/good or good in it.",
            show_default=False,
        ),
    ],
    bundle: BundleArgument = DEFAULT_BUNDLE,
    named: BundleOption = None,  # noqa: ARG001  # it is in the bundle
    run: RunOption = DEFAULT_RUN,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The new run's folder. Default: runs/categories-<date>-<time>. With --on-device "
            "the new bundle's. Default: BUNDLE-added.",
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")] = "auto",
    on_device: Annotated[
        bool,
        typer.Option(
            "--on-device",
            help="Add it to BUNDLE without PyTorch, less accurate: docs/how-to/new-category.md.",
        ),
    ] = False,
    judged: Annotated[
        list[Path] | None,
        typer.Option(
            "--judged",
            metavar="DIR",
            help="Images that people judged, to measure on. May be given again.",
            show_default=False,
        ),
    ] = None,
    false_reject: FalseRejectOption = None,
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Add a category to a trained run, in minutes.

    The network is not trained again, and the other categories stay as they are: what belongs to the
    new one alone is learnt from its good images. The new run stands beside the old one; export it
    as usual, which learns the threshold. docs/explanation/learning.md says how accurate that is.

    With --on-device it joins a bundle instead, where there is neither PyTorch nor the run.
    """
    from hvq_edge.errors import SettingsError

    if on_device:
        _add_to_bundle(
            bundle, name, good, out, judged or (), false_reject, backend, as_json=as_json
        )
        return
    if bundle != DEFAULT_BUNDLE or judged or false_reject or backend != "auto":
        raise SettingsError(
            "BUNDLE, --judged, --false-reject and --backend are for --on-device.",
            next_step="add --on-device, or leave them out: the export learns the threshold",
        )
    from hvq_edge.training.categories.change import add_category

    with progress_bars() as bars:
        changed = add_category(run, _new(out), name, good, device=device, on_progress=bars)
    _say(changed, as_json)


def remove(
    name: NameArgument,
    run: RunOption = DEFAULT_RUN,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run without one of its categories."""
    from hvq_edge.training.categories.change import remove_category

    _say(remove_category(run, _new(out), name), as_json)


def rename(
    name: NameArgument,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    run: RunOption = DEFAULT_RUN,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run in which a category has another name."""
    from hvq_edge.training.categories.change import rename_category

    _say(rename_category(run, _new(out), name, new_name), as_json)


def _add_to_bundle(
    bundle: Path,
    name: str,
    good: Path,
    out: Path | None,
    judged: Sequence[Path],
    false_reject: float | None,
    backend: str,
    *,
    as_json: bool,
) -> None:
    from hvq_edge.cli.threshold_changes import say_notes, threshold_notes
    from hvq_edge.common.extras import require
    from hvq_edge.common.wording import counted

    require("onnx")
    from hvq_edge.export.learn.add_to_bundle import add_to_bundle

    with progress_bars() as bars:
        done = add_to_bundle(
            bundle,
            name,
            good,
            out,
            judged=judged,
            false_reject=false_reject,
            backend=backend,
            on_progress=bars,
        )
    found = done.bundle.manifest.thresholds
    own = {
        precision: {name: by_category[name]}
        for precision, by_category in found.items()
        if name in by_category
    }
    notes = [*done.notes, *threshold_notes(own)]
    if as_json:
        print_json(
            {
                "bundle": str(done.bundle.path),
                "before": str(done.before.path),
                "categories": done.bundle.manifest.categories,
                "learnt": done.images,
                "others": done.others,
                "thresholds": {precision: one[name].value for precision, one in own.items()},
                "tried": {precision: one._asdict() for precision, one in done.tried.items()},
                "notes": notes,
            }
        )
        return
    facts = {
        "threshold": folded({one: f"{found[name].value:.4g}" for one, found in own.items()})
        or "none",
        "its rule": folded({one: found[name].rule for one, found in own.items()}),
    }
    for what, first in {
        "held-out good images rejected": 0,
        "good images rejected": 3,
        "defects found": 6,
    }.items():
        facts[what] = folded(
            {
                precision: f"{few} of {of}"
                + (f", {undecided} without a decision" * (undecided > 0))
                for precision, (few, undecided, of) in (
                    (precision, one[first : first + 3]) for precision, one in done.tried.items()
                )
                if of
            }
        )
    print_line(f"{name}: learnt from {counted(done.images, 'good image')}")
    for what, said in facts.items():
        if said:
            print_line(f"  {what}: {said}")
    print_line(
        f"other categories: every output of {counted(done.others, 'image')} compared, all the same"
    )
    print_line(f"Bundle: {done.bundle.path}; {done.before.path} is as it was.")
    say_notes(notes)
    messages.print(
        f"Next:  hvq-edge verify {done.bundle.path}, then sign and install it as any bundle",
        markup=False,
        soft_wrap=True,
    )


def _new(out: Path | None) -> Path:
    return out or new_run_folder("categories")


def _say(changed: ChangedRun, as_json: bool) -> None:
    from shlex import quote

    from hvq_edge.run.latest import point_latest

    point_latest(changed.path)
    record = changed.record
    if as_json:
        print_json(
            {
                "run": str(changed.path),
                "categories": record.categories,
                "change": record.changes[-1].model_dump(),
                "held_out_from": record.held_out_from,
                "notes": changed.notes,
                "warnings": changed.warnings,
            }
        )
        return
    for warning in changed.warnings:
        messages.print(f"Look: {warning}.", markup=False, soft_wrap=True)
    for note in changed.notes:
        messages.print(f"Note: {note}", markup=False, soft_wrap=True)
    messages.print(
        f"{record.changes[-1].sentence}\n"
        f"The run knows {', '.join(record.categories)}: {changed.path}. runs/latest points to it "
        "now; it has no bundle yet.\n"
        f"Next: hvq-edge export {quote(str(changed.path))} --int8",
        markup=False,
        soft_wrap=True,
    )
