"""HVQ-Trans as its authors run it: what our vectorised training replaces.

Same mathematics and weights as :class:`hvq_edge.model.HVQTrans`, in the form of the released code
(repository RuiyingLu/HVQ-Trans, ``models/HVQ_TR_switch_OT.py`` and ``models/transformer.py``):
the backbone runs to its end (:mod:`authors_backbone`), tokens in sequence-first order,
``nn.MultiheadAttention`` with averaged attention weights that nobody reads, one codebook module a
level and category, and a Python loop over the images of a batch at every level and at the output,
in which a codebook moves after each image. One-hot codes are made in eval mode too, and the
transport score takes its cosines from scikit-learn and its exponentials twice. Written anew;
``tests/benchmarks/test_authors_form.py`` holds it to numbers of the authors' network.
"""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple, cast

import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed.authors_backbone import WholeBackbone
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.transformer import Attention, DecoderLayer, EncoderLayer


class Rebuilt(NamedTuple):
    """What :meth:`AuthorsForm.rebuild` gives; tokens first, as everywhere in this form."""

    features: Tensor
    """``[tokens, batch, channels]``."""
    codes: Tensor
    """int64 ``[batch, levels, tokens]``."""
    transport: Tensor
    """``[batch, tokens]``: transport score of level 0; zeros while training."""
    commitment: Tensor
    """Scalar: commitment loss summed over levels, averaged over images."""


class Looked(NamedTuple):
    """One level's codes for every image of a batch."""

    codes: Tensor
    """``[tokens, batch, width]``, straight-through while training."""
    indices: Tensor
    """int64 ``[batch, tokens]``."""
    commitment: Tensor
    """Scalar: mean over the images."""


class OneCodebook(nn.Module):
    """The codebook of one level and one category, moved by each image that uses it.

    Counts and sums are products with a one-hot matrix, as in the usual VQ-VAE code.
    """

    codes: Tensor  # [n, w]
    usage: Tensor  # [n]
    sums: Tensor  # [n, w]

    def __init__(self, books: Codebooks, category: int) -> None:
        super().__init__()
        self.decay, self.epsilon = books.decay, books.epsilon
        for name in ("codes", "usage", "sums"):
            self.register_buffer(name, getattr(books, name)[category].clone())

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[tokens, width]`` -> codes ``[tokens, width]``, indices ``[tokens]``, commitment."""
        z = tokens.detach()
        distance = (
            z.square().sum(1, keepdim=True) - 2 * z @ self.codes.T + self.codes.square().sum(1)
        )
        index = distance.argmin(1)
        chosen = F.one_hot(index, len(self.codes)).to(z.dtype)  # [l, n]; for nothing in eval mode
        found = F.embedding(index, self.codes)
        if self.training:
            self._move(z, chosen)
        commitment = (found - tokens).square().mean()
        return tokens + (found - tokens).detach(), index, commitment

    @torch.no_grad()
    def _move(self, tokens: Tensor, chosen: Tensor) -> None:
        self.usage.mul_(self.decay).add_(chosen.sum(0), alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(chosen.T @ tokens, alpha=1 - self.decay)
        total = self.usage.sum()
        smoothed = (self.usage + self.epsilon) / (total + len(self.usage) * self.epsilon) * total
        self.codes.copy_(self.sums / smoothed[:, None])

    def transport(self, tokens: Tensor, temperature: float) -> Tensor:
        """Transport score of one image's tokens, ``[tokens, width]`` -> ``[tokens]``."""
        cosine = cosine_similarity(tokens.detach().cpu(), self.codes.cpu())
        cost = 1 - torch.as_tensor(cosine, dtype=tokens.dtype, device=tokens.device)
        mass = torch.exp(tokens @ self.codes.T / temperature)
        total = torch.exp(tokens @ self.codes.T / temperature).sum(1, keepdim=True)
        return (cost * mass / total).sum(1)


