"""Which device PyTorch runs on, and what autocast must leave in float32 there."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext

import torch

from hvq_edge.errors import MissingCapability, SettingsError


def choose_device(device: str) -> str:
    """Resolve ``auto`` to the fastest device that PyTorch can use here.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        MissingCapability: a CUDA device was asked for and there is none.
        SettingsError: no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    named = re.fullmatch(r"cpu|cuda(?::(0|[1-9][0-9]{0,3}))?", device)
    if named is None:
        raise SettingsError(
            f"device: there is no {device!r}.", next_step="use one of auto, cpu, cuda, cuda:1"
        )
    if device != "cpu" and not torch.cuda.is_available():
        raise MissingCapability(
            f"PyTorch {torch.__version__} finds no CUDA device.",
            next_step="use device cpu, or install NVIDIA's driver and a CUDA build of PyTorch",
        )
    if named[1] and int(named[1]) >= torch.cuda.device_count():
        raise SettingsError(
            f"device: there is no {device}, as GPUs are counted from 0 and PyTorch finds "
            f"{torch.cuda.device_count()}.",
            next_step="name another with --device, or leave it out",
        )
    return device


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off where it is on; nothing else is entered, so that graphs stay as they are.

    Args:
        device: of the tensors within; they must be float32 already.
    """
    on = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()
