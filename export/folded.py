"""The model rewritten for the graph: every step exact in real arithmetic, each tested.

What depends on weights alone is computed here, once: batch norms go into their convolutions, the
position embedding and the attention scale into the projections, the codebooks become tables that
the graph looks up with Gather.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hvq_edge.bundle import CategoryMode
from hvq_edge.errors import CheckpointError
from hvq_edge.export.folded_transformer import FoldedDecoderLayer, FoldedEncoderLayer
from hvq_edge.export.tables import (
    CategoryLinear,
    CategoryMatrix,
    CodeTable,
    PrototypeTable,
    TransportTable,
    own_part,
    row_squares,
)
from hvq_edge.model.backbone import Backbone, SamePadConv
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import NORM_EPSILON, HVQTrans, picture_level, pool, resize_tap
from hvq_edge.model.transformer import DecoderLayer, EncoderLayer


class FoldedHVQTrans(nn.Module):
    """The exported form of :class:`HVQTrans`.

    Args:
        model: in eval mode; not changed.
        mode: ``one`` folds a single category's tables in, ``input`` takes the category as an
            input, ``auto`` lets the graph choose it.
        category: index of the single category; with mode ``one`` only.

    Raises:
        CheckpointError: mode ``auto`` and the model has no classifier.
    """

    feature_scale: Tensor  # [channels]
    feature_shift: Tensor
    map_scale: Tensor  # [categories, parts in use, tokens]; one category: no first axis
    map_shift: Tensor  # [categories, tokens]
    score_window: Tensor

    def __init__(self, model: HVQTrans, mode: CategoryMode, category: int | None = None) -> None:
        super().__init__()
        if mode == "auto" and not model.classifier_fitted:
            raise CheckpointError(
                "this model cannot choose the category itself: it was not trained by hvq-edge.",
                next_step="export with --category NAME, or --category input",
            )
        self.mode = mode
        self.grid = model.settings.grid
        self.tap_resize = model.settings.tap_resize
        self.normalise_tokens = model.settings.normalise_tokens
        self.subtracts_level = model.settings.picture_level == "subtracted"
        kept = slice(None) if category is None else category

        self.backbone = fold_backbone(model.backbone)
        self.register_buffer("feature_scale", 1 / model.feature_std)
        self.register_buffer("feature_shift", -model.feature_mean / model.feature_std)
        self.input_projection = copy.deepcopy(model.input_projection)
        position = model.position().detach()
        wide = position.repeat(1, 2)
        self.encoder = nn.ModuleList(
            FoldedEncoderLayer(cast(EncoderLayer, layer), position) for layer in model.encoder
        )
        levels = cast("list[Codebooks]", list(model.codebooks))
        self.codebooks = nn.ModuleList(CodeTable(books, kept) for books in levels)
        self.transport = (
            TransportTable(levels[0], kept, model.temperature)
            if model.settings.transport_weight
            else None
        )
        self.prototypes = PrototypeTable(model.prototypes, kept) if model.prototypes else None
        self.whitening = (
            CategoryMatrix(model.residual_whitening[kept].clone())
            if model.settings.whiten_distance
            else None
        )
        self.decoder = nn.ModuleList(
            FoldedDecoderLayer(cast(DecoderLayer, layer), wide) for layer in model.decoder
        )
        self.decoder_norm = copy.deepcopy(model.decoder_norm)
        weight = model.output_weight.detach()[kept].transpose(-1, -2).contiguous()
        self.output = CategoryLinear(weight, model.output_bias.detach()[kept])
        weights = model.map_spread.new_tensor(model.part_weights)[:, None, None]
        scale = weights / model.map_spread  # [3, categories, tokens]
        in_use = [True, self.transport is not None, self.prototypes is not None]
        self.register_buffer("map_scale", scale[in_use].transpose(0, 1)[kept].contiguous())
        self.register_buffer("map_shift", -(scale * model.map_centre).sum(0)[kept])
        self.register_buffer("score_window", model.score_window.clone())
        if mode == "auto":
            channels = model.feature_mean.shape[0]
            self.classifier = nn.Linear(2 * channels, model.categories)
            self.classifier.weight.data.copy_(model.classifier_weight)
            self.classifier.bias.data.copy_(model.classifier_bias)
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor, category: Tensor | None = None) -> tuple[Tensor, ...]:
        """Judge frames.

        Args:
            frames: uint8 ``[batch, side, side, 3]``, RGB.
            category: int32 ``[batch]``; with mode ``input`` only.

        Returns:
            ``score`` ``[batch]``, ``map`` ``[batch, grid, grid]``, ``codes`` int32
            ``[batch, levels, tokens]``, and with mode ``auto`` ``category`` int32 ``[batch]``.
        """
        taps = [resize_tap(tap, self.grid, self.tap_resize) for tap in self.backbone(frames)]
        features = torch.cat(taps, dim=1).flatten(2).transpose(1, 2)
        features = features * self.feature_scale + self.feature_shift
        if self.mode == "auto":
            category = self.classifier(pool(features)).argmax(1)
        elif category is not None:
            category = category.to(torch.int64)
        if self.normalise_tokens:
            squares = row_squares(features)[..., None]
            features = features * (features.shape[2] ** 0.5 / (squares + NORM_EPSILON).sqrt())

        outputs = [self.input_projection(features)]
        for layer in self.encoder:
            outputs.append(layer(outputs[-1]))
        *lower, top = self.codebooks
        top_index, top_codes = top(outputs[-1], category)
        memories, indices = [], []
        for level, table in enumerate(lower):
            tokens = torch.cat([outputs[level], top_codes], dim=2)
            index, codes = table(tokens, category)
            memories.append(codes)
            indices.append(index)
            if level == 0 and self.transport is not None:
                transport = self.transport(tokens, category)
        x = memories[-1]
        for layer, memory in zip(self.decoder, reversed(memories), strict=True):
            x = layer(x, memory)
        rebuilt = self.output(self.decoder_norm(x), category)

        residual = rebuilt - features
        if self.whitening is not None:
            residual = self.whitening(residual, category)
        parts = [row_squares(residual).sqrt()]
        if self.transport is not None:
            parts.append(transport)
        if self.prototypes is not None:
            parts.append(self.prototypes(features, category))
        scale = own_part(self.map_scale, category)
        joined = own_part(self.map_shift, category)
        for i, part in enumerate(parts):
            joined = joined + part * scale[..., i, :]
        if self.subtracts_level:
            joined = joined - picture_level(joined)
        anomaly_map = joined.unflatten(1, (self.grid, self.grid))
        score = (self.score_window @ anomaly_map @ self.score_window.T).amax((1, 2))
        codes = torch.stack([*indices, top_index], dim=1).to(torch.int32)
        if self.mode == "auto":
            assert category is not None
            return score, anomaly_map, codes, category.to(torch.int32)
        return score, anomaly_map, codes


def fold_backbone(backbone: Backbone) -> Backbone:
    """Return a copy with every batch norm folded into its convolution."""
    folded = copy.deepcopy(backbone)
    for module in folded.modules():
        if isinstance(module, SamePadConv):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
    return folded
