"""The transformer's parts: attention, position embedding, encoder and decoder layers.

All post-norm, batch first, tokens ``[batch, tokens, width]``; DETR's layers as HVQ-Trans uses them
(positions are added to queries and keys, never to values).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvq_edge.model.device import full_precision


class Attention(nn.Module):
    """Multi-head attention through ``scaled_dot_product_attention``.

    Args:
        width: channels of a token.
        heads: attention heads; divides ``width``.
        dropout: on the attention weights, while training. With 196 tokens it costs 40 % of a CPU
            step, so only the ``paper`` preset uses it.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        for linear in (self.query, self.key, self.value):
            # As nn.MultiheadAttention: Xavier over the three stacked together.
            bound = (6 / (4 * width)) ** 0.5
            nn.init.uniform_(linear.weight, -bound, bound)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """``[b, l, w]``, ``[b, m, w]``, ``[b, m, w]`` -> ``[b, l, w]``."""
        q = self._split(self.query(query))
        k = self._split(self.key(key))
        v = self._split(self.value(value))
        mixed = _attend(q, k, v, self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        # [b, l, w] -> [b, heads, l, w / heads]
        split: Tensor = x.unflatten(2, (self.heads, -1))
        return split.transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # bfloat16 halves the time of linears there, but the backward pass of attention takes twice
        # as long in it (AVX512_BF16, PyTorch 2.13).
        query, key, value = query.float(), key.float(), value.float()
        with full_precision(query.device):
            return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


class PositionEmbedding(nn.Module):
    """Learned row and column embeddings, half the width each: column first, as released."""

    def __init__(self, grid: int, width: int) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.rand(grid, width // 2))
        self.column = nn.Parameter(torch.rand(grid, width // 2))

    def forward(self) -> Tensor:
        """Return ``[grid * grid, width]``, row-major."""
        grid = self.row.shape[0]
        column = self.column[None].expand(grid, -1, -1)
        row = self.row[:, None].expand(-1, grid, -1)
        return torch.cat([column, row], dim=-1).flatten(0, 1)


class FeedForward(nn.Module):
    """Two linears with a ReLU between them."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, l, w]`` -> ``[b, l, w]``."""
        return self.linear2(self.dropout(F.relu(self.linear1(x))))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by residual and norm."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.feedforward = FeedForward(width, feedforward, dropout)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``x [b, l, w]``, ``position [l, w]`` -> ``[b, l, w]``."""
        q = x + position
        x = self.norm1(x + self.dropout(self.self_attention(q, q, x)))
        return self.norm2(x + self.dropout(self.feedforward(x)))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to one level's codes, feed-forward."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.cross_attention = Attention(width, heads, dropout)
        self.feedforward = FeedForward(width, feedforward, dropout)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        """``x [b, l, w]``, ``memory [b, l, w]`` (codes), ``position [l, w]`` -> ``[b, l, w]``."""
        q = x + position
        x = self.norm1(x + self.dropout(self.self_attention(q, q, x)))
        cross = self.cross_attention(x + position, memory + position, memory)
        x = self.norm2(x + self.dropout(cross))
        return self.norm3(x + self.dropout(self.feedforward(x)))  # type: ignore[no-any-return]
