"""What belongs to a category and is no map of codes: matrices, prototypes, the transport score."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvq_edge.export.fold.code_tables import own_part
from hvq_edge.export.fold.reductions import first_maximum, row_squares
from hvq_edge.model.category_classifier import CategoryClassifier, pool
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.prototypes import FeaturePrototypes, average_neighbours


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


class FoldedClassifier(nn.Module):
    """:class:`CategoryClassifier` in operations that every engine runs right."""

    whitening: Tensor
    centres: Tensor
    reach: Tensor

    def __init__(self, classifier: CategoryClassifier) -> None:
        super().__init__()
        for name in ("whitening", "centres", "reach"):
            self.register_buffer(name, getattr(classifier, name).clone())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``[b, l, c]``, standardised -> category int64 ``[b]``, margin ``[b]``."""
        white = pool(features) @ self.whitening
        near = -row_squares(white[:, None] - self.centres)[:, None]  # [b, 1, categories]
        distance = (-near).amin((1, 2)).sqrt()
        return first_maximum(near).squeeze(1), 1 - distance / self.reach


class PrototypeTable(nn.Module):
    """Distance to the nearest feature prototype (:mod:`hvq_edge.model.prototypes`).

    Args:
        prototypes: the prototypes of all categories.
        kept: as for :class:`hvq_edge.export.fold.code_tables.NearestCode`.
        scale, shift: ``[channels]``: standardise tokens that come raw; none: they are standardised.
    """

    centres: Tensor  # [categories, channels, prototypes]
    bias: Tensor  # [categories, 1, prototypes]: minus half the squared length

    def __init__(
        self,
        prototypes: FeaturePrototypes,
        kept: slice | int,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.window = prototypes.window
        whitening, bias = prototypes.whitening[kept].clone(), prototypes.shift[kept].squeeze(-2)
        if scale is not None and shift is not None:
            bias = bias + shift @ whitening
            whitening = scale[:, None] * whitening
        self.whiten = CategoryLinear(whitening, bias.clone())
        centres = prototypes.centres[kept].transpose(-1, -2).contiguous()
        self.register_buffer("centres", centres)
        self.register_buffer("bias", -centres.square().sum(-2, keepdim=True) / 2)

    def forward(self, features: Tensor, category: Tensor | None) -> Tensor:
        """``[b, l, c]`` and int64 ``[b]`` (``None``: the only one) -> ``[b, l]``."""
        white = self.whiten(average_neighbours(features, self.window), category)
        near = white @ own_part(self.centres, category) + own_part(self.bias, category)
        squares: Tensor = row_squares(white) - 2 * near.amax(2)
        return squares.clamp_min(0).sqrt()


class TransportTable(nn.Module):
    """The transport score (:func:`hvq_edge.model.transport.transport_score`).

    A token's own norm leaves the sum over codes: 1 − Σ softmax · cosine
    = 1 − (Σ softmax · dot / ‖e‖) / ‖z‖. The top code's share of the products and of ‖z‖² is looked
    up where its codebooks are given.

    Args:
        books: the codebooks of the level.
        kept: as for :class:`hvq_edge.export.fold.code_tables.NearestCode`.
        temperature: divisor of the dot products.
        top: the top level's codebooks where the tokens' second half is the top code and its share
            is to be looked up.
    """

    dots: Tensor  # [categories, width, codes], divided by the temperature
    inverse_norm: Tensor  # [categories, codes, 1], times the temperature
    share: Tensor  # [categories * codes of the top, codes]
    squares: Tensor  # [categories * codes of the top, 1]

    def __init__(
        self,
        books: Codebooks,
        kept: slice | int,
        temperature: float,
        top: Codebooks | None = None,
    ) -> None:
        super().__init__()
        codes = books.codes[kept]
        dots = codes.transpose(-1, -2) / temperature
        self.looks_up_share = top is not None
        if top is not None:
            top_codes = top.codes[kept]
            width = codes.shape[-1] - top_codes.shape[-1]
            self.register_buffer("share", (top_codes @ dots[..., width:, :]).flatten(0, -2))
            squares = top_codes.square().sum(-1, keepdim=True)
            self.register_buffer("squares", squares.flatten(0, -2))
            dots = dots[..., :width, :]
        self.register_buffer("dots", dots.contiguous())
        inverse_norm = temperature / codes.norm(dim=-1).clamp_min(1e-12)
        self.register_buffer("inverse_norm", inverse_norm[..., None])

    def forward(
        self, tokens: Tensor, category: Tensor | None, top_row: Tensor | None = None
    ) -> Tensor:
        """Take what :meth:`NearestCode.forward` takes -> ``[b, l]``."""
        scaled = tokens @ own_part(self.dots, category)
        squares = row_squares(tokens)
        if self.looks_up_share:
            assert top_row is not None
            scaled = scaled + F.embedding(top_row, self.share)
            squares = squares + F.embedding(top_row, self.squares).squeeze(2)
        weighted = torch.softmax(scaled, dim=2) * scaled
        weighted = (weighted @ own_part(self.inverse_norm, category)).squeeze(2)
        return 1 - weighted / squares.sqrt().clamp_min(1e-12)
