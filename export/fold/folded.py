"""The model rewritten for the graph: every step exact in real arithmetic, each tested.

What depends on weights alone is computed here, once: batch norms and the pixels' scale go into
their convolutions, the position embedding and the attention scale into the projections, the
codebooks and what is linear in a code become tables that the graph looks up with Gather.
docs/explanation/folding.md derives each step.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.errors import CheckpointError
from hvq_edge.export.fold.category_tables import (
    CategoryLinear,
    CategoryMatrix,
    FoldedClassifier,
    PrototypeTable,
    TransportTable,
)
from hvq_edge.export.fold.code_tables import (
    MAX_TABLE_MB,
    Codes,
    Fold,
    NearestCode,
    choose_folds,
    own_part,
    table_row,
)
from hvq_edge.export.fold.reductions import kth_smallest, row_squares
from hvq_edge.export.fold.transformer import FoldedDecoderLayer, FoldedEncoderLayer
from hvq_edge.model.backbone import FINE_TAP, Backbone, SamePadConv
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import NORM_EPSILON, HVQTrans, resize_tap
from hvq_edge.model.image_score import quarter_of
from hvq_edge.model.transformer import DecoderLayer, EncoderLayer
from hvq_edge.run.tiling import GRID_STRIDE


class FoldedHVQTrans(nn.Module):
    """The exported form of :class:`HVQTrans`.

    Args:
        model: in eval mode; not changed.
        mode: ``one`` folds a single category's tables in, ``input`` takes the category as an
            input, ``auto`` lets the graph choose it.
        category: index of the single category; with mode ``one`` only.
        max_table_mb: what tables of codes may take together with the other modes, in 10^6 bytes;
            0: nothing is looked up but the codes themselves.

    Attributes:
        folds: what could be a table, and whether it is one.

    Raises:
        CheckpointError: mode ``auto`` and the model has no classifier.
    """

    feature_scale: Tensor  # [channels]
    feature_shift: Tensor
    map_scale: Tensor  # [categories, parts in use, tokens]; one category: no first axis
    map_shift: Tensor  # [categories, tokens]
    level_share: Tensor  # [categories], or a scalar for one category, as the limit
    level_limit: Tensor
    score_window: Tensor
    score_window_across: Tensor

    def __init__(
        self,
        model: HVQTrans,
        mode: CategoryMode,
        category: int | None = None,
        *,
        max_table_mb: float = MAX_TABLE_MB,
    ) -> None:
        super().__init__()
        if mode == "auto" and not model.classifier.fitted:
            raise CheckpointError(
                "this model cannot choose the category itself: it was not trained by hvq-edge.",
                next_step="export with --category NAME, or --category input",
            )
        self.mode = mode
        self.grid = model.settings.grid
        bilinear = model.settings.tap_resize == "bilinear"
        self.resize = bilinear_matrices(self.grid) if bilinear else None
        self.normalise_tokens = model.settings.normalise_tokens
        self.subtracts_level = model.settings.image_level != "kept"
        self.codes = model.settings.codes
        kept = slice(None) if category is None else category
        self.folds: list[Fold] = choose_folds(
            model, one_category=mode == "one", max_table_mb=max_table_mb
        )
        folded = {fold.name for fold in self.folds if fold.chosen}

        self.backbone = FoldedBackbone(model.backbone)
        self.tiles = copy.deepcopy(model.tiles)
        self.register_buffer("feature_scale", 1 / model.feature_std)
        self.register_buffer("feature_shift", -model.feature_mean / model.feature_std)
        self.input_projection = copy.deepcopy(model.input_projection)
        position = model.position().detach()
        wide = position.repeat(1, 2)
        self.encoder = nn.ModuleList(
            FoldedEncoderLayer(cast(EncoderLayer, layer), position) for layer in model.encoder
        )
        *lower, top = cast("list[Codebooks]", list(model.codebooks))
        self.codebooks = nn.ModuleList(
            NearestCode(books, kept, top if f"codebooks.{level}" in folded else None)
            for level, books in enumerate(lower)
        )
        self.codebooks.append(NearestCode(top, kept))
        scored = [level for level, one in enumerate(model.settings.transport_weights) if one]
        self.transport = nn.ModuleDict(
            {
                str(level): TransportTable(
                    [*lower, top][level],
                    kept,
                    model.temperature,
                    top if f"transport.{level}" in folded else None,
                )
                for level in scored
            }
        )
        # The decoder's layers read the levels from the highest down.
        decoder = [
            FoldedDecoderLayer(
                cast(DecoderLayer, layer),
                wide,
                books if f"decoder.{i}.self_attention" in folded else None,
                books if f"decoder.{i}.cross_attention" in folded else None,
                kept,
            )
            for i, (layer, books) in enumerate(zip(model.decoder, reversed(lower), strict=True))
        ]
        self.decoder = nn.ModuleList(decoder)
        compared_whole = any(f"codebooks.{level}" not in folded for level in range(len(lower)))
        compared_whole |= any(
            level < len(lower) and f"transport.{level}" not in folded for level in scored
        )
        self.top_codes = Codes(top, kept) if compared_whole else None
        # For the first queries, from the highest lower level, and for memories that are no tables.
        self.lower_codes = nn.ModuleList(
            Codes(books, kept) if i == 0 or not layer.cross_attention.looks_up else nn.Identity()
            for i, (layer, books) in enumerate(zip(decoder, reversed(lower), strict=True))
        )
        self.prototypes = PrototypeTable(model.prototypes, kept) if model.prototypes else None
        self.fine_prototypes = (
            PrototypeTable(
                model.fine_prototypes,
                kept,
                model.of_fine_tap(self.feature_scale),
                model.of_fine_tap(self.feature_shift),
            )
            if model.fine_prototypes
            else None
        )
        self.whitening = (
            CategoryMatrix(model.residual_whitening[kept].clone())
            if model.settings.whiten_distance
            else None
        )
        self.decoder_norm = copy.deepcopy(model.decoder_norm)
        weight = model.output_weight.detach()[kept].transpose(-1, -2).contiguous()
        self.output = CategoryLinear(weight, model.output_bias.detach()[kept])
        weights = model.map_spread.new_tensor(model.part_weights)[:, None, None]
        scale = weights / model.map_spread  # [parts, categories, tokens]
        transports = [bool(weight) for weight in model.settings.transport_weights]
        in_use = [True, *transports, self.prototypes is not None]
        if self.fine_prototypes is not None:
            in_use.append(True)
        self.register_buffer("map_scale", scale[in_use].transpose(0, 1)[kept].contiguous())
        self.register_buffer("map_shift", -(scale * model.map_centre).sum(0)[kept])
        self.register_buffer("score_window", model.score_window.clone())
        rows, columns = model.tiling.map_shape
        self.square = rows == columns
        if not self.square:
            self.register_buffer("score_window_across", model.score_window_across.clone())
        if self.subtracts_level:
            self.register_buffer("level_share", model.level_share[kept].clone())
            self.register_buffer("level_limit", model.level_limit[kept].clone())
        if mode == "auto":
            self.classifier = FoldedClassifier(model.classifier)
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor, category: Tensor | None = None) -> tuple[Tensor, ...]:
        """Judge frames.

        Args:
            frames: uint8 ``[batch, height, width, 3]``, RGB.
            category: int32 ``[batch]``; with mode ``input`` only.

        Returns:
            ``score`` ``[batch]``, ``map`` ``[batch, rows, columns]``, ``codes`` int32
            ``[batch, levels, tokens]``, and with mode ``auto`` ``category`` int32 ``[batch]`` and
            ``margin`` ``[batch]``.
        """
        taps = self.backbone(self.tiles.cut(frames))
        fine_tap = taps[FINE_TAP]
        if self.resize is not None:
            taps = [self.resize[i] @ tap @ self.resize[i].T for i, tap in enumerate(taps)]
        else:
            taps = [resize_tap(tap, self.grid, "average") for tap in taps]
        features = self.tiles.join(torch.cat(taps, dim=1).flatten(2).transpose(1, 2))
        features = features * self.feature_scale + self.feature_shift
        if self.mode == "auto":
            category, margin = self.classifier(features)
        elif category is not None:
            category = category.to(torch.int64)
        whole = features  # tokens with the length they have
        if self.normalise_tokens:
            squares = row_squares(features)[..., None]
            features = features * (features.shape[2] ** 0.5 / (squares + NORM_EPSILON).sqrt())

        rebuilt, transports, codes = self._reconstruct(features, category)
        residual = rebuilt - features
        if self.whitening is not None:
            residual = self.whitening(residual, category)
        parts = [row_squares(residual).sqrt(), *transports]
        if self.prototypes is not None:
            parts.append(self.prototypes(whole, category))
        if self.fine_prototypes is not None:
            tokens = self.tiles.join(fine_tap.flatten(2).transpose(1, 2))
            fine = self.fine_prototypes(tokens, category)
            fine = fine.unflatten(1, (-1, 2 * self.grid, 2 * self.grid))
            parts.append(F.max_pool2d(fine, 2).flatten(1))
        scale = own_part(self.map_scale, category)
        joined = own_part(self.map_shift, category)
        for i, part in enumerate(parts):
            joined = joined + part * scale[..., i, :]
        anomaly_map = self.tiles.stitch(joined)
        across = self.score_window if self.square else self.score_window_across
        score = (self.score_window @ anomaly_map @ across.T).amax((1, 2))
        if self.subtracts_level:
            cells = anomaly_map.flatten(1) if self.tiles.tiling.count > 1 else joined
            level = kth_smallest(cells, quarter_of(cells.shape[1]))[:, 0]
            level = torch.minimum(level, own_part(self.level_limit, category))
            score = score - own_part(self.level_share, category) * level
        if self.mode == "auto":
            assert category is not None
            return score, anomaly_map, codes, category.to(torch.int32), margin
        return score, anomaly_map, codes

    def _reconstruct(
        self, features: Tensor, category: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return rebuilt features ``[b, l, c]``, transport scores ``[b, l]`` and int32 codes."""
        split, join = self.tiles.split, self.tiles.join
        outputs: list[Tensor] = [split(self.input_projection(features))]
        for layer in self.encoder:
            outputs.append(layer(outputs[-1]))
        outputs = [join(output) for output in outputs]
        *levels, top = cast("list[NearestCode]", list(self.codebooks))
        top_index = top(outputs[-1], category)
        top_row = table_row(top_index, self.codes, category)
        top_codes = None if self.top_codes is None else self.top_codes(top_row)

        def tokens_of(level: int, part: NearestCode | TransportTable) -> Tensor:
            if part.looks_up_share or level == len(levels):
                return outputs[level]
            assert top_codes is not None
            return torch.cat([outputs[level], top_codes], dim=2)

        indices = [
            nearest(tokens_of(level, nearest), category, top_row)
            for level, nearest in enumerate(levels)
        ]
        transports = [
            table(tokens_of(int(level), cast(TransportTable, table)), category, top_row)
            for level, table in self.transport.items()
        ]

        rows = [table_row(index, self.codes, category) for index in reversed(indices)]
        x: Tensor = split(self.lower_codes[0](rows[0]))
        decoder = cast("list[FoldedDecoderLayer]", list(self.decoder))
        for layer, lower_codes, row in zip(decoder, self.lower_codes, rows, strict=True):
            memory = row if layer.cross_attention.looks_up else lower_codes(row)
            x = layer(x, split(rows[0]), split(memory))
        rebuilt: Tensor = self.output(join(self.decoder_norm(x)), category)
        return rebuilt, transports, torch.stack([*indices, top_index], dim=1).to(torch.int32)


