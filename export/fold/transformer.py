"""The transformer's layers with position embedding and attention scale folded into the weights.

Queries, keys and values are linear in tokens plus position: W(x + p) + b = Wx + (Wp + b), and the
position's share is a constant for each token. Where the tokens are codes, Wx is a table as well
(:mod:`hvq_edge.export.fold.code_tables`).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from hvq_edge.export.fold.code_tables import MappedCodes
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.transformer import Attention, DecoderLayer, EncoderLayer

Mapping = tuple[Tensor, Tensor]
"""Weight ``[width, out]`` and the position's share ``[tokens, out]``; a plain bias ``[out]``."""


def query_mapping(attention: Attention, position: Tensor) -> Mapping:
    """Of queries, the attention's scale included."""
    scale = (position.shape[1] // attention.heads) ** -0.5
    query = attention.query
    return query.weight.T * scale, query(position) * scale


def key_mapping(attention: Attention, position: Tensor) -> Mapping:
    """Of keys."""
    return attention.key.weight.T, attention.key(position)


def value_mapping(attention: Attention) -> Mapping:
    """Of values, to which no position is added."""
    return attention.value.weight.T, attention.value.bias


class Computed(nn.Module):
    """Several linear maps of the same tokens as one product."""

    position: Tensor  # [tokens, parts * width]

    def __init__(self, *mappings: Mapping) -> None:
        super().__init__()
        self.parts = len(mappings)
        weights = [weight for weight, _ in mappings]
        tokens = max(len(share) if share.dim() == 2 else 1 for _, share in mappings)
        shares = [share.expand(tokens, -1) for _, share in mappings]
        self.weight = nn.Parameter(torch.cat(weights, dim=1).detach().contiguous())
        self.register_buffer("position", torch.cat(shares, dim=1).detach())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``[b, l, w]`` -> ``[b, l, w]`` for each mapping."""
        mapped = x @ self.weight + self.position
        return mapped.chunk(self.parts, dim=2) if self.parts > 1 else (mapped,)


class LookedUp(nn.Module):
    """Several linear maps of the same codes, each a table."""

    def __init__(self, books: Codebooks, kept: slice | int, *mappings: Mapping) -> None:
        super().__init__()
        self.parts = nn.ModuleList(MappedCodes(books, kept, *mapping) for mapping in mappings)

    def forward(self, row: Tensor) -> tuple[Tensor, ...]:
        """int64 ``[b, l]`` -> ``[b, l, w]`` for each mapping."""
        return tuple(part(row) for part in self.parts)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of already scaled queries, ``[b, l, w]`` each -> ``[b, l, w]``."""
    q = q.unflatten(2, (heads, -1)).transpose(1, 2)
    k = k.unflatten(2, (heads, -1)).permute(0, 2, 3, 1)
    v = v.unflatten(2, (heads, -1)).transpose(1, 2)
    return (torch.softmax(q @ k, dim=-1) @ v).transpose(1, 2).flatten(2)


class FoldedSelfAttention(nn.Module):
    """Queries, keys and values of the same tokens.

    Args:
        attention: the original.
        position: ``[tokens, width]``.
        books, kept: where the tokens are codes to be looked up.
    """

    def __init__(
        self,
        attention: Attention,
        position: Tensor,
        books: Codebooks | None = None,
        kept: slice | int = 0,
    ) -> None:
        super().__init__()
        mappings = (
            query_mapping(attention, position),
            key_mapping(attention, position),
            value_mapping(attention),
        )
        self.heads = attention.heads
        self.looks_up = books is not None
        self.query_key_value = (
            Computed(*mappings) if books is None else LookedUp(books, kept, *mappings)
        )
        self.out = copy.deepcopy(attention.out)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, l, w]``, or the codes' rows int64 ``[b, l]`` -> ``[b, l, w]``."""
        q, k, v = self.query_key_value(x)
        return self.out(attend(q, k, v, self.heads))  # type: ignore[no-any-return]


class FoldedCrossAttention(nn.Module):
    """Queries of tokens; keys and values of a level's codes.

    Args:
        attention: the original.
        position: ``[tokens, width]``.
        books, kept: where keys and values are to be looked up.
    """

    def __init__(
        self,
        attention: Attention,
        position: Tensor,
        books: Codebooks | None = None,
        kept: slice | int = 0,
    ) -> None:
        super().__init__()
        mappings = (key_mapping(attention, position), value_mapping(attention))
        self.heads = attention.heads
        self.looks_up = books is not None
        self.query = Computed(query_mapping(attention, position))
        self.key_value = Computed(*mappings) if books is None else LookedUp(books, kept, *mappings)
        self.out = copy.deepcopy(attention.out)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """``[b, l, w]`` and codes ``[b, l, w]`` or their rows int64 ``[b, l]`` -> ``[b, l, w]``."""
        (q,) = self.query(x)
        k, v = self.key_value(memory)
        return self.out(attend(q, k, v, self.heads))  # type: ignore[no-any-return]


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
    """As :class:`DecoderLayer`, with the position folded in.

    Args:
        layer: the original.
        position: ``[tokens, width]``.
        query_books: the level's codebooks where the layer's tokens are codes to be looked up.
        memory_books: likewise of its memory.
        kept: categories kept in the tables.
    """

    def __init__(
        self,
        layer: DecoderLayer,
        position: Tensor,
        query_books: Codebooks | None,
        memory_books: Codebooks | None,
        kept: slice | int,
    ) -> None:
        super().__init__()
        self.self_attention = FoldedSelfAttention(layer.self_attention, position, query_books, kept)
        self.cross_attention = FoldedCrossAttention(
            layer.cross_attention, position, memory_books, kept
        )
        self.feedforward = copy.deepcopy(layer.feedforward)
        self.norm1, self.norm2 = copy.deepcopy(layer.norm1), copy.deepcopy(layer.norm2)
        self.norm3 = copy.deepcopy(layer.norm3)

    def forward(self, x: Tensor, query_row: Tensor, memory: Tensor) -> Tensor:
        """Rebuild.

        Args:
            x: ``[b, l, w]``.
            query_row: int64 ``[b, l]``: rows of ``x`` in its codebooks, where it is looked up.
            memory: codes ``[b, l, w]`` or their rows int64 ``[b, l]``.

        Returns:
            ``[b, l, w]``.
        """
        source = query_row if self.self_attention.looks_up else x
        x = self.norm1(x + self.self_attention(source))
        x = self.norm2(x + self.cross_attention(x, memory))
        return self.norm3(x + self.feedforward(x))  # type: ignore[no-any-return]
