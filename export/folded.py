"""The model rewritten for the graph: every step exact in real arithmetic, each tested.

What depends on weights alone is computed here, once: batch norms go into their convolutions, the
position embedding and the attention scale into the projections, the codebooks become tables that
the graph looks up with Gather. Only the classes here know how the graph is laid out.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hvq_edge.bundle import CategoryMode
from hvq_edge.errors import CheckpointError
from hvq_edge.model.backbone import Backbone, SamePadConv
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import HVQTrans, pool
from hvq_edge.model.transformer import Attention, DecoderLayer, EncoderLayer


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
    map_centre: Tensor  # [2, categories, tokens]
    map_scale: Tensor
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
        self.transport_weight = model.settings.transport_weight
        kept = slice(None) if category is None else slice(category, category + 1)

        self.backbone = fold_backbone(model.backbone)
        self.register_buffer("feature_scale", 1 / model.feature_std)
        self.register_buffer("feature_shift", -model.feature_mean / model.feature_std)
        self.input_projection = copy.deepcopy(model.input_projection)
        position = model.position().detach()
        wide = position.repeat(1, 2)
        self.encoder = nn.ModuleList(
            FoldedEncoderLayer(cast(EncoderLayer, layer), position) for layer in model.encoder
        )
        self.codebooks = nn.ModuleList(
            CodeTable(cast(Codebooks, books), kept, model.temperature if level == 0 else None)
            for level, books in enumerate(model.codebooks)
        )
        self.decoder = nn.ModuleList(
            FoldedDecoderLayer(cast(DecoderLayer, layer), wide) for layer in model.decoder
        )
        self.decoder_norm = copy.deepcopy(model.decoder_norm)
        weight = model.output_weight.detach()[kept].transpose(1, 2).contiguous()
        self.output = CategoryLinear(weight, model.output_bias.detach()[kept])
        self.register_buffer("map_centre", model.map_centre[:, kept].clone())
        weights = torch.tensor([1.0, self.transport_weight])[:, None, None]
        self.register_buffer("map_scale", weights / model.map_spread[:, kept])
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
        grid = (self.grid, self.grid)
        taps = [
            F.interpolate(tap, grid, mode="bilinear", align_corners=True)
            for tap in self.backbone(frames)
        ]
        features = torch.cat(taps, dim=1).flatten(2).transpose(1, 2)
        features = features * self.feature_scale + self.feature_shift
        if self.mode == "auto":
            category = self.classifier(pool(features)).argmax(1)
        elif category is not None:
            category = category.to(torch.int64)

        outputs = [self.input_projection(features)]
        for layer in self.encoder:
            outputs.append(layer(outputs[-1]))
        top_index, top_codes = self.codebooks[-1](outputs[-1], category)
        memories, indices = [], []
        for level, table in enumerate(self.codebooks[:-1]):
            tokens = torch.cat([outputs[level], top_codes], dim=2)
            index, codes = table(tokens, category)
            memories.append(codes)
            indices.append(index)
            if level == 0:
                transport = cast(CodeTable, table).transport(tokens, category)
        x = memories[-1]
        for layer, memory in zip(self.decoder, reversed(memories), strict=True):
            x = layer(x, memory)
        rebuilt = self.output(self.decoder_norm(x), category)

        distance = _sum((rebuilt - features).square()).sqrt()
        centre, scale = _own(self.map_centre, category, 1), _own(self.map_scale, category, 1)
        joined = (distance - centre[0]) * scale[0] + (transport - centre[1]) * scale[1]
        anomaly_map = joined.unflatten(1, grid)
        score = (self.score_window @ anomaly_map @ self.score_window.T).amax((1, 2))
        codes = torch.stack([*indices, top_index], dim=1).to(torch.int32)
        if self.mode == "auto":
            assert category is not None
            return score, anomaly_map, codes, category.to(torch.int32)
        return score, anomaly_map, codes


def _own(table: Tensor, category: Tensor | None, dim: int) -> Tensor:
    # A single category's table keeps its axis of length one and broadcasts over the batch.
    return table if category is None else table.index_select(dim, category)


def _sum(x: Tensor) -> Tensor:
    """Sum over the last axis as a product with ones, ``[b, l, c]`` -> ``[b, l]``.

    OpenVINO 2026.4 fuses what follows a ReduceSum into it and, with more than one picture in the
    batch, reads constants of one row wrong (scores off by 1.7); a MatMul it fuses right.
    """
    return (x @ x.new_ones(x.shape[2], 1))[..., 0]


def fold_backbone(backbone: Backbone) -> Backbone:
    """Return a copy with every batch norm folded into its convolution."""
    folded = copy.deepcopy(backbone)
    for module in folded.modules():
        if isinstance(module, SamePadConv):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
    return folded


class FoldedSelfAttention(nn.Module):
    """Queries, keys and values from one linear; position and scale folded into it.

    q = W(x + p) + b = Wx + (Wp + b): the position's share is a constant for each token.
    """

    position: Tensor  # [tokens, 3 * width]: biases with the position's share

    def __init__(self, attention: Attention, position: Tensor) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = (position.shape[1] // self.heads) ** -0.5
        query, key, value = attention.query, attention.key, attention.value
        self.weight = nn.Parameter(torch.cat([query.weight * scale, key.weight, value.weight]).T)
        shares = [query(position) * scale, key(position), value.bias.expand_as(position)]
        self.register_buffer("position", torch.cat(shares, dim=1).detach())
        self.out = copy.deepcopy(attention.out)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, l, w]`` -> ``[b, l, w]``."""
        q, k, v = (x @ self.weight + self.position).chunk(3, dim=2)
        return self.out(attend(q, k, v, self.heads))  # type: ignore[no-any-return]


