"""``hvq-edge data``: look at a folder of images before hours are spent on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hvq_edge.cli.console import print_json, progress_bars, results
from hvq_edge.cli.options import JsonOption
from hvq_edge.common.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.data.check import DatasetCheck
    from hvq_edge.data.findings import DatasetFinding

group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

MOST_LISTED = 20
"""Findings of one kind that the terminal shows; ``--json`` has all."""

_NAMED = 3
"""Files that a line names."""

HEADINGS = {
    "unreadable": "Cannot be read: a training stops at it, an evaluation leaves it out",
    "too_few": "Too few good images to train with",
    "hardly_differ": "Training images that hardly differ: every other part looks unknown",
    "two_levels": "Images of two levels: masks or empty exposures, not photos",
    "few_levels": "16-bit files that hold fewer bits: nearly black when they are read",
    "train_and_test": "In train and in test: the test is not one",
    "good_and_defective": "Called good and defective at once",
    "mask_place": "Masks among the images: left out, and used for none",
    "mask_size": "Masks of another size than their image",
    "mask_empty": "Masks that mark nothing",
    "mask_full": "Masks that mark everything: inverted?",
    "mask_missing": "Defective images without a mask: left out of the pixel metrics",
    "mask_shared": "Images that would share one mask: left out of the pixel metrics",
    "mask_unused": "Masks without an image: misnamed, or an image is missing",
    "copies": "Copies within train or within test: no fault, but they weigh more",
}
"""By kind of finding; each says what the kind means for the numbers."""


@group.callback()
def _data() -> None:
    """Check a folder of images before training."""


@group.command("check")
def check(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of images: MVTec, VisA or plain layout."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Count, measure and compare all images and masks of a folder.

    Ends with exit code 1 when something was found that stops a training or spoils its numbers:
    images both in train and in test, files that cannot be read, masks that do not fit.
    """
    from hvq_edge.data.check import check_dataset
    from hvq_edge.errors import GateFailed

    with progress_bars() as bars:
        found = check_dataset(folder, on_progress=bars)
    if as_json:
        print_json(check_record(found))
    else:
        results.print(check_table(found, wide=results.width >= 100))
        _print_findings(found)
    if not found.fit:
        count = len(found.faults)
        raise GateFailed(
            f"{counted(count, 'fault')} in {folder} would stop a training or spoil its numbers.",
            next_step=f"correct what is listed, then run hvq-edge data check {folder} again",
        )


def check_record(found: DatasetCheck) -> dict[str, Any]:
    """Return a check as JSON; paths are relative to ``data``, sizes are width and height."""
    from dataclasses import asdict

    def finding(one: DatasetFinding) -> dict[str, Any]:
        return {**asdict(one), "paths": _relative(one.paths, found.root)}

    return {
        "data": str(found.root.resolve()),
        "layout": found.layout,
        "fit": found.fit,
        "categories": [
            {
                **asdict(one),
                "days": {str(day): count for day, count in one.days},
                "test_by_content": _relative(one.test_by_content, found.root),
            }
            for one in found.categories
        ],
        "faults": [finding(one) for one in found.faults],
        "copies": [finding(one) for one in found.copies],
        "notes": list(found.notes),
    }


