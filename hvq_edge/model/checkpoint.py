"""A run's checkpoint: tensors only, and the model built from it and ``run.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from hvq_edge.bundle.learnt import CENTRES, categories_added, prototypes_learnt
from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.atomic import atomic_file, sha256_of
from hvq_edge.errors import CheckpointError
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.prototypes import FeaturePrototypes
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
        bundle: that was exported from it: the model gets the categories and the prototypes that it
            has learnt since.

    Returns:
        The model in eval mode, without gradients, and the run's record, which names them too.

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
    if bundle is not None:
        for index, added, state in categories_added(bundle):
            source = record.categories.index(added.codes_of)
            model = with_categories(model, [*range(index), source])
            _put_category(model, index, state)
            names = (*record.categories, added.category)
            record = record.model_copy(update={"categories": names})
        for table, name, centres in prototypes_learnt(bundle):
            if table == CENTRES:
                own, index = model.classifier, record.categories.index(name)
                own.centres = torch.cat([own.centres, torch.from_numpy(centres)])
                own.owners = torch.cat([own.owners, torch.full((len(centres),), index)])
                continue
            kept, _ = _table_of(model, table)
            kept.centres[record.categories.index(name)] = torch.from_numpy(centres)
    return model.to(device).eval().requires_grad_(False), record


@torch.no_grad()
def with_categories(model: HVQTrans, kept: Sequence[int | None]) -> HVQTrans:
    """Copy a model with more or fewer categories.

    Args:
        model: left as it is.
        kept: for each category of the result the one that it is now; ``None``: a new one, whose
            tensors are as a new model has them. Not as many as there are now.

    Returns:
        A model in eval mode, without gradients, on the same device.
    """
    if len(kept) == model.categories:
        raise ValueError("which axis is the category's shows in its length alone")
    books = cast("Codebooks", model.codebooks[0])
    changed = HVQTrans(
        model.settings,
        len(kept),
        codebook_decay=books.decay,
        codebook_epsilon=books.epsilon,
    )
    changed = changed.to(model.feature_mean.device).eval().requires_grad_(False)
    state = model.state_dict()
    for name, tensor in changed.state_dict().items():
        before = state[name]
        if before.shape == tensor.shape:
            tensor.copy_(before)
            continue
        (axis,) = (i for i, size in enumerate(tensor.shape) if size != before.shape[i])
        for place, source in enumerate(kept):
            if source is not None:
                tensor.select(axis, place).copy_(before.select(axis, source))
    return changed


@torch.no_grad()
def _put_category(model: HVQTrans, k: int, state: Mapping[str, NDArray[np.float32]]) -> None:
    """Give a category what was fitted to it in the graph: distances to prototypes are its map."""
    model.map_centre[:, k] = 0
    model.map_spread[:, k] = torch.inf  # so all else has no share
    own = model.state_dict()
    for name, values in state.items():
        if name in own:
            own[name][k] = torch.from_numpy(np.asarray(values))
            continue
        table, _, what = name.rpartition(".")
        _, part = _table_of(model, table)
        if what == "centre":
            model.map_centre[part, k] = torch.from_numpy(values)
        else:
            model.map_spread[part, k] = model.part_weights[part] / torch.from_numpy(values)


def _table_of(model: HVQTrans, table: str) -> tuple[FeaturePrototypes, int]:
    """Return prototypes of a graph's table, and which part of the map their distance is."""
    first = 1 + len(model.settings.transport_weights)
    if table == "prototypes":
        kept, part = model.prototypes, first
    else:
        kept, part = model.fine_prototypes, first + 1
    assert kept is not None  # a graph has no table that its model lacks
    return kept, part


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