class FoldedCrossAttention(nn.Module):
    """As :class:`FoldedSelfAttention`, with keys and values from the memory."""

    query_position: Tensor  # [tokens, width]
    memory_position: Tensor  # [tokens, 2 * width]

    def __init__(self, attention: Attention, position: Tensor) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = (position.shape[1] // self.heads) ** -0.5
        query, key, value = attention.query, attention.key, attention.value
        self.query_weight = nn.Parameter((query.weight * scale).T.contiguous())
        self.memory_weight = nn.Parameter(torch.cat([key.weight, value.weight]).T.contiguous())
        self.register_buffer("query_position", (query(position) * scale).detach())
        shares = [key(position), value.bias.expand_as(position)]
        self.register_buffer("memory_position", torch.cat(shares, dim=1).detach())
        self.out = copy.deepcopy(attention.out)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """``[b, l, w]`` and ``[b, l, w]`` -> ``[b, l, w]``."""
        q = x @ self.query_weight + self.query_position
        k, v = (memory @ self.memory_weight + self.memory_position).chunk(2, dim=2)
        return self.out(attend(q, k, v, self.heads))  # type: ignore[no-any-return]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of already scaled queries, ``[b, l, w]`` each -> ``[b, l, w]``."""
    q = q.unflatten(2, (heads, -1)).transpose(1, 2)
    k = k.unflatten(2, (heads, -1)).permute(0, 2, 3, 1)
    v = v.unflatten(2, (heads, -1)).transpose(1, 2)
    return (torch.softmax(q @ k, dim=-1) @ v).transpose(1, 2).flatten(2)


class FoldedEncoderLayer(nn.Module):
    """As :class:`EncoderLayer`, with the position folded in."""

    def __init__(self, layer: EncoderLayer, position: Tensor) -> None:
        super().__init__()
        self.self_attention = FoldedSelfAttention(layer.self_attention, position)
        self.feedforward = copy.deepcopy(layer.feedforward)
        self.norm1, self.norm2 = copy.deepcopy(layer.norm1), copy.deepcopy(layer.norm2)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, l, w]`` -> ``[b, l, w]``."""
        x = self.norm1(x + self.self_attention(x))
        return self.norm2(x + self.feedforward(x))  # type: ignore[no-any-return]


class FoldedDecoderLayer(nn.Module):
    """As :class:`DecoderLayer`, with the position folded in."""

    def __init__(self, layer: DecoderLayer, position: Tensor) -> None:
        super().__init__()
        self.self_attention = FoldedSelfAttention(layer.self_attention, position)
        self.cross_attention = FoldedCrossAttention(layer.cross_attention, position)
        self.feedforward = copy.deepcopy(layer.feedforward)
        self.norm1, self.norm2 = copy.deepcopy(layer.norm1), copy.deepcopy(layer.norm2)
        self.norm3 = copy.deepcopy(layer.norm3)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """``[b, l, w]`` and ``[b, l, w]`` -> ``[b, l, w]``."""
        x = self.norm1(x + self.self_attention(x))
        x = self.norm2(x + self.cross_attention(x, memory))
        return self.norm3(x + self.feedforward(x))  # type: ignore[no-any-return]


class CategoryLinear(nn.Module):
    """A linear whose weight belongs to the category, ``[categories, in, out]``."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias[:, None].contiguous())

    def forward(self, x: Tensor, category: Tensor | None) -> Tensor:
        """``[b, l, in]`` and int64 ``[b]`` (``None``: the only one) -> ``[b, l, out]``."""
        if category is None:
            return x @ self.weight[0] + self.bias[0]
        return x @ _own(self.weight, category, 0) + _own(self.bias, category, 0)