def check_table(found: DatasetCheck, *, wide: bool = False) -> Table:
    """Show each category as a row, and the sums.

    Args:
        found: the check.
        wide: space the columns out; else the table fits into 80 characters.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(f"{found.root}, {found.layout} layout"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1 if wide else 0, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("category", overflow="fold", vertical="bottom", min_width=12)
    apart = any(one.validation_good for one in found.categories)
    known = any(one.known_defects for one in found.categories)
    more = (*(["valid.\ngood"] * apart), *(["known\ndefects"] * known))
    counts = ("train\ngood", *more, "test\ngood", "test\ndefects", "masks")
    faults = ("un-\nread-\nable", "also\nin train", "mask\nfaults")
    for heading in (*counts, "smallest", "largest", *faults):
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    numbers = [
        (
            one.train_good,
            *([one.validation_good] * apart),
            *([one.known_defects] * known),
            *(one.test_good, one.test_defective, one.masks),
        )
        for one in found.categories
    ]
    wrong = [(one.unreadable, one.leaked, one.mask_faults) for one in found.categories]
    for one, number, fault in zip(found.categories, numbers, wrong, strict=True):
        sizes = [_size(one.smallest), _size(one.largest)]
        table.add_row(
            Text(one.category), *(str(n) for n in number), *sizes, *(_alarm(n) for n in fault)
        )
    if len(found.categories) > 1:
        table.add_section()
        sums = [sum(column) for column in zip(*numbers, strict=True)]
        wrongs = [sum(column) for column in zip(*wrong, strict=True)]
        table.add_row("all", *(str(n) for n in sums), "", "", *(_alarm(n) for n in wrongs))
    return table


def _print_findings(found: DatasetCheck) -> None:
    for line in ("", *_uses(found)):
        results.print(line, markup=False, soft_wrap=True)
    for heading, lines in _sections(found):
        results.print(f"\n{heading}:", markup=False, soft_wrap=True)
        for line in lines[:MOST_LISTED]:
            results.print(f"  {line}", markup=False, soft_wrap=True)
        if len(lines) > MOST_LISTED:
            results.print(f"  and {len(lines) - MOST_LISTED} more; --json lists all")
    if found.fit:
        results.print("\nNothing was found that stops a training or spoils its numbers.")


def _uses(found: DatasetCheck) -> Iterable[str]:
    """Yield what training will make of the images, in words that it uses itself."""
    from hvq_edge.data.findings import LEAST_KNOWN_DEFECTS

    for one in found.categories:
        if one.days:
            days = counted(len(one.days), "day")
            span = " to ".join(dict.fromkeys(str(one.days[place][0]) for place in (0, -1)))
            yield f"Training images of {one.category}: {days} by {one.days_said_by}, {span}."
        if one.held_out:
            images = counted(one.held_out, "image")
            yield (f"Held out of {one.category} for its threshold: {one.held_out_from} ({images}).")
    others = ", ".join(one.category for one in found.categories if not one.held_out)
    if others:
        yield f"Held out of {others} for thresholds: a random share of the good training images."
    for one in found.categories:
        if one.known_defects:
            images = counted(one.known_defects, "known defect")
            few = one.known_defects < LEAST_KNOWN_DEFECTS
            use = f"; from {LEAST_KNOWN_DEFECTS} on they are learnt from" if few else ""
            yield f"Besides good images of {one.category}: {images}{use}."
    for one in found.categories:
        if one.test_by_content:
            images = counted(len(one.test_by_content), "good image")
            named = _named(_relative(one.test_by_content, found.root))
            yield (
                f"Held out of {one.category} as test images, chosen by content: {images}, {named}."
            )


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more (--json lists all)" if more > 0 else "")


def _sections(found: DatasetCheck) -> Iterable[tuple[str, list[str]]]:
    """Yield a heading and its lines for each kind of finding, then the notes."""
    for kind, findings in groupby((*found.faults, *found.copies), key=lambda one: one.kind):
        listed = list(findings)
        lines = _of_masks if kind.startswith("mask_") else _one_by_one
        yield f"{HEADINGS[kind]} ({len(listed)})", list(lines(listed, found.root))
    if found.notes:
        yield "Notes", list(found.notes)


def _one_by_one(findings: Iterable[DatasetFinding], root: Path) -> Iterable[str]:
    return (_line(one, root) for one in findings)


def _of_masks(findings: Iterable[DatasetFinding], root: Path) -> Iterable[str]:
    """Yield one line for what is wrong in the same way with many masks of a category."""
    alike: dict[tuple[tuple[str, ...], str], list[DatasetFinding]] = {}
    for one in findings:
        alike.setdefault((one.categories, one.detail), []).append(one)
    for (categories, detail), same in alike.items():
        if len(same) == 1:
            yield _line(same[0], root)
            continue
        paths = _named([" = ".join(_relative(one.paths, root)) for one in same])
        yield f"{', '.join(categories)}: {counted(len(same), 'file')}, {paths}: {detail}"


def _line(finding: DatasetFinding, root: Path) -> str:
    if not finding.paths:
        return f"{', '.join(finding.categories)}: {finding.detail}"
    return f"{' = '.join(_relative(finding.paths, root))}: {finding.detail}"


def _relative(paths: Sequence[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def _size(size: tuple[int, int] | None) -> str:
    return "–" if size is None else f"{size[0]}x{size[1]}"


def _alarm(count: int) -> str:
    return f"[bold red]{count}[/]" if count else "0"
