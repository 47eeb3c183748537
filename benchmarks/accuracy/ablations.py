"""What each setting is worth: short trainings that differ from the defaults in one thing each.

    python -m benchmarks.accuracy.ablations DATA --epochs 12
    python -m benchmarks.accuracy.ablations DATA --only base "no prototypes"
    python -m benchmarks.accuracy.ablations DATA --only base --teacher efficientnet_lite2 --out OUT
    python -m benchmarks.accuracy.ablations --list

Every row trains the `tiny` preset, or uses the weights of the base row where its change only
concerns what is made of them, and is judged on the test images and, without them, on held-out
good images against pseudo-defects. A finished row is written at once and skipped the next time;
several processes with the same --out share the work, each taking rows that no other has begun.

Differences are to the base row; what the rows "another seed" and "a third seed" show is chance. In
brackets: the lowest and highest mean difference that leaving one category out gives. A setting is
worth having where both ends lie on the same side.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch
from pydantic import BaseModel, ValidationError

from benchmarks.accuracy.ablation_rows import BASE, ROWS, Row
from benchmarks.accuracy.distillation import Teacher
from benchmarks.accuracy.evidence import Range, images_to_judge, leave_one_out, mean_of
from benchmarks.accuracy.flips import allowed_flips
from benchmarks.accuracy.image_sources import locked
from benchmarks.accuracy.row_training import Plan, RowResult, Workshop
from benchmarks.markdown_table import markdown_table
from hvq_edge.cli.console import messages, progress_bars
from hvq_edge.common.atomic import write_text
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.splits import check_unchanged, split_training
from hvq_edge.errors import HvqEdgeError, SettingsError
from hvq_edge.evaluation.table import percent
from hvq_edge.model.device import choose_device
from hvq_edge.run.record import ImageRecord
from hvq_edge.run.settings import BackboneName, Settings, load_settings

_PLAN = "plan.json"


class _PlanFile(BaseModel):
    """What a folder of rows was begun with: rows of different plans cannot be compared."""

    data: str
    settings: Settings
    records: tuple[ImageRecord, ...]
    teacher: Teacher | None = None


def make_plan(
    data: Path,
    out: Path,
    settings: Settings,
    on_progress: ProgressCallback = silent,
    teacher: Teacher | None = None,
) -> Plan:
    """Divide the images, or take the division that ``out`` was begun with.

    Raises:
        SettingsError: ``out`` was begun with other data, settings or another teacher.
        DatasetError: no usable images, or images that changed since.
        ImageError: an image cannot be read.
        OutputError: ``out`` cannot be written.
    """
    dataset = find_dataset(data)
    training = settings.training
    path = out / _PLAN
    with locked(out / "plan.lock"):
        if path.exists():
            kept = _read_plan(path)
            begun_with = (kept.data, kept.settings, kept.teacher)
            if begun_with != (str(data.resolve()), settings, teacher):
                raise SettingsError(
                    f"{out} holds rows of other data, settings or another teacher ({kept.data}, "
                    f"{kept.settings.training.epochs} epochs).",
                    next_step="give the same as then, or another folder with --out",
                )
            check_unchanged(kept.records, data, on_progress)
        else:
            records = split_training(dataset, training.held_out, training.seed, on_progress).images
            kept = _PlanFile(
                data=str(data.resolve()), settings=settings, records=records, teacher=teacher
            )
            write_text(path, kept.model_dump_json(indent=1) + "\n")
    categories = tuple(sorted({record.category for record in kept.records}))
    return Plan(data, settings, categories, kept.records, images_to_judge(dataset, categories))


def _read_plan(path: Path) -> _PlanFile:
    try:
        return _PlanFile.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise SettingsError(
            f"{path} is not a plan that this version reads: {error}.",
            next_step="choose another folder with --out",
        ) from error


def run_rows(
    workshop: Workshop, rows: Sequence[Row], out: Path, on_progress: ProgressCallback = silent
) -> list[tuple[Row, HvqEdgeError]]:
    """Run the rows that are not finished and that no other process has begun.

    Returns:
        Rows that could not be run, and why; the others were run all the same.
    """
    failed = []
    for row in rows:
        path = row_path(out, row)
        with locked(path.with_suffix(".lock"), wait=False) as own:
            if not own:
                messages.print(
                    f"{row.name}: another process is at it.", markup=False, soft_wrap=True
                )
                continue
            if path.exists():
                continue
            try:
                result = workshop.run(row, on_progress)
            except HvqEdgeError as error:
                failed.append((row, error))
                messages.print(f"{row.name}: {error}", markup=False, soft_wrap=True)
                continue
            write_text(path, result.model_dump_json(indent=1) + "\n")
    return failed


def row_path(out: Path, row: Row) -> Path:
    """The file of a finished row."""
    return out / "rows" / f"{row.slug}.json"


def finished_rows(out: Path, rows: Sequence[Row] = ROWS) -> dict[str, RowResult]:
    """Read those rows that are finished, in their order."""
    return {
        row.name: RowResult.model_validate_json(row_path(out, row).read_text(encoding="utf-8"))
        for row in rows
        if row_path(out, row).exists()
    }


def summary_table(results: Mapping[str, RowResult]) -> str:
    """A line a row: means, and differences to the base row."""
    base = results.get(BASE)
    headings = [
        *("row", "image AUROC", "difference", "leaving one out"),
        *("pseudo-defects", "difference", "leaving one out"),
        *("pixel AUROC", "held-out loss", "images/s"),
    ]
    lines = []
    for name, result in results.items():
        found = result.evidence
        reference = None if base is None or name == BASE else base.evidence
        test = _against(found.image_auroc, reference.image_auroc if reference else None)
        pseudo = _against(found.pseudo, reference.pseudo if reference else None)
        speed = result.images_per_second
        lines.append(
            [
                *(name, percent(found.mean.image_auroc), *test),
                *(percent(found.pseudo_mean), *pseudo),
                *(percent(found.mean.pixel_auroc), f"{result.held_out_loss:.4f}"),
                "–" if speed is None else f"{speed:.0f}",
            ]
        )
    return markdown_table(headings, lines)


def category_table(results: Mapping[str, RowResult], pseudo: bool) -> str:
    """Image AUROC of each category: on test images, or on pseudo-defects."""
    columns: dict[str, dict[str, float]] = {
        name: result.evidence.pseudo if pseudo else result.evidence.image_auroc
        for name, result in results.items()
    }
    categories = sorted({category for values in columns.values() for category in values})
    lines = [
        [name, *(percent(values.get(category)) for category in categories)]
        for name, values in columns.items()
    ]
    return markdown_table(["row", *categories], lines)


def flips_in_words(results: Mapping[str, RowResult]) -> str:
    """Which categories learnt from flipped images; empty where no such row has finished."""
    words = []
    for name, result in results.items():
        if result.flip_distances is None:
            continue
        for direction, allowed in allowed_flips(result.flip_distances).items():
            words.append(f"{name}, {direction}: {', '.join(allowed) or 'no category'}")
    return "\n".join(words)


def _against(values: Mapping[str, float], reference: Mapping[str, float] | None) -> tuple[str, str]:
    """Mean difference, and its range when one category is left out, in per cent."""
    if reference is None or not reference:
        return "", ""
    differences = {name: values[name] - reference[name] for name in values}
    return f"{100 * mean_of(differences):+.1f}", in_brackets(leave_one_out(differences))


def in_brackets(range_: Range | None) -> str:
    """``[-0.3, +1.2]`` in per cent."""
    return "" if range_ is None else f"[{100 * range_[0]:+.1f}, {100 * range_[1]:+.1f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rows and print all finished ones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="folder of images with test images")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--preset", default="tiny", choices=["tiny", "edge", "paper"])
    parser.add_argument("--settings", type=Path, help="TOML file; what the base row starts from")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows to run; default: all")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument(
        "--teacher",
        choices=get_args(BackboneName),
        help="a backbone whose features ours learns to tell first (distillation.py)",
    )
    parser.add_argument("--teacher-side", type=int, default=320, help="of its input, in pixels")
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(row.name for row in ROWS))
        return
    if given.data is None:
        parser.error("name the folder of images")
    known = {row.name: row for row in ROWS}
    unknown = [name for name in given.only or () if name not in known]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; --list names them")
    rows = [known[name] for name in given.only] if given.only else ROWS
    try:
        settings = load_settings(given.preset, given.settings, training={"epochs": given.epochs})
        device = choose_device(given.device)
        torch.backends.cudnn.allow_tf32 = False  # features in full float32, as they are judged
        teacher = Teacher(given.teacher, given.teacher_side) if given.teacher else None
        with progress_bars() as bars:
            plan = make_plan(given.data, given.out, settings, bars, teacher)
            workshop = Workshop(plan, given.out, device, teacher=teacher)
            failed = run_rows(workshop, rows, given.out, bars)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    results = finished_rows(given.out)
    print(f"Means over the categories (%); differences to {BASE!r}\n\n{summary_table(results)}")
    print(f"\nImage AUROC on test images (%)\n\n{category_table(results, pseudo=False)}")
    print(f"\nImage AUROC on pseudo-defects (%)\n\n{category_table(results, pseudo=True)}")
    if flips := flips_in_words(results):
        print(f"\n{flips}")
    if failed:
        names = ", ".join(row.name for row, _ in failed)
        parser.exit(failed[0][1].exit_code, f"rows that could not be run: {names}\n")


if __name__ == "__main__":
    main()
