"""Which device PyTorch runs on, and what autocast must leave in float32 there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from hvq_edge.errors import MissingCapability


def choose_device(device: str) -> str:
    """Resolve ``auto`` to the fastest device that PyTorch can use here.

    Args:
        device: ``auto`` or a torch device.

    Raises:
        MissingCapability: a CUDA device was asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise MissingCapability(
            f"PyTorch {torch.__version__} finds no CUDA device.",
            next_step="use device cpu, or install NVIDIA's driver and a CUDA build of PyTorch",
        )
    return device


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off where it is on; nothing else is entered, so that graphs stay as they are.

    Args:
        device: of the tensors within; they must be float32 already.
    """
    on = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()
