"""More than one process: what ``torchrun`` starts, joined into one training.

Every process holds the whole model and trains on its share of each batch; gradients are averaged by
DistributedDataParallel and the codebooks' statistics summed, so the result is that of one process
with the whole batch. The run's folder is on a disk that all of them see; only the first writes.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hvq_edge.common.wording import counted
from hvq_edge.errors import HvqEdgeError, MissingCapability

WAIT_AT_MOST = timedelta(days=1)
"""The others wait while the first runs the backbone over all images, or k-means: far longer than
PyTorch's ten minutes. Of a process that died torchrun learns by itself."""


def started_by_torchrun() -> bool:
    """Whether several processes were started to train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the other processes for the time of a training; alone, do nothing.

    Args:
        device: ``cpu`` or ``cuda``, as :func:`hvq_edge.model.device.choose_device` resolved it.

    Yields:
        The device of this process: of several GPUs its own.

    Raises:
        MissingCapability: more processes on this machine than GPUs.
    """
    if not started_by_torchrun():
        yield device
        return
    if device.startswith("cuda"):
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise MissingCapability(
                f"{local + 1} processes were started on a machine with "
                f"{counted(torch.cuda.device_count(), 'GPU')}.",
                next_step="start one process a GPU (torchrun --nproc-per-node), or add "
                "--device cpu",
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    own = not dist.is_initialized()
    if own:
        backend = "nccl" if device.startswith("cuda") else "gloo"
        dist.init_process_group(backend, timeout=WAIT_AT_MOST)
    try:
        yield device
    finally:
        if own:
            dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0; the first writes files and speaks."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def wait_for_all() -> None:
    """Wait until every process is here.

    Raises:
        HvqEdgeError: another process stopped.
    """
    if count() > 1:
        try:
            dist.barrier()
        except RuntimeError as error:
            raise HvqEdgeError(
                f"process {rank()} stops, because another process of this training did.",
                next_step="see what the other said",
            ) from error


def shared(module: nn.Module) -> nn.Module:
    """Return a module whose gradients are averaged over the processes; alone, itself.

    Its buffers are left to the module: the codebooks are moved by sums over all processes.
    """
    if count() == 1:
        return module
    known = inspect.signature(DistributedDataParallel).parameters
    # Newer PyTorch calls it forward_sync_buffers and warns of the other name.
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    keywords: dict[str, Any] = {name: False}
    return DistributedDataParallel(module, **keywords)


def from_first(value: str) -> str:
    """Return the first process's value in all of them."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def summed(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over the processes; alone, the tensor itself."""
    if count() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values
