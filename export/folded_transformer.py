"""The transformer's layers with position embedding and attention scale folded into the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from hvq_edge.model.transformer import Attention, DecoderLayer, EncoderLayer


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
