"""The backbone as the released code runs it: to its end, though only four taps are read.

Behind the last tap the released EfficientNet goes on: the blocks at stride 32, the head, the
pooling and the classifier of ImageNet, whose result nobody reads. And its SiLU is a sigmoid and a
product. Found by reading the repository RuiyingLu/HVQ-Trans, files
``models/backbones/efficientnet/model.py`` and ``utils.py``; written anew.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from math import ceil

import torch
from torch import Tensor, nn

from hvq_edge.model.backbone import (
    VARIANTS,
    Backbone,
    InvertedResidual,
    SamePadConv,
    Stage,
    scaled_channels,
    scaled_stages,
)
from hvq_edge.run.settings import BackboneName

BEHIND_THE_TAPS = (Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320))
"""Rows six and seven of the EfficientNet-B0 table, before scaling."""
HEAD_CHANNELS = 1280
CLASSES = 1000


class Swish(nn.Module):
    """SiLU in two steps."""

    def forward(self, x: Tensor) -> Tensor:
        """``[...]`` -> ``[...]``."""
        return x * torch.sigmoid(x)


class WholeBackbone(nn.Module):
    """Our backbone and, behind its last tap, what the released code computes for nothing.

    Args:
        backbone: copied; its taps are the ones returned.
        name: its variant.
        padding_side: as our backbone has it.

    The weights behind the last tap are random: they take the same time as trained ones.
    """

    def __init__(self, backbone: Backbone, name: BackboneName, padding_side: int) -> None:
        super().__init__()
        self.used = deepcopy(backbone)
        scaling = VARIANTS[name]
        lite = scaling.lite
        channels, side = scaled_stages(name)[-1].channels, ceil(padding_side / 16)
        rest: list[nn.Module] = []
        for row in BEHIND_THE_TAPS:
            wide = scaled_channels(row.channels, scaling.width)
            stage = replace(row, channels=wide)
            fixed = lite and row is BEHIND_THE_TAPS[-1]
            for repeat in range(row.repeats if fixed else ceil(row.repeats * scaling.depth)):
                stride = stage.stride if repeat == 0 else 1
                rest.append(InvertedResidual(channels, stage, stride, side, not lite))
                channels, side = wide, ceil(side / stride)
        wide = HEAD_CHANNELS if lite else scaled_channels(HEAD_CHANNELS, scaling.width)
        activation = nn.ReLU6() if lite else Swish()
        self.rest = nn.Sequential(
            *rest,
            SamePadConv(channels, wide, 1, 1, side, 1, activation),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(wide, CLASSES),
        )
        for module in list(self.modules()):
            for child, found in module.named_children():
                if isinstance(found, nn.SiLU):
                    setattr(module, child, Swish())
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> WholeBackbone:  # noqa: ARG002  # frozen statistics
        """Stay in eval mode whatever the rest of the model does."""
        return super().train(False)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """As :meth:`hvq_edge.model.backbone.Backbone.forward`."""
        taps: list[Tensor] = self.used(frames)
        self.rest(taps[-1])
        return taps
