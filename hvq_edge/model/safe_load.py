"""Loading checkpoint files without running what is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from hvq_edge.errors import CheckpointError


def load_tensors(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Load a dictionary of tensors and plain values; refuse anything that would run code.

    Args:
        path: file that ``torch.save`` wrote.
        mapped: leave the tensors in the file until they are used, for a look at a large file.

    Raises:
        CheckpointError: the file is missing, damaged, holds other objects, or is no dictionary.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if not _begins_as_saved(path):
            raise CheckpointError(
                f"{path} is no checkpoint: PyTorch did not write it.",
                next_step="name a checkpoint file (torch.save of a state dict)",
            ) from error
        raise CheckpointError(
            f"{path} holds more than tensors, so loading it could run somebody's code; it was not "
            "loaded.",
            next_step="use a checkpoint that holds tensors only (torch.save of a state dict)",
        ) from error
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no checkpoint at {path}.", next_step="check the path"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {first_line}",
            next_step="copy the file again; it may be cut short",
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary.")
    if not all(isinstance(name, str) for name in content):
        raise CheckpointError(
            f"{path} is no checkpoint: its entries have no names.",
            next_step="use a checkpoint that holds tensors by name (torch.save of a state dict)",
        )
    return content


def _begins_as_saved(path: Path) -> bool:
    """Tell whether a file begins as PyTorch's do: as a zip archive or as a pickle."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02")
