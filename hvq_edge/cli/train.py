"""``hvq-edge train``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars
from hvq_edge.cli.interruption import advice_if_interrupted
from hvq_edge.cli.options import JsonOption
from hvq_edge.common.wording import counted
from hvq_edge.errors import SettingsError


def train(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Folder of images; needed unless --resume.", show_default=False
        ),
    ] = None,
    defects: Annotated[
        Path | None,
        typer.Option(
            "--defects",
            help="Folder of known defects, CATEGORY/DEFECT/, besides those in --data.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="edge, tiny, paper or paper-ot. Default: edge."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", help="TOML file with [model] and [training] tables."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The run's folder. Default: runs/<preset>-<date>-<time>."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Default: the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images a step.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Largest rate of the schedule.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="The same seed gives the same split and weights.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="efficientnet_lite0, ..., efficientnet_b4.")
    ] = None,
    tiles: Annotated[
        str | None,
        typer.Option(
            "--tiles",
            help="Rows x columns of tiles, each seen whole: small defects. Default: 1x1.",
            show_default=False,
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option("--overlap", help="Share of a tile that its neighbour has too. Default: 0.1."),
    ] = None,
    backbone_weights: Annotated[
        str | None,
        typer.Option(
            "--backbone-weights",
            help="Local .pth file, or URL ending with -<SHA-256 digits>.pth. Default: published.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run at --out, or the newest begun in runs."),
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train one model for all categories of a folder.

    A category is a product that the model knows by a name, that of its folder.

    The run (checkpoint, settings, data split with hashes) is written to --out. runs/latest points
    to it when it has finished, until then to the former one. A run that was stopped or killed goes
    on with --resume. Several GPUs or machines: torchrun --nproc-per-node N -m hvq_edge train ...,
    with the run on a disk that all see.
    """
    from shlex import quote

    from hvq_edge.model.device import choose_device
    from hvq_edge.run.latest import new_run_folder
    from hvq_edge.run.record import RECORD_NAME
    from hvq_edge.run.runs import run_to_resume
    from hvq_edge.training import processes
    from hvq_edge.training.train import train as train_model

    if resume:
        _check_alone(
            {
                "--data": data,
                "--defects": defects,
                "--preset": preset,
                "--settings": settings,
                "--epochs": epochs,
                "--batch-size": batch_size,
                "--learning-rate": learning_rate,
                "--seed": seed,
                "--backbone": backbone,
                "--tiles": tiles,
                "--overlap": overlap,
            }
        )
    preset = preset or "edge"
    run = out or (run_to_resume() if resume else new_run_folder(preset))

    def advice() -> str:
        if not (run / RECORD_NAME).exists():
            return "Nothing was trained yet."
        return f"Go on with: hvq-edge train --resume --out {quote(str(run))}"

    with (
        advice_if_interrupted(advice),
        progress_bars() as bars,
        processes.joined(choose_device(device)),
    ):
        first = processes.rank() == 0
        trained = train_model(
            data,
            run,
            defects=defects,
            preset=preset,
            settings=settings,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            backbone=backbone,
            tiles=_rows_and_columns(tiles) if tiles else None,
            overlap=overlap,
            backbone_weights=backbone_weights,
            resume=resume,
            device=device,
            on_progress=bars,
        )
    if not first:
        return
    run, record = trained.path, trained.record
    if as_json:
        print_json(
            {
                "run": str(run),
                "categories": record.categories,
                "held_out_from": record.held_out_from,
                "known_defects": {
                    name: use.model_dump() for name, use in record.known_defects_used.items()
                },
                **record.metrics,
            }
        )
    else:
        for name, source in record.held_out_from.items():
            messages.print(
                f"Held out of {name} for its threshold: {source}.", markup=False, soft_wrap=True
            )
        for name, used in record.known_defects_used.items():
            messages.print(f"{name}: {used.sentence}", markup=False, soft_wrap=True)
        messages.print(
            f"Trained {counted(len(record.categories), 'category', 'categories')} "
            f"({', '.join(record.categories)}): {run}\n"
            f"Next: hvq-edge eval --data {record.data}, or hvq-edge export --int8",
            markup=False,
            soft_wrap=True,
        )


def _check_alone(options: dict[str, object]) -> None:
    """Refuse what ``--resume`` would pass by: the run has its images and settings on record.

    Raises:
        SettingsError: such options were given.
    """
    given = " and ".join(name for name, value in options.items() if value is not None)
    if given:
        raise SettingsError(
            f"--resume goes on with what the run began with, so {given} would change nothing.",
            next_step=f"leave out {given}, or begin a new run: without --resume, with another "
            "--out",
        )


def _rows_and_columns(tiles: str) -> tuple[int, int]:
    from hvq_edge.run.settings import MOST_TILES

    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", tiles)
    asked = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= max(asked) <= MOST_TILES:
        raise SettingsError(
            f"--tiles {tiles}: expected rows x columns, 1 to {MOST_TILES} of each.",
            next_step="give for example --tiles 2x3",
        )
    return asked
