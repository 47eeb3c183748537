"""The runs below a folder, with what they reached; a run that cannot be read stops nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hvq_edge.errors import CheckpointError, InputError, RunError
from hvq_edge.run.latest import DEFAULT_RUN
from hvq_edge.run.record import RECORD_NAME, read_run


@dataclass(frozen=True)
class RunRow:
    """A run whose record could be read."""

    name: str
    """Its folder, relative to the listed one."""
    latest: bool
    """The link ``latest`` points to it."""
    created: str
    """ISO 8601, UTC."""
    preset: str
    backbone: str
    input_side: int
    """Pixels."""
    categories: tuple[str, ...]
    finished: bool
    epochs_done: int | None
    """Of an unfinished run: up to its last saved state; ``None`` if that cannot be read."""
    epochs_planned: int | None
    """``None`` for a loaded released checkpoint, which was trained elsewhere."""
    metrics: dict[str, float]
    """As in ``run.json``: last losses, seconds by stage."""
    evaluations: dict[str, dict[str, float | None]]
    """Mean test metrics (0 to 1) with the category ``known`` and ``chosen``, as far as evaluated.
    """
    fault: str | None = None
    """Why the run's ``metrics.json`` could not be used."""


@dataclass(frozen=True)
class BrokenRun:
    """A folder with a ``run.json`` that cannot be read."""

    name: str
    latest: bool
    created: str
    """When ``run.json`` was last written: its own date is not to be had."""
    fault: str


def list_runs(folder: Path) -> list[RunRow | BrokenRun]:
    """Read every run below a folder, the newest first.

    Args:
        folder: searched with its subfolders, but not inside of runs; may be a run itself.

    Raises:
        RunError: there is no such folder.
    """
    if not folder.is_dir():
        raise RunError(
            f"there is no folder {folder} to list runs of.",
            next_step="run hvq-edge train --data DIR, or name the folder that holds the runs",
        )
    link = folder / DEFAULT_RUN.name
    latest = link.resolve() if link.is_symlink() else None
    found = [_read(run, folder, latest) for run in _run_folders(folder)]
    return sorted(found, key=lambda run: (moment_of(run.created), run.name), reverse=True)


def run_to_resume() -> Path:
    """Return the newest run in ``runs`` that has begun and not finished; else ``runs/latest``."""
    folder = DEFAULT_RUN.parent
    found = list_runs(folder) if folder.is_dir() else []
    begun = (one for one in found if isinstance(one, RunRow) and not one.finished)
    return next((folder / one.name for one in begun), DEFAULT_RUN)


def as_entry(run: RunRow | BrokenRun) -> dict[str, Any]:
    """Return a run as the JSON output has it; ``readable`` tells the two kinds apart."""
    return {"readable": isinstance(run, RunRow), **asdict(run)}


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield every folder with a ``run.json``; links are followed only from the top, once."""
    seen = set()
    for path, folders, files in os.walk(folder):
        if RECORD_NAME in files:
            folders.clear()  # a run holds no runs
            seen.add(Path(path).resolve())
            yield Path(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    for link in sorted(folder.iterdir()):
        if link.is_symlink() and (link / RECORD_NAME).is_file() and link.resolve() not in seen:
            seen.add(link.resolve())
            yield link  # a run that lies elsewhere


def _read(run: Path, folder: Path, latest: Path | None) -> RunRow | BrokenRun:
    name = run.name if run == folder else run.relative_to(folder).as_posix()
    is_latest = run.resolve() == latest
    try:
        record = read_run(run, finished=False)
    except RunError as error:
        written = datetime.fromtimestamp((run / RECORD_NAME).stat().st_mtime, timezone.utc)
        created = written.isoformat(timespec="seconds")
        return BrokenRun(name, is_latest, created, fault=error.cause)
    finished = record.checkpoint_sha256 is not None
    evaluations, fault = _evaluations(run)
    return RunRow(
        name=name,
        latest=is_latest,
        created=record.created,
        preset=record.settings.preset,
        backbone=record.settings.model.backbone,
        input_side=record.settings.model.input_side,
        categories=record.categories,
        finished=finished,
        epochs_done=record.epochs_done if finished else _epochs_saved(run),
        epochs_planned=None if record.data is None else record.settings.training.epochs,
        metrics=record.metrics,
        evaluations=evaluations,
        fault=fault,
    )


def _evaluations(run: Path) -> tuple[dict[str, dict[str, float | None]], str | None]:
    """Return the mean metrics by way (known, chosen), and the fault of a file that is no use."""
    from hvq_edge.bundle.judged_images import METRICS_NAME
    from hvq_edge.evaluation.metrics.metrics_file import read_metrics

    path = run / METRICS_NAME
    if not path.exists():
        return {}, None
    try:
        content = read_metrics(path)
    except InputError as error:
        return {}, error.cause
    return {one.category: one.mean.model_dump() for one in content.evaluations}, None


def _epochs_saved(run: Path) -> int | None:
    """Return how many epochs the saved state of an unfinished training has behind it."""
    try:
        from hvq_edge.model.safe_load import load_tensors
        from hvq_edge.training.training_state import STATE_NAME
    except ModuleNotFoundError:
        return None  # no PyTorch where runs are only looked at

    if not (run / STATE_NAME).exists():
        return 0
    try:
        return int(load_tensors(run / STATE_NAME, mapped=True)["result"][0])
    except (CheckpointError, LookupError, TypeError, ValueError):
        return None  # hvq-edge train --resume says what is wrong with it


def moment_of(created: str) -> datetime:
    """Parse a run's date; one that is none counts as the oldest."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return datetime.min.replace(tzinfo=timezone.utc)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
