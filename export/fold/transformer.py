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

LinearMap = tuple[Tensor, Tensor]
"""Weight ``[width, out]`` and the position's share ``[tokens, out]``; a plain bias is ``[out]``."""


def query_map(attention: Attention, position: Tensor) -> LinearMap:
    """Return the linear map that gives queries, the attention's scale included."""
    scale = (position.shape[1] // attention.heads) ** -0.5
    query = attention.query
    return query.weight.T * scale, query(position) * scale


def key_map(attention: Attention, position: Tensor) -> LinearMap:
    """Return the linear map that gives keys."""
    return attention.key.weight.T, attention.key(position)


def value_map(attention: Attention) -> LinearMap:
    """Return the linear map that gives values, to which no position is added."""
    return attention.value.weight.T, attention.value.bias


def folded_maps(books: Codebooks | None, kept: slice | int, *maps: LinearMap) -> nn.Module:
    """Return linear maps of codes as tables, or of other tokens as one product.

    Args:
        books: the codebooks, where tokens are codes to be looked up; else ``None``.
        kept: as for :class:`hvq_edge.export.fold.code_tables.NearestCode`.
        maps: the linear maps.
    """
    return Computed(*maps) if books is None else LookedUp(books, kept, *maps)


class Computed(nn.Module):
    """Several linear maps of the same tokens as one product."""

    position: Tensor  # [tokens, parts * width]

    def __init__(self, *maps: LinearMap) -> None:
        super().__init__()
        self.parts = len(maps)
        weights = [weight for weight, _ in maps]
        tokens = max(len(share) if share.dim() == 2 else 1 for _, share in maps)
        shares = [share.expand(tokens, -1) for _, share in maps]
        self.weight = nn.Parameter(torch.cat(weights, dim=1).detach().contiguous())
        self.register_buffer("position", torch.cat(shares, dim=1).detach())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``[b, l, w]`` -> ``[b, l, w]`` for each map."""
        mapped = x @ self.weight + self.position
        return mapped.chunk(self.parts, dim=2) if self.parts > 1 else (mapped,)


class LookedUp(nn.Module):
    """Several linear maps of the same codes, each a table."""

    def __init__(self, books: Codebooks, kept: slice | int, *maps: LinearMap) -> None:
        super().__init__()
        self.parts = nn.ModuleList(MappedCodes(books, kept, *one) for one in maps)

    def forward(self, row: Tensor) -> tuple[Tensor, ...]:
        """int64 ``[b, l]`` -> ``[b, l, w]`` for each map."""
        return tuple(part(row) for part in self.parts)


class _FoldedAttention(nn.Module):
    """What self-attention and cross-attention share.

    Args:
        attention: the original.
        books: codebooks, where the tokens of keys and values are codes to be looked up.
    """

    def __init__(self, attention: Attention, books: Codebooks | None) -> None:
        super().__init__()
        self.heads = attention.heads
        self.looks_up = books is not None
        self.out = copy.deepcopy(attention.out)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend with already scaled queries, ``[b, l, w]`` each -> ``[b, l, w]``."""
        q = q.unflatten(2, (self.heads, -1)).transpose(1, 2)
        k = k.unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1)
        v = v.unflatten(2, (self.heads, -1)).transpose(1, 2)
        mixed = (torch.softmax(q @ k, dim=-1) @ v).transpose(1, 2).flatten(2)
        return self.out(mixed)  # type: ignore[no-any-return]


class FoldedSelfAttention(_FoldedAttention):
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
        super().__init__(attention, books)
        maps = (query_map(attention, position), key_map(attention, position), value_map(attention))
        self.query_key_value = folded_maps(books, kept, *maps)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, l, w]``, or the codes' rows int64 ``[b, l]`` -> ``[b, l, w]``."""
        return self.attend(*self.query_key_value(x))


class FoldedCrossAttention(_FoldedAttention):
    """Queries of tokens; keys and values of a level's codes.

    Args:
        attention: the original.
        position: ``[tokens, width]``.
        books, kept: where keys and values are to be looked up.
    """

    def __init__(
        self, attention: Attention, position: Tensor, books: Codebooks | None, kept: slice | int
    ) -> None:
        super().__init__(attention, books)
        self.query = Computed(query_map(attention, position))
        maps = (key_map(attention, position), value_map(attention))
        self.key_value = folded_maps(books, kept, *maps)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """``[b, l, w]`` and codes ``[b, l, w]`` or their rows int64 ``[b, l]`` -> ``[b, l, w]``."""
        return self.attend(*self.query(x), *self.key_value(memory))


class FoldedEncoderLayer(nn.Module):
    """:class:`EncoderLayer` with the position folded in."""

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
    """:class:`DecoderLayer` with the position folded in.

    Args:
        layer: the original.
        position: ``[tokens, width]``.
        query_books: the level's codebooks, where the layer's tokens are codes to be looked up.
        memory_books: the level's codebooks, where its memory is codes to be looked up.
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
