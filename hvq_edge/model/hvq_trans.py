"""HVQ-Trans: the whole network.

Lu et al., "Hierarchical Vector Quantized Transformer for Multi-class Unsupervised Anomaly
Detection" (NeurIPS 2023):

frames → backbone features → encoder → codes at every level → decoder → rebuilt features; what
cannot be rebuilt from a category's prototypes is anomalous.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hvq_edge.errors import CheckpointError
from hvq_edge.model.backbone import FINE_TAP, Backbone, tap_channels
from hvq_edge.model.category_classifier import CategoryClassifier, Choice
from hvq_edge.model.codebook import Codebooks, Quantised
from hvq_edge.model.image_score import POOLING_SIDE, image_level, score_window
from hvq_edge.model.prototypes import FeaturePrototypes, largest_of_four
from hvq_edge.model.tiles import Tiles
from hvq_edge.model.transformer import DecoderLayer, EncoderLayer, PositionEmbedding
from hvq_edge.model.transport import transport_score
from hvq_edge.run.settings import LARGEST_LEVEL, CodebookLearning, ModelSettings
from hvq_edge.run.tiling import GRID_STRIDE

NORM_EPSILON = 1e-6
"""Added to a token's squared length before it divides: a token of zeros stays zeros."""


class Reconstruction(NamedTuple):
    """What :meth:`HVQTrans.reconstruct` gives."""

    features: Tensor
    """``[batch, tokens, channels]``: features rebuilt from the codes."""
    codes: Tensor
    """int64 ``[batch, levels, tokens]``; level i quantises encoder output i, the last the top."""
    tokens: tuple[Tensor, ...]
    """``[batch, tokens, width]``: what each level quantised, level 0 first and the top last."""
    transport: Tensor
    """``[levels in the map, batch, tokens]``: transport scores, level 0 first; zeros where the map
    does not use one, and while training."""
    commitment: Tensor
    """Scalar: commitment loss summed over the levels."""
    codebook_loss: Tensor
    """Scalar: :attr:`Quantised.codebook_loss` summed over the levels."""


