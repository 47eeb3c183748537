"""PaDiM with ResNet-18: the fastest graph of another method, to time ours beside.

Defard et al., "PaDiM" (ICPR 2020): features of three stages of a ResNet-18 (He et al., CVPR 2016)
brought to 56x56, a fixed choice of 100 channels, and each position's Mahalanobis distance, blurred.
The weights are random: only its time counts here. It serves one category.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 100
"""Chosen of the 448, as the paper does for ResNet-18."""


class Block(nn.Module):
    """Two 3x3 convolutions and a residual; batch norms are taken as folded."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels, 3, stride, 1)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)
        changes = stride != 1 or channels_in != channels
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[b, in, h, w]`` -> ``[b, out, h / stride, w / stride]``."""
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class Padim(nn.Module):
    """From uint8 frames to a map and a score."""

    chosen: Tensor
    centre: Tensor
    whitening: Tensor
    blur: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.stem = nn.Conv2d(3, 64, 7, 2, 3)
        self.stages = nn.ModuleList(
            nn.Sequential(Block(before, after, stride), Block(after, after, 1))
            for before, after, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2))
        )
        positions = (side // 4) ** 2
        self.register_buffer("chosen", torch.randperm(448)[:CHANNELS].sort().values)
        self.register_buffer("centre", torch.randn(positions, 1, CHANNELS))
        self.register_buffer("whitening", torch.randn(positions, CHANNELS, CHANNELS) / 10)
        line = torch.exp(-torch.linspace(-4, 4, 33).square() / 2)
        self.register_buffer("blur", (line / line.sum()).view(1, 1, 1, 33))
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 ``[b, side, side, 3]`` -> score ``[b]``, map ``[b, side, side]``."""
        x = (frames.float().permute(0, 3, 1, 2) - 120.0) / 58.0
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        taps = []
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        grid = self.side // 4
        taps = [taps[0], *(F.interpolate(tap, size=(grid, grid)) for tap in taps[1:])]
        tokens = torch.cat(taps, 1).index_select(1, self.chosen).flatten(2).permute(2, 0, 1)
        white = (tokens - self.centre) @ self.whitening  # [positions, b, channels]
        distance = white.square().sum(2).sqrt().T.unflatten(1, (grid, grid))[:, None]
        image = F.interpolate(distance, size=(self.side, self.side), mode="bilinear")
        image = F.conv2d(F.conv2d(image, self.blur, padding=(0, 16)), self.blur.mT, padding=(16, 0))
        return image.amax((1, 2, 3)), image[:, 0]
