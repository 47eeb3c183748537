"""EfficientNet B0–B4 and Lite0–Lite4 up to the stride-16 tap, frozen.

Tan & Le, "EfficientNet" (ICML 2019), tables 1 and 2; the Lite variants drop squeeze-and-excitation,
use ReLU6 and keep stem and the first stage's depth unscaled (TensorFlow's
``efficientnet_lite_builder.py``), which is what makes them fit for INT8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvq_edge.run.settings import BackboneName


@dataclass(frozen=True)
class Stage:
    """One row of the EfficientNet-B0 table (before scaling)."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


@dataclass(frozen=True)
class Scaling:
    """How a variant scales the table, and what its weights were trained with."""

    width: float
    depth: float
    lite: bool
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    """In units of 0..1."""


# Stages six and seven (stride 32) are left out: nothing after the last tap is computed.
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
)
TAPPED_STAGES = (0, 1, 2, 4)
"""Stages whose last block is tapped: strides 2, 4, 8 and 16."""
FINE_TAP = 2
"""The tap of stride 8: its grid is twice as fine as that of the tokens."""
STEM_CHANNELS = 32
NORM_EPSILON = 1e-3

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)
VARIANTS: dict[BackboneName, Scaling] = {
    "efficientnet_b0": Scaling(1.0, 1.0, False, *_IMAGENET),
    "efficientnet_b1": Scaling(1.0, 1.1, False, *_IMAGENET),
    "efficientnet_b2": Scaling(1.1, 1.2, False, *_IMAGENET),
    "efficientnet_b3": Scaling(1.2, 1.4, False, *_IMAGENET),
    "efficientnet_b4": Scaling(1.4, 1.8, False, *_IMAGENET),
    "efficientnet_lite0": Scaling(1.0, 1.0, True, *_LITE),
    "efficientnet_lite1": Scaling(1.0, 1.1, True, *_LITE),
    "efficientnet_lite2": Scaling(1.1, 1.2, True, *_LITE),
    "efficientnet_lite3": Scaling(1.2, 1.4, True, *_LITE),
    "efficientnet_lite4": Scaling(1.4, 1.8, True, *_LITE),
}


def scaled_channels(channels: int, width: float) -> int:
    """Scale a channel count to the nearest multiple of 8, never below 90 % of the exact value."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def scaled_stages(name: BackboneName) -> tuple[Stage, ...]:
    """Return the stages of a variant with its own channels and repeats."""
    scaling = VARIANTS[name]
    return tuple(
        Stage(
            stage.repeats if scaling.lite and i == 0 else math.ceil(stage.repeats * scaling.depth),
            stage.kernel,
            stage.stride,
            stage.expansion,
            scaled_channels(stage.channels, scaling.width),
        )
        for i, stage in enumerate(STAGES)
    )


def tap_channels(name: BackboneName) -> tuple[int, ...]:
    """Return the channels of the four taps; their sum is the width of a feature token."""
    stages = scaled_stages(name)
    return tuple(stages[i].channels for i in TAPPED_STAGES)


class SamePadConv(nn.Module):
    """Convolution, batch norm and activation, padded as TensorFlow's ``SAME`` does.

    With an even input and stride 2 the padding is one-sided (0 before, 1 after), which is why
    ``nn.Conv2d``'s symmetric padding does not reproduce the published weights.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        side: int,
        groups: int,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        self.padding = (total // 2, total - total // 2)  # before, after
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, eps=NORM_EPSILON)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``[b, in, h, w]`` -> ``[b, out, ceil(h / stride), ceil(w / stride)]``."""
        if self.padding != (0, 0):
            x = F.pad(x, self.padding * 2)
        return self.activation(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """Channel weights from the image's own mean (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, c, h, w]`` -> ``[b, c, h, w]``."""
        pooled = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(F.silu(self.reduce(pooled))))


class InvertedResidual(nn.Module):
    """MBConv: expand, depthwise, squeeze-and-excite (not in Lite), project, residual."""

    def __init__(
        self, channels_in: int, stage: Stage, stride: int, side: int, squeeze: bool
    ) -> None:
        super().__init__()
        activation = nn.SiLU() if squeeze else nn.ReLU6()
        inner = channels_in * stage.expansion
        self.expand = (
            SamePadConv(channels_in, inner, 1, 1, side, 1, activation)
            if stage.expansion != 1
            else nn.Identity()
        )
        self.depthwise = SamePadConv(inner, inner, stage.kernel, stride, side, inner, activation)
        self.squeeze = SqueezeExcite(inner, max(1, channels_in // 4)) if squeeze else nn.Identity()
        self.project = SamePadConv(inner, stage.channels, 1, 1, side, 1, nn.Identity())
        self.residual = stride == 1 and channels_in == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """``[b, in, h, w]`` -> ``[b, out, h / stride, w / stride]``."""
        y: Tensor = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class Backbone(nn.Module):
    """The frozen feature extractor: always in eval mode, without gradients.

    Args:
        name: variant.
        padding_side: input side for which ``SAME`` padding is computed, in pixels. The weights'
            own framework pads for the actual input; the released HVQ-Trans pads for 380 px.
    """

    pixel_mean: Tensor  # [1, 3, 1, 1], in 0..255
    pixel_std: Tensor

    def __init__(self, name: BackboneName, padding_side: int) -> None:
        super().__init__()
        scaling = VARIANTS[name]
        stages = scaled_stages(name)
        activation = nn.ReLU6() if scaling.lite else nn.SiLU()
        channels = STEM_CHANNELS if scaling.lite else scaled_channels(STEM_CHANNELS, scaling.width)
        side = padding_side
        self.stem = SamePadConv(3, channels, 3, 2, side, 1, activation)
        side = math.ceil(side / 2)
        blocks: list[InvertedResidual] = []
        self.taps: list[int] = []
        for i, stage in enumerate(stages):
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(InvertedResidual(channels, stage, stride, side, not scaling.lite))
                channels = stage.channels
                side = math.ceil(side / stride)
            if i in TAPPED_STAGES:
                self.taps.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        for buffer, value in (("pixel_mean", scaling.pixel_mean), ("pixel_std", scaling.pixel_std)):
            tensor = 255 * torch.tensor(value).view(1, 3, 1, 1)
            self.register_buffer(buffer, tensor, persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002  # frozen statistics
        """Stay in eval mode whatever the rest of the model does."""
        return super().train(False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Extract the four taps.

        Args:
            frames: uint8 (or float 0..255) ``[batch, side, side, 3]``, RGB.

        Returns:
            float32 ``[batch, channels, side / s, side / s]`` for s = 2, 4, 8, 16.
        """
        # Cast before the transpose: TensorRT has no uint8 transpose.
        x = frames.to(self.pixel_mean.dtype).permute(0, 3, 1, 2)
        x = self.stem((x - self.pixel_mean) / self.pixel_std)
        taps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                taps.append(x)
        return taps