class HVQTrans(nn.Module):
    """One model for many categories.

    Args:
        settings: sizes.
        categories: number of product categories.
        codebook_decay, codebook_epsilon: of the codebooks' moving averages.
        codebook_learning: what moves codes while training.
    """

    feature_mean: Tensor  # [channels]
    feature_std: Tensor
    map_centre: Tensor  # [parts, categories, tokens]: of the map's parts on good images
    map_spread: Tensor
    residual_whitening: Tensor  # [categories, channels, channels], where the settings whiten
    level_share: Tensor  # [categories]: how much of an image's level the score leaves out
    level_limit: Tensor  # [categories]: the largest level that it leaves out
    score_window: Tensor  # [height - 15, map rows]
    score_window_across: Tensor  # [width - 15, map columns]

    def __init__(
        self,
        settings: ModelSettings,
        categories: int,
        *,
        codebook_decay: float = 0.99,
        codebook_epsilon: float = 1e-5,
        codebook_learning: CodebookLearning = "averages",
    ) -> None:
        super().__init__()
        self.settings = settings
        self.categories = categories
        width, layers = settings.width, settings.layers
        self.tiling = settings.tiling
        tokens = self.tiling.tokens
        taps = tap_channels(settings.backbone)
        channels = self.channels = sum(taps)
        self.fine_channels = taps[FINE_TAP]
        self.fine_start = sum(taps[:FINE_TAP])
        self.temperature = settings.transport_temperature or 2.0 * width

        self.backbone = Backbone(settings.backbone, settings.padding_side or settings.input_side)
        self.input_projection = nn.Linear(channels, width)
        self.position = PositionEmbedding(settings.grid, width)
        sizes = (settings.heads, settings.feedforward, settings.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(width, *sizes) for _ in range(layers))
        self.codebooks = nn.ModuleList(
            Codebooks(
                categories,
                settings.codes,
                width if level == layers else 2 * width,
                codebook_decay,
                codebook_epsilon,
                codebook_learning,
            )
            for level in range(layers + 1)
        )
        self.decoder = nn.ModuleList(DecoderLayer(2 * width, *sizes) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(2 * width)
        # One output projection a category, stacked.
        bound = (2 * width) ** -0.5
        self.output_weight = nn.Parameter(
            torch.empty(categories, channels, 2 * width).uniform_(-bound, bound)
        )
        self.output_bias = nn.Parameter(torch.empty(categories, channels).uniform_(-bound, bound))

        self.register_buffer("feature_mean", torch.zeros(channels))
        self.register_buffer("feature_std", torch.ones(channels))
        parts = len(self.part_weights)
        self.register_buffer("map_centre", torch.zeros(parts, categories, tokens))
        self.register_buffer("map_spread", torch.ones(parts, categories, tokens))
        if settings.whiten_distance:
            eye = torch.eye(channels).repeat(categories, 1, 1)
            self.register_buffer("residual_whitening", eye)
        self.prototypes = (
            FeaturePrototypes(categories, settings.prototypes, channels, settings.prototype_window)
            if settings.prototypes
            else None
        )
        self.fine_prototypes = (
            FeaturePrototypes(categories, settings.fine_prototypes, self.fine_channels)
            if settings.fine_prototypes
            else None
        )
        self.classifier = CategoryClassifier(categories, channels)
        if settings.image_level != "kept":
            self.register_buffer("level_share", torch.ones(categories))
            self.register_buffer("level_limit", torch.full((categories,), LARGEST_LEVEL))
        down, across = (score_window(n, GRID_STRIDE, POOLING_SIDE) for n in self.tiling.map_shape)
        self.register_buffer("score_window", down, persistent=False)
        self.register_buffer("score_window_across", across, persistent=False)
        self.tiles = Tiles(self.tiling)

    def forward(self, frames: Tensor, category: Tensor | None = None) -> dict[str, Tensor]:
        """Judge frames.

        Args:
            frames: uint8 ``[batch, height, width, 3]``, RGB.
            category: int64 ``[batch]``; ``None``: the model chooses (:meth:`classify`).

        Returns:
            ``score`` ``[batch]``, ``map`` ``[batch, rows, columns]``, ``codes`` int32
            ``[batch, levels, tokens]``, ``category`` int32 ``[batch]``, ``margin`` ``[batch]``
            (:class:`Choice`; infinite where the category was given).

        Raises:
            CheckpointError: ``category`` is ``None`` and the model has no classifier.
        """
        standardised = self.standardise(self.raw_features(frames))
        if category is None:
            category, margin = self.classify(standardised)
        else:
            margin = standardised.new_full((len(frames),), torch.inf)
        return {**self.judge(standardised, category), "margin": margin}

    def judge(self, standardised: Tensor, category: Tensor) -> dict[str, Tensor]:
        """As :meth:`forward` without the margin, from :meth:`standardise`'s features."""
        rebuilt = self.reconstruct(self.normalise(standardised), category)
        anomaly_map = self.anomaly_map(standardised, rebuilt, category)
        return {
            "score": self.score(anomaly_map, category),
            "map": anomaly_map,
            "codes": rebuilt.codes.to(torch.int32),
            "category": category.to(torch.int32),
        }

    def features(self, frames: Tensor) -> Tensor:
        """Extract what the transformer works on.

        Args:
            frames: uint8 ``[batch, height, width, 3]``, RGB.

        Returns:
            ``[batch, tokens, channels]``: four taps at the grid's size; tokens row-major, those of
            a tile together.
        """
        return self.normalise(self.standardise(self.raw_features(frames)))

    def standardise(self, raw: Tensor) -> Tensor:
        """Standardise raw features by channel, ``[b, l, c]`` -> same.

        Fine tokens are standardised as their tap's mean over a cell is; a model without fine
        prototypes leaves them out.
        """
        mean, std = self.feature_mean, self.feature_std
        if self.fine_prototypes is not None:
            mean, std = (
                torch.cat([one, self.of_fine_tap(one).repeat_interleave(4)]) for one in (mean, std)
            )
        return (raw[..., : self.raw_channels] - mean) / std

    def of_fine_tap(self, channels: Tensor) -> Tensor:
        """Take the channels of the tap of fine tokens, ``[..., channels]``."""
        return channels.narrow(-1, self.fine_start, self.fine_channels)

    def normalise(self, standardised: Tensor) -> Tensor:
        """Return the tokens that are rebuilt: of one length where the settings say so.

        Args:
            standardised: ``[b, l, raw_channels]``.

        Returns:
            ``[b, l, channels]``.
        """
        tokens = self.coarse(standardised)
        return normalise_tokens(tokens) if self.settings.normalise_tokens else tokens

    def coarse(self, features: Tensor) -> Tensor:
        """Leave out fine tokens, ``[b, l, raw_channels]`` -> ``[b, l, channels]``."""
        return features[..., : self.channels]

    def fine(self, features: Tensor) -> Tensor:
        """Return the fine tokens alone, each token's four together.

        Args:
            features: ``[b, l, raw_channels]`` of a model with fine prototypes.

        Returns:
            ``[b, 4 * l, fine_channels]``.
        """
        four: Tensor = features[..., self.channels :].unflatten(2, (self.fine_channels, 4))
        return four.transpose(2, 3).flatten(1, 2)

    @property
    def raw_channels(self) -> int:
        """Channels of :meth:`raw_features`: with fine prototypes each token has four fine ones."""
        return self.channels + (0 if self.fine_prototypes is None else 4 * self.fine_channels)

    def raw_features(self, frames: Tensor) -> Tensor:
        """Extract features before standardisation, ``[batch, tokens, raw_channels]``."""
        taps = self.backbone(self.tiles.cut(frames))
        features = [resize_tap(tap, self.settings.grid, self.settings.tap_resize) for tap in taps]
        if self.fine_prototypes is not None:
            features.append(F.pixel_unshuffle(taps[FINE_TAP], 2))
        return self.tiles.join(torch.cat(features, dim=1).flatten(2).transpose(1, 2))

    def classify(self, standardised: Tensor) -> Choice:
        """Choose the category of each image.

        Args:
            standardised: ``[batch, tokens, raw_channels]`` (:meth:`standardise`).

        Raises:
            CheckpointError: the model has no classifier (a released checkpoint).
        """
        if not self.classifier.fitted:
            raise CheckpointError(
                "this model cannot choose the category itself: it was not trained by hvq-edge.",
                next_step="give the category (--category NAME), or train with hvq-edge train",
            )
        choice: Choice = self.classifier(self.coarse(standardised))
        return choice

    def encode(self, features: Tensor) -> list[Tensor]:
        """Return the projected tokens and each encoder layer's output, ``[b, l, width]`` each.

        Tokens attend to those of their own tile.
        """
        position = self.position()
        outputs = [self.tiles.split(self.input_projection(features))]
        for layer in self.encoder:
            outputs.append(layer(outputs[-1], position))
        return [self.tiles.join(output) for output in outputs]

    def reconstruct(self, features: Tensor, category: Tensor) -> Reconstruction:
        """Rebuild features from codes.

        Args:
            features: ``[batch, tokens, channels]``, standardised.
            category: int64 ``[batch]``.
        """
        levels, tokens = self.quantise(self.encode(features), category)
        weight, bias = self.output_weight[category], self.output_bias[category]
        decoded = self.decode([level.codes for level in levels[:-1]])
        rebuilt = torch.baddbmm(bias[:, None], decoded, weight.transpose(1, 2))
        return Reconstruction(
            rebuilt,
            torch.stack([level.indices for level in levels], dim=1),
            tokens,
            self._transport(tokens, category),
            torch.stack([level.commitment for level in levels]).sum(),
            torch.stack([level.codebook_loss for level in levels]).sum(),
        )

    def quantise(
        self, outputs: Sequence[Tensor], category: Tensor
    ) -> tuple[list[Quantised], tuple[Tensor, ...]]:
        """Replace the encoder's outputs by codes, the top level first: it is a part of the others.

        Args:
            outputs: what :meth:`encode` gives.
            category: int64 ``[batch]``.

        Returns:
            What each level's lookup gives and the tokens that it quantised, level 0 first and the
            top last.
        """
        *lower_outputs, top_output = outputs
        *lower_books, top_books = cast("list[Codebooks]", list(self.codebooks))
        top: Quantised = top_books(top_output, category)
        tokens = [torch.cat([output, top.codes], dim=2) for output in lower_outputs]
        lower: list[Quantised] = [
            books(level_tokens, category)
            for books, level_tokens in zip(lower_books, tokens, strict=True)
        ]
        return [*lower, top], (*tokens, top_output)

    def decode(self, lower: Sequence[Tensor]) -> Tensor:
        """Decode the codes of the levels below the top, ``[b, l, 2 * width]`` each -> same."""
        position = self.position().repeat(1, 2)
        x = self.tiles.split(lower[-1])  # the first query is the highest lower level
        for layer, memory in zip(self.decoder, reversed(lower), strict=True):
            x = layer(x, self.tiles.split(memory), position)
        return self.tiles.join(self.decoder_norm(x))

    def codes_of(self, level: int, category: Tensor) -> Tensor:
        """A level's codes of each image's category, ``[batch, codes, width]``."""
        return cast("Codebooks", self.codebooks[level]).codes[category]

    def _transport(self, tokens: Sequence[Tensor], category: Tensor) -> Tensor:
        """Transport scores of the levels in the map; the same as in a :class:`Reconstruction`."""
        weights = self.settings.transport_weights
        scores = [tokens[0].new_zeros(tokens[0].shape[:2])] * len(weights)
        for level, weight in enumerate(weights):
            if weight and not self.training:
                codes = self.codes_of(level, category)
                scores[level] = transport_score(tokens[level], codes, self.temperature)
        return torch.stack(scores)

    def map_parts(self, standardised: Tensor, rebuilt: Reconstruction, category: Tensor) -> Tensor:
        """What the anomaly map is made of, ``[parts, batch, tokens]``.

        The distance between features and what was rebuilt, the levels' transport scores, and the
        distance to the nearest prototype; of these a part that the settings leave out is zeros.
        Where there are fine prototypes, the distance to them is one part more. Prototypes
        see tokens with the length they have (:meth:`standardise`), what is rebuilt is
        :meth:`normalise` of them: so the map knows both of a token's direction and of its length.
        """
        residual = rebuilt.features - self.normalise(standardised)
        if self.settings.whiten_distance:
            residual = residual @ self.residual_whitening[category]
        distance = residual.square().sum(2).sqrt()
        nearest = (
            torch.zeros_like(distance)
            if self.prototypes is None
            else self.prototypes(self.coarse(standardised), category)
        )
        parts = [distance, *rebuilt.transport, nearest]
        if self.fine_prototypes is not None:
            fine = self.fine_prototypes(self.fine(standardised), category)
            parts.append(largest_of_four(fine))
        return torch.stack(parts)

    def anomaly_map(
        self, standardised: Tensor, rebuilt: Reconstruction, category: Tensor
    ) -> Tensor:
        """Measure the map's parts and join them, ``[batch, rows, columns]``."""
        return self.join_parts(self.map_parts(standardised, rebuilt, category), category)

    def join_parts(self, parts: Tensor, category: Tensor) -> Tensor:
        """Join the map's parts, ``[parts, batch, tokens]`` -> ``[batch, rows, columns]``."""
        return self.tiles.stitch(self.weighted_parts(parts, category).sum(0))

    def weighted_parts(self, parts: Tensor, category: Tensor) -> Tensor:
        """Bring the map's parts to what is added up, ``[parts, batch, tokens]`` -> same.

        Each is centred and scaled by what good images of the category show (identity in the
        published form), then weighted.
        """
        parts = (parts - self.map_centre[:, category]) / self.map_spread[:, category]
        return parts.new_tensor(self.part_weights)[:, None, None] * parts

    @property
    def part_weights(self) -> tuple[float, ...]:
        """Weights of the map's parts: distance, transport scores, distances to prototypes."""
        settings = self.settings
        prototype = settings.prototype_weight if settings.prototypes else 0.0
        fine = (settings.fine_prototype_weight,) if settings.fine_prototypes else ()
        return 1.0, *settings.transport_weights, prototype, *fine

    def score(self, anomaly_map: Tensor, category: Tensor) -> Tensor:
        """How far the highest window stands out, ``[batch]``.

        The highest window, less the category's share of the image's own level
        (:attr:`ModelSettings.image_level`). A level beyond the category's limit is not left out:
        there the whole image is a defect.

        Args:
            anomaly_map: ``[batch, rows, columns]``.
            category: int64 ``[batch]``.
        """
        highest = self.highest_window(anomaly_map)
        if self.settings.image_level == "kept":
            return highest
        level = image_level(anomaly_map.flatten(1))[:, 0].minimum(self.level_limit[category])
        return highest - self.level_share[category] * level

    def highest_window(self, anomaly_map: Tensor) -> Tensor:
        """Maximum of the upsampled map averaged over 16x16 windows, ``[batch]``.

        Upsampling and averaging are linear and separable: two small matrices instead of a
        224x224 image.
        """
        averaged: Tensor = self.score_window @ anomaly_map @ self.score_window_across.T
        return averaged.amax((1, 2))


def resize_tap(tap: Tensor, grid: int, how: str) -> Tensor:
    """Bring a tap to the grid, ``[b, c, side, side]`` -> ``[b, c, grid, grid]``.

    Args:
        tap: its side is a multiple of ``grid``.
        grid: cells of a side.
        how: ``average`` or ``bilinear`` (:attr:`ModelSettings.tap_resize`).
    """
    if how == "average":
        return F.avg_pool2d(tap, tap.shape[-1] // grid)
    return F.interpolate(tap, (grid, grid), mode="bilinear", align_corners=True)


def normalise_tokens(features: Tensor) -> Tensor:
    """Scale each token to the length of a standard normal one, ``[b, l, c]`` -> same."""
    length: Tensor = features.square().sum(2, keepdim=True).add(NORM_EPSILON).sqrt()
    scale: float = features.shape[2] ** 0.5
    return features * (scale / length)
