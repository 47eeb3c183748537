"""A larger backbone as teacher of the smaller one, on the product's own good images.

The student's blocks of its last stride are trained to tell, through a 1x1 projection that is thrown
away afterwards, what the teacher's four taps show at the student's grid. What comes before them and
all statistics of batch norm stay as they are, so the lower taps do not change, nor does the cost.
``python -m benchmarks.accuracy.ablations DATA --teacher efficientnet_lite2`` trains the rows on
such features; nothing of it is in the product (docs/explanation/tried.md has what it gave).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.model.backbone import Backbone
from hvq_edge.run.settings import BackboneName

BATCH = 16
EPOCHS = 5
LEARNING_RATE = 3e-4


class Teacher(NamedTuple):
    """Whose features are told."""

    backbone: BackboneName
    side: int
    """Of its input, in pixels."""

    @property
    def name(self) -> str:
        """For files."""
        return f"taught-by-{self.backbone}-{self.side}"


def first_taught(backbone: Backbone) -> int:
    """The first block of the last tap's stride: those before it feed the other taps as well."""
    return backbone.taps[-2] + 1


@torch.no_grad()
def before_taught(backbone: Backbone, frames: NDArray[np.uint8]) -> Tensor:
    """What the taught blocks read, ``[batch, channels, side, side]``."""
    x = torch.from_numpy(frames).to(backbone.pixel_mean.device).permute(0, 3, 1, 2).float()
    x = backbone.stem((x - backbone.pixel_mean) / backbone.pixel_std)
    for block in backbone.blocks[: first_taught(backbone)]:
        x = block(x)
    return x


def distil(
    backbone: Backbone,
    frames: Iterable[NDArray[np.uint8]],
    told: NDArray[np.float16],
    epochs: int = EPOCHS,
    seed: int = 0,
    on_progress: ProgressCallback = silent,
) -> list[float]:
    """Train the last blocks of a backbone in place.

    Args:
        backbone: the student.
        frames: batches of uint8 ``[batch, side, side, 3]``, in the order of ``told``.
        told: the teacher's raw features of the same images, ``[images, tokens, channels]``.
        epochs: passes over the images.
        seed: of their order and the projection.
        on_progress: told after each epoch.

    Returns:
        The share of the teacher's variance that is left untold, by epoch.
    """
    read = torch.cat([before_taught(backbone, batch).half() for batch in frames])
    taught = nn.Sequential(*backbone.blocks[first_taught(backbone) :])
    with torch.no_grad():
        grid = taught(read[:1].float()).shape[-1]
    target = torch.cat([_to_grid(told[i : i + 64], grid) for i in range(0, len(told), 64)])
    std, mean = torch.std_mean(target.float(), dim=(0, 2, 3), keepdim=True)
    torch.manual_seed(seed)
    channels = int(cast("Any", backbone.blocks[-1]).project.conv.out_channels)
    projection = nn.Sequential(
        nn.BatchNorm2d(channels, affine=False), nn.Conv2d(channels, told.shape[2], 1)
    ).to(read.device)
    weights = [conv.weight for conv in taught.modules() if isinstance(conv, nn.Conv2d)]
    trained = [*weights, *projection.parameters()]
    steps = epochs * -(-len(read) // BATCH)
    optimiser = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    order = np.random.default_rng(seed)
    left: list[float] = []
    for weight in weights:
        weight.requires_grad_(True)
    for epoch in range(epochs):
        losses = []
        drawn = order.permutation(len(read))
        for start in range(0, len(read), BATCH):
            batch = np.sort(drawn[start : start + BATCH])
            wanted = ((target[batch].float() - mean) / (std + 1e-3)).to(read.device)
            loss = F.mse_loss(projection(taught(read[batch].float())), wanted)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        left.append(float(np.mean(losses)))
        on_progress("distilling", epoch + 1, epochs, f"{left[-1]:.4f} untold")
    backbone.requires_grad_(False)
    return left


def _to_grid(told: NDArray[np.float16], grid: int) -> Tensor:
    """``[images, tokens, channels]`` -> float16 ``[images, channels, grid, grid]``."""
    own = round(told.shape[1] ** 0.5)
    features = torch.from_numpy(np.asarray(told, np.float32)).transpose(1, 2)
    return F.adaptive_avg_pool2d(features.unflatten(2, (own, own)), grid).half()
