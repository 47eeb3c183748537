"""The public way to train: all that ``hvq-edge train`` does, from Python."""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.errors import RunError, SettingsError
from hvq_edge.model.device import choose_device
from hvq_edge.run.latest import new_run_folder, point_latest
from hvq_edge.run.record import RunRecord, read_run
from hvq_edge.run.runs import run_to_resume
from hvq_edge.run.settings import load_settings
from hvq_edge.training import processes, train_run


@dataclass(frozen=True)
class TrainedRun:
    """A finished training run."""

    path: Path
    """Its folder: what ``export_bundle``, ``evaluate``, ``load_model`` and ``open_engine`` take."""
    record: RunRecord
    """Categories, settings, images, losses: the content of ``run.json``."""


def train(
    data: Path | str | None = None,
    out: Path | str | None = None,
    *,
    defects: Path | str | None = None,
    preset: str = "edge",
    settings: Path | str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    backbone: str | None = None,
    tiles: tuple[int, int] | None = None,
    overlap: float | None = None,
    backbone_weights: str | None = None,
    resume: bool = False,
    device: str = "auto",
    on_progress: ProgressCallback = silent,
) -> TrainedRun:
    """Train one model for all categories of a folder of good images (public API).

    When it has finished, ``runs/latest`` points to the run; until then to the former one. What
    ``torchrun`` started trains together.

    Args:
        data: folder of images; not needed to resume.
        out: the run's folder; default: ``runs/<preset>-<date>-<time>``, or to resume the newest
            run in ``runs`` that has begun.
        defects: folder of known defects (``<category>/<defect>/``) besides those in ``data``.
        preset: ``paper``, ``edge`` or ``tiny``.
        settings: TOML file with ``[model]`` and ``[training]`` tables; what is given here wins.
        epochs: default: the preset's, as for all that follows.
        batch_size: images a step.
        learning_rate: largest rate of the schedule.
        seed: the same seed gives the same split and weights.
        backbone: ``efficientnet_lite0``, ..., ``efficientnet_b4``.
        tiles: rows and columns of tiles that each image is cut into.
        overlap: share of a tile's side that it shares with its neighbour.
        backbone_weights: local ``.pth`` file, or URL that ends with ``-<SHA-256 digits>.pth``.
        resume: continue a run that has begun; a finished one is returned as it is.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        on_progress: called within every stage.

    Raises:
        SettingsError: no images named, or wrong settings: all are listed.
        RunError: ``out`` holds a run already, or another process trains it; or there is no run to
            resume.
        DatasetError, ImageError: the images cannot be used, or changed since the run began.
        CheckpointError: the run's cannot be read, or another's was asked for.
        OutputError: the run cannot be written.
        MissingCapability: a package or the device is missing.
    """
    if not resume and data is None:
        raise SettingsError("no images were named.", next_step="give their folder with --data DIR")
    run = Path(out) if out else run_to_resume() if resume else new_run_folder(preset)
    with processes.joined(choose_device(device)):
        first = processes.rank() == 0
        if not resume:
            assert data is not None
            checked = load_settings(
                preset,
                Path(settings) if settings else None,
                model={"backbone": backbone, "tiles": tiles, "tile_overlap": overlap},
                training={
                    "epochs": epochs,
                    "batch_size": batch_size,
                    "learning_rate": learning_rate,
                    "seed": seed,
                },
            )
            if overlap is not None and math.prod(checked.model.tiles) == 1:
                raise SettingsError(
                    "an overlap is one of tiles, and there are none.",
                    next_step="say with --tiles how many, for example 2x3",
                )
            run = Path(processes.from_first(str(run)))
            if first:
                train_run.start_run(
                    Path(data),
                    run,
                    checked,
                    defects=Path(defects) if defects else None,
                    backbone_weights=backbone_weights,
                    on_progress=on_progress,
                )
        processes.wait_for_all()
        begun = read_run(run, finished=False).checkpoint_sha256 is None
        with _alone(run, locked=begun and first):
            record = train_run.continue_run(
                run,
                backbone_weights=backbone_weights,
                device=device,
                images_checked=not resume or not first,
                on_progress=on_progress,
            )
        if begun and first:
            point_latest(run)
    return TrainedRun(run, record)


@contextmanager
def _alone(run: Path, *, locked: bool) -> Iterator[None]:
    """Keep other trainings out of a run's folder until this one ends, however it ends.

    Raises:
        RunError: another process trains it.
    """
    if not locked:
        yield
        return
    # The folder itself is locked: no file is left that a killed training would leave behind.
    folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"another process is training {run}.",
                next_step="wait until it has finished, or name another run with --out",
            ) from None
        except OSError:
            pass  # a disk that cannot lock folders, as some of a network
        yield
    finally:
        os.close(folder)
