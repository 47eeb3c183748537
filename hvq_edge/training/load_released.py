"""A run from the authors' released checkpoint."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from hvq_edge.common.atomic import sha256_of
from hvq_edge.errors import RunError, SettingsError
from hvq_edge.model.checkpoint import save_checkpoint
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.released_checkpoint import MVTEC_CATEGORIES, from_released
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.run.record import RECORD_NAME, RunRecord, write_run
from hvq_edge.run.settings import load_settings


def load_released(
    checkpoint: Path, run: Path, categories: tuple[str, ...] | None = None
) -> RunRecord:
    """Write a run that holds a released checkpoint's model.

    Args:
        checkpoint: file with the released layout (:mod:`hvq_edge.model.released_checkpoint`).
        run: folder of the new run.
        categories: in the order of the class index; default: MVTec AD's 15.

    Raises:
        CheckpointError: not a tensor file, or not of that layout and number of categories.
        RunError: ``run`` already holds a run.
        SettingsError: a category is named twice or not at all.
        OutputError: ``run`` cannot be written.
    """
    names = categories or MVTEC_CATEGORIES
    if len(set(names)) != len(names) or not all(names):
        raise SettingsError(
            f"the categories {', '.join(names)} are not all named and different.",
            next_step="give each class one name with --categories a,b,c",
        )
    if (run / RECORD_NAME).exists():
        raise RunError(f"{run} already holds a run.", next_step="choose another --out")
    settings = load_settings("paper")
    state = from_released(load_tensors(checkpoint), len(names))
    model = HVQTrans(settings.model, len(names))
    model.load_state_dict(state)
    record = RunRecord(
        hvq_edge_version=version("hvq-edge"),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=settings,
        categories=names,
        backbone_weights=f"in {checkpoint.name} (SHA-256 {sha256_of(checkpoint)})",
        data=None,
        checkpoint_sha256=save_checkpoint(run, model),
    )
    write_run(run, record)
    return record
