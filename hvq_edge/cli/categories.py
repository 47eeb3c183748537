"""``hvq-edge add-category``, ``remove-category`` and ``rename-category``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars
from hvq_edge.cli.options import JsonOption
from hvq_edge.run.latest import DEFAULT_RUN, new_run_folder

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
    run: RunOption = DEFAULT_RUN,
    out: OutOption = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Add a product to a trained run, in minutes.

    The network is not trained again, and the other products stay as they are: what belongs to the
    new one alone is learnt from its good images. The new run stands beside the old one; export it
    as usual, which learns the threshold. docs/new-category.md says how accurate that is.
    """
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
    """Write a run without one of its products."""
    from hvq_edge.training.categories.change import remove_category

    _say(remove_category(run, _new(out), name), as_json)


def rename(
    name: NameArgument,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    run: RunOption = DEFAULT_RUN,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run in which a product has another name."""
    from hvq_edge.training.categories.change import rename_category

    _say(rename_category(run, _new(out), name, new_name), as_json)


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