def bilinear_matrices(grid: int) -> nn.ParameterList:
    """Return matrices that bring an axis of each tap to the grid as :func:`resize_tap` does.

    Returns:
        ``[grid, side]`` for the taps of strides 2, 4, 8, 16: ``R @ tap @ R.T`` is the resized tap.
    """
    sides = [grid * GRID_STRIDE // stride for stride in (2, 4, 8, 16)]
    matrices = [
        F.interpolate(torch.eye(side)[None], size=grid, mode="linear", align_corners=True)[0].T
        for side in sides
    ]
    return nn.ParameterList(matrix.contiguous() for matrix in matrices)


class FoldedBackbone(nn.Module):
    """A backbone with batch norms in its convolutions and the pixels' scale in the first.

    The mean is taken off the pixels, not put into a bias: the first convolution pads with zeros,
    which are the mean's colour, and only so is the border exact. Pixels are taken off the mean, and
    the weights have the other sign: where the mean is 127, as EfficientNet-Lite has it, 127 − pixel
    is -128 .. 127, and int8 holds it without any rounding.
    """

    pixel_mean: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        folded = copy.deepcopy(backbone)
        for module in folded.modules():
            if isinstance(module, SamePadConv):
                module.conv = fuse_conv_bn_eval(module.conv, module.norm)
                module.norm = nn.Identity()  # type: ignore[assignment]
        folded.stem.conv.weight.data /= -folded.pixel_std
        self.stem, self.blocks, self.taps = folded.stem, folded.blocks, folded.taps
        self.register_buffer("pixel_mean", folded.pixel_mean)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Take and return what :meth:`Backbone.forward` does."""
        # Cast before the transpose: TensorRT has no uint8 transpose.
        x = self.stem(self.pixel_mean - frames.to(self.pixel_mean.dtype).permute(0, 3, 1, 2))
        taps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                taps.append(x)
        return taps
