"""``training_state.pt``: what a training that was stopped goes on from."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor

from hvq_edge.common.atomic import atomic_file
from hvq_edge.errors import RunError
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.safe_load import load_tensors

STATE_NAME = "training_state.pt"


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave."""

    epoch: int
    """Counted from one."""
    feature_loss: float
    """Mean squared error of the standardised features, over the images learnt from."""
    commitment: float
    held_out_loss: float
    """The same error over the held-out images."""
    revived: int
    """Codes that got a new place."""
    images_per_second: float
    transport: float = 0.0
    """Transport losses with their weights; 0 where none is learnt from."""


@dataclass(frozen=True)
class Best:
    """The epoch with the smallest held-out loss, and its weights."""

    result: EpochResult
    weights: dict[str, Tensor]
    """The state dict without the frozen backbone."""

    @classmethod
    def of(cls, model: HVQTrans, result: EpochResult) -> Best:
        """Keep a copy of the model as it is."""
        weights = {
            name: value.detach().clone()
            for name, value in model.state_dict().items()
            if not name.startswith("backbone.")
        }
        return cls(result, weights)

    def restore(self, model: HVQTrans) -> None:
        """Bring the model back to these weights."""
        model.load_state_dict(self.weights, strict=False)


def save_state(
    path: Path,
    model: HVQTrans,
    optimizer: torch.optim.Optimizer,
    result: EpochResult,
    best: Best,
) -> None:
    """Write the state atomically.

    Raises:
        OutputError: it cannot be written.
    """
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "result": list(astuple(result)),
        "best_result": list(astuple(best.result)),
    }
    if best.result != result:  # else the best weights are the model's own
        state["best_weights"] = best.weights
    with atomic_file(path) as temporary:
        torch.save(state, temporary)


def load_state(
    path: Path, model: HVQTrans, optimizer: torch.optim.Optimizer
) -> tuple[EpochResult, Best]:
    """Bring model and optimiser to a saved state.

    Returns:
        The last epoch's result and the best.

    Raises:
        CheckpointError: the file is damaged.
        RunError: it is of other settings or another version.
    """
    state = load_tensors(path)
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        result = EpochResult(*state["result"])
        best = Best.of(model, EpochResult(*state["best_result"]))
        if "best_weights" in state:
            best = Best(best.result, state["best_weights"])
    except (AttributeError, LookupError, RuntimeError, ValueError, TypeError) as error:
        why = str(error).splitlines() or [type(error).__name__]
        raise RunError(
            f"{path} does not fit this run: {why[0]}",
            next_step=f"delete {path} and run the same command again to start over",
        ) from error
    return result, best
