"""A finished run whose weights are random: what export and verify see of it is real, in seconds."""

from __future__ import annotations

from pathlib import Path

from small_graphs import SMALL, small_model

from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.splits import split_training
from hvq_edge.model.checkpoint import save_checkpoint
from hvq_edge.run_record import RunRecord, write_run
from hvq_edge.settings import Settings


def save_run(run: Path, data: Path) -> Path:
    """Write a run of two categories on a dataset's training pictures, a third of them held out."""
    dataset = find_dataset(data)
    settings = Settings.model_validate({"model": SMALL})
    run.mkdir(parents=True)
    record = RunRecord(
        hvq_edge_version="0",
        created="2026-01-01T00:00:00+00:00",
        settings=settings,
        categories=dataset.categories,
        backbone_weights="random",
        data=str(data),
        pictures=split_training(dataset, held_out=1 / 3, seed=0),
        checkpoint_sha256=save_checkpoint(run, small_model()),
    )
    write_run(run, record)
    return run
