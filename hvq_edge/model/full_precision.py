"""What autocast must leave in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off where it is on; nothing else is entered, so that graphs stay as they are.

    Args:
        device: of the tensors within; they must be float32 already.
    """
    on = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()
