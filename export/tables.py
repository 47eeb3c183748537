"""What belongs to a category, as tables that the graph takes its part of with Gather."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.prototypes import FeaturePrototypes


def own_part(table: Tensor, category: Tensor | None) -> Tensor:
    """Take each picture's own part of a table; a single category's table is used as it is."""
    return table if category is None else table.index_select(0, category)


def row_squares(x: Tensor) -> Tensor:
    """Sum of squares over the last axis by a product with ones, ``[b, l, c]`` -> ``[b, l]``.

    OpenVINO 2026.4 fuses what follows a ReduceSum into it and, with more than one picture in the
    batch, reads constants of one row wrong (scores off by 1.7); a MatMul it fuses right.
    """
    return (x * x @ x.new_ones(x.shape[2], 1)).squeeze(2)


class CategoryLinear(nn.Module):
    """A linear whose weight belongs to the category.

    Args:
        weight: ``[categories, in, out]``, or ``[in, out]`` of a single category.
        bias: ``[categories, out]``, or ``[out]``.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias[..., None, :].contiguous())

    def forward(self, x: Tensor, category: Tensor | None) -> Tensor:
        """``[b, l, in]`` and int64 ``[b]`` (``None``: the only one) -> ``[b, l, out]``."""
        return x @ own_part(self.weight, category) + own_part(self.bias, category)


class CategoryMatrix(nn.Module):
    """A matrix that belongs to the category, without a bias: ``[categories, in, out]``."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor, category: Tensor | None) -> Tensor:
        """``[b, l, in]`` and int64 ``[b]`` (``None``: the only one) -> ``[b, l, out]``."""
        return x @ own_part(self.weight, category)


class PrototypeTable(nn.Module):
    """Distance to the nearest feature prototype (:mod:`hvq_edge.model.prototypes`).

    Args:
        prototypes: of all categories.
        kept: as for :class:`CodeTable`.
    """

    centres: Tensor  # [categories, channels, prototypes]
    bias: Tensor  # [categories, 1, prototypes]: minus half the squared length

    def __init__(self, prototypes: FeaturePrototypes, kept: slice | int) -> None:
        super().__init__()
        whitening = prototypes.whitening[kept].clone()
        self.whiten = CategoryLinear(whitening, prototypes.shift[kept].squeeze(-2).clone())
        centres = prototypes.centres[kept].transpose(-1, -2).contiguous()
        self.register_buffer("centres", centres)
        self.register_buffer("bias", -centres.square().sum(-2, keepdim=True) / 2)

    def forward(self, features: Tensor, category: Tensor | None) -> Tensor:
        """``[b, l, c]`` and int64 ``[b]`` (``None``: the only one) -> ``[b, l]``."""
        white = self.whiten(features, category)
        near = white @ own_part(self.centres, category) + own_part(self.bias, category)
        squares: Tensor = row_squares(white) - 2 * near.amax(2)
        return squares.clamp_min(0).sqrt()


class CodeTable(nn.Module):
    """One level's codebooks as tables: nearest code by MatMul, Add, ArgMax; the code by Gather.

    argmin ‖z − e‖² = argmax (z − m)·(e − m) − ‖e − m‖²/2, with m the codebook's mean: taking it
    out keeps the numbers small, without which FP16 picks wrong codes.

    Args:
        books: the level's codebooks.
        kept: all categories, or the index of the only one, whose tables lack the first axis.
    """

    mean: Tensor  # [categories, 1, width]
    centred: Tensor  # [categories, width, codes]
    bias: Tensor  # [categories, 1, codes]
    table: Tensor  # [categories * codes, width]

    def __init__(self, books: Codebooks, kept: slice | int) -> None:
        super().__init__()
        codes = books.codes[kept]
        mean = codes.mean(-2, keepdim=True)
        centred = (codes - mean).transpose(-1, -2).contiguous()
        self.codes = codes.shape[-2]
        self.register_buffer("mean", mean)
        self.register_buffer("centred", centred)
        self.register_buffer("bias", -centred.square().sum(-2, keepdim=True) / 2)
        self.register_buffer("table", codes.reshape(-1, codes.shape[-1]).clone())

    def forward(self, tokens: Tensor, category: Tensor | None) -> tuple[Tensor, Tensor]:
        """Look up.

        Args:
            tokens: ``[b, l, w]``.
            category: int64 ``[b]``; ``None``: the only one.

        Returns:
            int64 ``[b, l]`` indices and ``[b, l, w]`` codes.
        """
        centred = tokens - own_part(self.mean, category)
        near = centred @ own_part(self.centred, category) + own_part(self.bias, category)
        index = near.argmax(2)
        row = index if category is None else index + category[:, None] * self.codes
        return index, F.embedding(row, self.table)


class TransportTable(nn.Module):
    """The transport score (:func:`hvq_edge.model.codebook.transport_score`).

    A token's own norm leaves the sum over codes: 1 − Σ softmax · cosine
    = 1 − (Σ softmax · dot / ‖e‖) / ‖z‖.

    Args:
        books: of level 0.
        kept: as for :class:`CodeTable`.
        temperature: divisor of the dot products.
    """

    dots: Tensor  # [categories, width, codes], divided by the temperature
    inverse_norm: Tensor  # [categories, codes, 1], times the temperature

    def __init__(self, books: Codebooks, kept: slice | int, temperature: float) -> None:
        super().__init__()
        codes = books.codes[kept]
        self.register_buffer("dots", codes.transpose(-1, -2).contiguous() / temperature)
        inverse_norm = temperature / codes.norm(dim=-1).clamp_min(1e-12)
        self.register_buffer("inverse_norm", inverse_norm[..., None])

    def forward(self, tokens: Tensor, category: Tensor | None) -> Tensor:
        """``[b, l, w]`` and int64 ``[b]`` (``None``: the only one) -> ``[b, l]``."""
        scaled = tokens @ own_part(self.dots, category)
        weighted = torch.softmax(scaled, dim=2) * scaled
        weighted = (weighted @ own_part(self.inverse_norm, category)).squeeze(2)
        return 1 - weighted / row_squares(tokens).sqrt().clamp_min(1e-12)