class CodeTable(nn.Module):
    """One level's codebooks as tables: nearest code by MatMul, Add, ArgMax; the code by Gather.

    argmin ‖z − e‖² = argmax (z − m)·(e − m) − ‖e − m‖²/2, with m the codebook's mean: taking it
    out keeps the numbers small, without which FP16 picks wrong codes.
    """

    mean: Tensor  # [categories, 1, width]
    centred: Tensor  # [categories, width, codes]
    bias: Tensor  # [categories, 1, codes]
    table: Tensor  # [categories * codes, width]

    def __init__(self, books: Codebooks, kept: slice, temperature: float | None) -> None:
        super().__init__()
        codes = books.codes[kept]
        mean = codes.mean(1, keepdim=True)
        centred = (codes - mean).transpose(1, 2).contiguous()
        self.codes = codes.shape[1]
        self.register_buffer("mean", mean)
        self.register_buffer("centred", centred)
        self.register_buffer("bias", -centred.square().sum(1, keepdim=True) / 2)
        self.register_buffer("table", codes.flatten(0, 1).clone())
        if temperature is not None:
            transposed = codes.transpose(1, 2).contiguous() / temperature
            self.register_buffer("dots", transposed)  # [categories, width, codes]
            inverse_norm = temperature / codes.norm(dim=2).clamp_min(1e-12)
            self.register_buffer("inverse_norm", inverse_norm[..., None])  # [categories, codes, 1]

    def forward(self, tokens: Tensor, category: Tensor | None) -> tuple[Tensor, Tensor]:
        """Look up.

        Args:
            tokens: ``[b, l, w]``.
            category: int64 ``[b]``; ``None``: the only one.

        Returns:
            int64 ``[b, l]`` indices and ``[b, l, w]`` codes.
        """
        if category is None:
            index = ((tokens - self.mean[0]) @ self.centred[0] + self.bias[0]).argmax(2)
            return index, F.embedding(index, self.table)
        tokens = tokens - _own(self.mean, category, 0)
        near = tokens @ _own(self.centred, category, 0) + _own(self.bias, category, 0)
        index = near.argmax(2)
        return index, F.embedding(index + category[:, None] * self.codes, self.table)

    def transport(self, tokens: Tensor, category: Tensor | None) -> Tensor:
        """Transport score (:func:`hvq_edge.model.codebook.transport_score`), ``[b, l]``.

        The token's own norm leaves the sum over codes: 1 − Σ softmax · cosine
        = 1 − (Σ softmax · dot / ‖e‖) / ‖z‖.
        """
        dots = self.get_buffer("dots")
        inverse_norm = self.get_buffer("inverse_norm")
        if category is None:
            scaled, inverse = tokens @ dots[0], inverse_norm[0]
        else:
            scaled = tokens @ _own(dots, category, 0)
            inverse = _own(inverse_norm, category, 0)
        weighted = ((torch.softmax(scaled, dim=2) * scaled) @ inverse)[..., 0]
        return 1 - weighted / _sum(tokens.square()).sqrt().clamp_min(1e-12)