class LoopEncoderLayer(nn.Module):
    """Post-norm encoder layer on ``[tokens, batch, width]``."""

    def __init__(self, ours: EncoderLayer, dropout: float) -> None:
        super().__init__()
        self.attention = multihead(ours.self_attention, dropout)
        self.feedforward = feedforward(ours, dropout)
        self.norms = nn.ModuleList(deepcopy(norm) for norm in (ours.norm1, ours.norm2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``x [l, b, w]``, ``position [l, 1, w]`` -> ``[l, b, w]``."""
        q = x + position
        x = self.norms[0](x + self.dropout(self.attention(q, q, x)[0]))
        return self.norms[1](x + self.dropout(self.feedforward(x)))


class LoopDecoderLayer(nn.Module):
    """Post-norm decoder layer on ``[tokens, batch, width]``; the memory is a level's codes."""

    def __init__(self, ours: DecoderLayer, dropout: float) -> None:
        super().__init__()
        self.attention = multihead(ours.self_attention, dropout)
        self.cross = multihead(ours.cross_attention, dropout)
        self.feedforward = feedforward(ours, dropout)
        norms = (ours.norm1, ours.norm2, ours.norm3)
        self.norms = nn.ModuleList(deepcopy(norm) for norm in norms)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        """``x [l, b, w]``, ``memory [l, b, w]``, ``position [l, 1, w]`` -> ``[l, b, w]``."""
        attended = self.attention(x + position, x + position, x)[0]
        x = self.norms[0](x + self.dropout(attended))
        cross = self.cross(x + position, memory + position, memory)[0]
        x = self.norms[1](x + self.dropout(cross))
        return self.norms[2](x + self.dropout(self.feedforward(x)))


class AuthorsForm(nn.Module):
    """The network with a loop over images.

    Args:
        model: its weights are copied.
        dropout: in attention and residuals; 0.1 as published.
    """

    feature_mean: Tensor  # [channels, 1, 1]
    feature_std: Tensor

    def __init__(self, model: HVQTrans, dropout: float) -> None:
        super().__init__()
        self.grid = model.settings.grid
        self.temperature = model.temperature
        self.transport_weight = model.settings.transport_weight
        settings = model.settings
        self.backbone = WholeBackbone(
            model.backbone, settings.backbone, settings.padding_side or settings.input_side
        )
        self.position = deepcopy(model.position)
        self.register_buffer("feature_mean", model.feature_mean.view(-1, 1, 1).clone())
        self.register_buffer("feature_std", model.feature_std.view(-1, 1, 1).clone())
        channels, width = model.feature_mean.shape[0], model.settings.width
        self.input_projection = nn.Conv2d(channels, width, 1)
        self.encoder = nn.ModuleList(
            LoopEncoderLayer(cast("EncoderLayer", layer), dropout) for layer in model.encoder
        )
        self.codebooks = nn.ModuleList(
            nn.ModuleList(
                OneCodebook(cast("Codebooks", books), category)
                for category in range(model.categories)
            )
            for books in model.codebooks
        )
        self.decoder = nn.ModuleList(
            LoopDecoderLayer(cast("DecoderLayer", layer), dropout) for layer in model.decoder
        )
        self.decoder_norm = deepcopy(model.decoder_norm)
        self.output_projections = nn.ModuleList(
            nn.Linear(2 * width, channels) for _ in range(model.categories)
        )
        with torch.no_grad():
            self.input_projection.weight.copy_(model.input_projection.weight[..., None, None])
            cast("Tensor", self.input_projection.bias).copy_(model.input_projection.bias)
            for category, projection in enumerate(self.output_projections):
                linear = cast("nn.Linear", projection)
                linear.weight.copy_(model.output_weight[category])
                linear.bias.copy_(model.output_bias[category])
        self.to(model.feature_mean.device)

    def features(self, frames: Tensor) -> Tensor:
        """uint8 ``[batch, side, side, 3]`` RGB -> standardised ``[batch, channels, grid, grid]``.

        Called in every training step: the released code keeps no features.
        """
        with torch.no_grad():
            taps = [
                F.interpolate(tap, (self.grid, self.grid), mode="bilinear", align_corners=True)
                for tap in self.backbone(frames)
            ]
        return (torch.cat(taps, dim=1) - self.feature_mean) / self.feature_std

    def rebuild(self, features: Tensor, category: Tensor) -> Rebuilt:
        """Rebuild features from codes, one image after the other wherever codes are involved.

        Args:
            features: ``[batch, channels, grid, grid]``, standardised.
            category: int64 ``[batch]``.
        """
        categories = category.tolist()
        position = self.position()[:, None]  # [l, 1, w]
        outputs = [to_sequence(self.input_projection(features))]
        for layer in self.encoder:
            outputs.append(layer(outputs[-1], position))

        top = self._look_up(len(self.encoder), outputs[-1], categories)
        lower = []
        for level in range(len(self.encoder)):
            tokens = torch.cat([outputs[level], top.codes], dim=2)
            lower.append(self._look_up(level, tokens, categories))
            if level == 0:
                transport = torch.zeros(tokens.shape[1], tokens.shape[0], device=tokens.device)
            if level == 0 and not self.training:
                transport = torch.stack(
                    [
                        self._book(0, k).transport(tokens[:, i], self.temperature)
                        for i, k in enumerate(categories)
                    ]
                )

        position = position.repeat(1, 1, 2)
        x = lower[-1].codes
        for layer, memory in zip(self.decoder, reversed(lower), strict=True):
            x = layer(x, memory.codes, position)
        x = self.decoder_norm(x)
        rebuilt = [self.output_projections[k](x[:, i]) for i, k in enumerate(categories)]
        levels = [*lower, top]
        return Rebuilt(
            torch.stack(rebuilt, dim=1),
            torch.stack([level.indices for level in levels], dim=1),
            transport,
            torch.stack([level.commitment for level in levels]).sum(),
        )

    def loss(self, features: Tensor, category: Tensor, latent_weight: float) -> Tensor:
        """Feature MSE and weighted commitment, the training loss; arguments as for rebuild."""
        rebuilt = self.rebuild(features, category)
        feature_loss = F.mse_loss(rebuilt.features, to_sequence(features))
        return feature_loss + latent_weight * rebuilt.commitment

    def anomaly_map(self, features: Tensor, rebuilt: Rebuilt) -> Tensor:
        """Feature distance and weighted transport score as published, ``[batch, grid, grid]``."""
        distance = (rebuilt.features - to_sequence(features)).square().sum(2).sqrt()
        joined = distance.T + self.transport_weight * rebuilt.transport
        return joined.unflatten(1, (self.grid, self.grid))

    def _book(self, level: int, category: int) -> OneCodebook:
        books = cast("nn.ModuleList", self.codebooks[level])
        return cast("OneCodebook", books[category])

    def _look_up(self, level: int, tokens: Tensor, categories: list[int]) -> Looked:
        """Quantise ``[tokens, batch, width]``, each image by the codebook of its category."""
        found = [self._book(level, k)(tokens[:, i]) for i, k in enumerate(categories)]
        codes, indices, commitments = zip(*found, strict=True)
        return Looked(
            torch.stack(codes, dim=1), torch.stack(indices), torch.stack(commitments).mean()
        )


def to_sequence(image: Tensor) -> Tensor:
    """``[b, c, h, w]`` -> ``[h * w, b, c]``."""
    return image.flatten(2).permute(2, 0, 1)


@torch.no_grad()
def multihead(ours: Attention, dropout: float) -> nn.MultiheadAttention:
    """Return PyTorch's own attention layer with the weights of ours."""
    width = ours.out.in_features
    theirs = nn.MultiheadAttention(width, ours.heads, dropout=dropout)
    parts = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    return theirs


def feedforward(ours: EncoderLayer | DecoderLayer, dropout: float) -> nn.Sequential:
    """Return linear, ReLU, dropout, linear with the weights of ours."""
    first, second = ours.feedforward.linear1, ours.feedforward.linear2
    layers = nn.Sequential(
        nn.Linear(first.in_features, first.out_features),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(second.in_features, second.out_features),
    )
    layers[0].load_state_dict(first.state_dict())
    layers[3].load_state_dict(second.state_dict())
    return layers
