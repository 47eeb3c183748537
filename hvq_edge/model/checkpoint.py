"""A run's checkpoint: tensors only, and the model built from it and ``run.json``."""

from __future__ import annotations

from pathlib import Path

import torch

from hvq_edge.bundle.learnt import prototypes_learnt
from hvq_edge.bundle.manifest import Bundle
from hvq_edge.common.atomic import atomic_file, sha256_of
from hvq_edge.errors import CheckpointError
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.run.record import CHECKPOINT_NAME, RunRecord, read_run


def save_checkpoint(run: Path, model: HVQTrans) -> str:
    """Write ``checkpoint.pt`` atomically and return its SHA-256.

    Raises:
        OutputError: it cannot be written.
    """
    path = run / CHECKPOINT_NAME
    with atomic_file(path) as temporary:
        torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, temporary)
    return sha256_of(path)


def load_run(
    run: Path, device: str = "cpu", bundle: Bundle | None = None
) -> tuple[HVQTrans, RunRecord]:
    """Load a finished run's model.

    Args:
        run: the run's folder.
        device: a torch device.
        bundle: that was exported from it: the model gets the prototypes that it has learnt since.

    Returns:
        The model in eval mode, without gradients, and the run's record.

    Raises:
        RunError: no finished run there.
        CheckpointError: ``checkpoint.pt`` changed or does not fit the recorded settings.
        BundleError: what the bundle has learnt cannot be read.
    """
    record = read_run(run)
    path = run / CHECKPOINT_NAME
    state = load_tensors(path)
    if (digest := sha256_of(path)) != record.checkpoint_sha256:
        raise CheckpointError(
            f"{path} is not the file this run wrote (SHA-256 {digest[:12]}…, run.json says "
            f"{str(record.checkpoint_sha256)[:12]}…).",
            next_step="copy the run's folder again, or train again",
        )
    model = HVQTrans(record.settings.model, len(record.categories))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit the settings in run.json: {str(error).splitlines()[0]}",
            next_step="copy the run's folder again, or train again",
        ) from error
    for table, name, centres in prototypes_learnt(bundle) if bundle is not None else ():
        kept = model.prototypes if table == "prototypes" else model.fine_prototypes
        assert kept is not None  # a graph has no table that its model lacks
        kept.centres[record.categories.index(name)] = torch.from_numpy(centres)
    return model.to(device).eval().requires_grad_(False), record


def load_model(run: Path | str = "runs/latest", device: str = "cpu") -> HVQTrans:
    """Load a finished run's model, in eval mode (public API).

    Call it with uint8 ``[batch, side, side, 3]`` RGB frames and, unless it shall choose itself,
    an int64 ``[batch]`` category index; it gives ``{"score", "map", "codes", "category",
    "margin"}``.

    Args:
        run: the run's folder.
        device: a PyTorch device.

    Raises:
        RunError: no finished run there.
        CheckpointError: its checkpoint changed or does not fit its settings.
    """
    return load_run(Path(run), device)[0]
