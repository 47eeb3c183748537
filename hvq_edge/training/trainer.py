"""The training loop on cached features, resumable at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hvq_edge.atomic import atomic_file
from hvq_edge.errors import HvqEdgeError, RunError
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.settings import TrainingSettings
from hvq_edge.training.batches import shuffled_batches, to_tensor
from hvq_edge.training.codebook_start import revive_codes

STATE_NAME = "training_state.pt"
SAVE_EVERY_S = 15.0
"""A kill loses at most this much work and one epoch."""
REVIVE_UNTIL = 0.7
"""Share of the epochs after which codes are left to settle."""


@dataclass(frozen=True)
class EpochResult:
    """Mean losses of one epoch."""

    epoch: int
    """Counted from one."""
    feature_loss: float
    """Mean squared error of the standardised features."""
    commitment: float
    revived: int
    """Codes that got a new place."""


def train_epochs(
    run: Path,
    model: HVQTrans,
    features: NDArray[np.float16],
    category: NDArray[np.int64],
    settings: TrainingSettings,
    on_epoch: Callable[[EpochResult], None] = lambda _: None,
) -> EpochResult:
    """Train until the last epoch, from ``training_state.pt`` where there is one.

    A training that was killed and resumed gives the same weights, bit for bit on a CPU, as one
    that was not: batch order and dropout depend on seed and epoch alone.

    Args:
        run: folder of the run.
        model: trained in place.
        features: float16 ``[pictures, tokens, channels]``, raw.
        category: int64 ``[pictures]``.
        settings: of the training.
        on_epoch: called after each epoch.

    Returns:
        The last epoch's result.

    Raises:
        HvqEdgeError: the loss is not finite.
        OutputError: the state cannot be written.
        CheckpointError, RunError: the state to resume from is damaged or of other settings.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, settings.learning_rate, weight_decay=settings.weight_decay
    )
    path = run / STATE_NAME
    done, result = _resume(path, model, optimizer) if path.exists() else (0, None)
    saved_at = time.monotonic()
    model.train()
    for epoch in range(done, settings.epochs):
        result = _train_one_epoch(model, optimizer, parameters, features, category, settings, epoch)
        on_epoch(result)
        if time.monotonic() - saved_at > SAVE_EVERY_S or epoch + 1 == settings.epochs:
            _save(path, model, optimizer, result)
            saved_at = time.monotonic()
    model.eval()
    if result is None:
        raise RunError(f"{path} records no epoch.", next_step="delete it and train again")
    return result


def _train_one_epoch(
    model: HVQTrans,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    features: NDArray[np.float16],
    category: NDArray[np.int64],
    settings: TrainingSettings,
    epoch: int,
) -> EpochResult:
    torch.manual_seed(settings.seed * 1_000_003 + epoch)  # dropout
    steps = math.ceil(len(features) / settings.batch_size)
    totals = np.zeros(2)
    batches = shuffled_batches(len(features), settings.batch_size, settings.seed, epoch)
    for step, chosen in enumerate(batches):
        rate = settings.learning_rate * rate_factor(settings, epoch + step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = to_tensor(model, features[chosen])
        label = torch.from_numpy(category[chosen]).to(batch.device)
        rebuilt = model.reconstruct(batch, label)
        feature_loss = (rebuilt.features - batch).square().mean()
        loss = feature_loss + settings.latent_weight * rebuilt.commitment
        if not torch.isfinite(loss):
            raise HvqEdgeError(
                f"the training loss is {loss.item()} in epoch {epoch + 1}: training diverged.",
                next_step="train again with a lower --learning-rate",
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        optimizer.step()
        totals += len(chosen) * np.array([feature_loss.item(), rebuilt.commitment.item()])
    revived = 0
    if settings.revive_codes and epoch + 1 < REVIVE_UNTIL * settings.epochs:
        revived = revive_codes(model, features, category, settings.seed * 1_000_003 + epoch)
    means = totals / len(features)
    return EpochResult(epoch + 1, float(means[0]), float(means[1]), revived)


def rate_factor(settings: TrainingSettings, progress: float) -> float:
    """Return the learning rate's factor after ``progress`` epochs (a fraction counts)."""
    if settings.schedule == "step":
        return 1.0 if progress < 0.8 * settings.epochs else 0.1
    warm_up = min(1.0, progress + 0.05)
    return warm_up * (0.01 + 0.99 * (1 + math.cos(math.pi * progress / settings.epochs)) / 2)


def _save(
    path: Path, model: HVQTrans, optimizer: torch.optim.Optimizer, result: EpochResult
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "result": [result.epoch, result.feature_loss, result.commitment, result.revived],
    }
    with atomic_file(path) as temporary:
        torch.save(state, temporary)


def _resume(
    path: Path, model: HVQTrans, optimizer: torch.optim.Optimizer
) -> tuple[int, EpochResult]:
    state = load_tensors(path)
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        result = EpochResult(*state["result"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise RunError(
            f"{path} does not fit this run: {str(error).splitlines()[0]}",
            next_step=f"delete {path} and run the same command again to start over",
        ) from error
    return result.epoch, result
