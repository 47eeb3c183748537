"""Presets and typed settings, read from a TOML file and flags, checked as a whole.

A settings file has two tables, ``[model]`` and ``[training]``; whatever it leaves out comes from
the preset. Unknown keys and wrong values are all reported at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from hvq_edge.common.records import StrictTypes, faults_of
from hvq_edge.common.toml_file import all_wrong, read_toml
from hvq_edge.run.tiling import GRID_STRIDE, Tiling

BackboneName = Literal[
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
]
MOST_TILES = 8
"""Rows, and columns."""
PresetName = Literal["paper", "paper-ot", "edge", "tiny"]
LARGEST_LEVEL = 1e4
"""No limit of an image's level: no level of a map comes near it, and it fits into float16."""
CodebookLearning = Literal["averages", "gradient", "both"]
# TOML has arrays and no tuples; a tuple keeps the settings from being changed.
LevelWeights = Annotated[
    tuple[Annotated[float, Field(ge=0.0, strict=True)], ...], Field(strict=False)
]


def _check_levels(key: str, given: Sequence[float], levels: int) -> None:
    """Raise a ValueError where numbers for the levels are not one for each."""
    if given and len(given) != levels:
        raise ValueError(f"{key} has {len(given)} numbers for {levels} levels (layers and the top)")


class ModelSettings(StrictTypes):
    """Sizes of the network (HVQ-Trans section 3)."""

    backbone: BackboneName = "efficientnet_lite0"
    input_side: int = Field(224, ge=64, le=1024, multiple_of=GRID_STRIDE)
    """Side of the square input in pixels; of a tile, where there are several."""
    tiles: Annotated[
        tuple[
            Annotated[int, Field(ge=1, le=MOST_TILES, strict=True)],
            Annotated[int, Field(ge=1, le=MOST_TILES, strict=True)],
        ],
        Field(strict=False),
    ] = (1, 1)
    """Rows and columns of tiles that an image is cut into, each judged with the whole network: a
    defect of a few pixels in a large image keeps its pixels, and time grows with the tiles."""
    tile_overlap: float = Field(0.1, ge=0.0, le=0.5)
    """Share of a tile's side, rounded to whole cells, that it shares with its neighbour."""
    padding_side: int | None = Field(None, ge=32)
    """Input side from which 'same' padding is computed; ``None``: ``input_side`` itself.

    The released network pads as for 380 px whatever it is given."""
    width: int = Field(128, ge=8)
    """Channels of a token in the encoder; the decoder and lower codebooks have twice as many."""
    heads: int = Field(8, ge=1)
    feedforward: int = Field(512, ge=8)
    layers: int = Field(2, ge=1, le=12)
    """Encoder layers, decoder layers, and codebook levels below the top one. Four, as published,
    gave the same accuracy on ``edge`` features (docs/explanation/map-and-score.md)."""
    codes: int = Field(512, ge=2, le=3840)
    """Codes of one codebook. TensorRT's TopK ends at 3840."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    standardise_features: bool = True
    """Standardise backbone features per channel with statistics of the training images."""
    tap_resize: Literal["bilinear", "average"] = "average"
    """How taps finer than the grid are brought to it: ``average`` pools all of a cell's pixels,
    ``bilinear`` (published) samples four of them."""
    normalise_tokens: bool = True
    """Bring each standardised token to the same length: what counts is the mix of channels, not
    how strong the contrast is."""
    whiten_distance: bool = True
    """Measure rebuilding errors against how good images' errors vary together (Mahalanobis)
    instead of plainly."""
    prototypes: int = Field(1024, ge=0, le=3840)
    """Prototypes of the features themselves in each category, below the codebooks' levels; the
    distance to the nearest joins the anomaly map. They see tokens with the length they have, even
    where ``normalise_tokens`` is set. 0: none, as published."""
    prototype_window: Literal[1, 3, 5] = 1
    """Side in cells of the neighbourhood that a token is averaged over before it meets prototypes
    (PatchCore's locally aware features). Wear of large areas shows better over 3 or 5, small
    defects worse (docs/explanation/map-and-score.md)."""
    prototype_weight: float = Field(0.5, ge=0.0)
    """Weight of the prototype distance in the anomaly map."""
    fine_prototypes: int = Field(0, ge=0, le=3840)
    """Prototypes in each category of the stride-8 tap alone, on a grid twice as fine: what is a few
    pixels large shows there. A token has the largest distance of its four fine ones. 0: none, as
    published."""
    fine_prototype_weight: float = Field(0.5, ge=0.0)
    """Weight of the fine prototypes' distance in the anomaly map."""
    transport_weight: float = Field(0.0, ge=0.0)
    """Weight of the prototype transport score in the anomaly map; 0: it is not computed."""
    transport_levels: LevelWeights = ()
    """Shares of the levels' transport scores in that weight, level 0 first and the top last: each
    level's score is a part of the map of its own. Empty: level 0 alone, as published."""
    transport_temperature: float | None = Field(None, gt=0.0)
    """Divisor of the dot products in the transport score; ``None``: ``2 * width``."""
    map_scale: Literal["published", "good_images"] = "good_images"
    """``published``: the weighted parts are added as they are. ``good_images``: each is first
    standardised with statistics of good training images, so they share a scale."""
    image_level: Literal["kept", "subtracted", "learnt"] = "learnt"
    """How much of an image's own level, the lower quartile of its map, is taken off its score.
    ``learnt``: for each category the share by which the score of good images follows their level,
    between none and all; ``subtracted``: all of it; ``kept``: none, as published. Where good
    surfaces differ as a whole, the level hides defects and feigns them; where they do not, a
    raised level is the defect. The map itself keeps its level."""

    @property
    def grid(self) -> int:
        """Tokens a side of a tile: 14 for 224 px."""
        return self.input_side // GRID_STRIDE

    @property
    def tiling(self) -> Tiling:
        """How a frame is cut."""
        return Tiling(self.input_side, *self.tiles, overlap=round(self.tile_overlap * self.grid))

    @property
    def levels(self) -> int:
        """Codebook levels, the top one included."""
        return self.layers + 1

    @property
    def transport_weights(self) -> tuple[float, ...]:
        """Weight in the map of each level's transport score, level 0 first."""
        return tuple(self.transport_weight * share for share in self.transport_levels or (1.0,))

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelSettings:
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"width {self.width} must be even and a multiple of heads {self.heads}"
            )
        return self

    @model_validator(mode="after")
    def _windows_stay_in_a_tile(self) -> ModelSettings:
        if self.prototype_window > 1 and self.tiling.count > 1:
            raise ValueError("prototype_window must be 1 where there are tiles")
        return self

    @model_validator(mode="after")
    def _a_share_for_each_level(self) -> ModelSettings:
        _check_levels("transport_levels", self.transport_levels, self.levels)
        return self


class TrainingSettings(StrictTypes):
    """How the network is trained."""

    epochs: int = Field(180, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0.0)
    weight_decay: float = Field(1e-4, ge=0.0)
    schedule: Literal["cosine", "step"] = "cosine"
    """``cosine``: one warm-up epoch, then a half cosine to 1 % of the rate. ``step``: a tenth of
    the rate after 80 % of the epochs, as published."""
    gradient_clip: float = Field(0.1, gt=0.0)
    """Largest norm of the whole gradient."""
    latent_weight: float = Field(0.25, ge=0.0)
    """Weight of the commitment loss (paper equation 6)."""
    conditional_transport_weight: float = Field(0.0, ge=0.0)
    """Weight of the conditional transport loss between an image's tokens and its category's codes,
    both ways. 0: none, as released."""
    entropic_transport_weight: float = Field(0.0, ge=0.0)
    """Weight of the entropic transport loss between the same. 0: none, as released."""
    transport_loss_levels: LevelWeights = ()
    """Factors of the levels' transport losses, level 0 first and the top last. Empty: 1 each."""
    transport_loss_temperature: float | None = Field(None, gt=0.0)
    """Divisor of the dot products in the conditional loss; ``None``: a sixteenth of the width. At
    the score's a token's mass goes to all codes alike, which pulls them together
    (docs/explanation/transport.md)."""
    transport_loss_epsilon: float = Field(0.05, ge=0.01)
    """Weight of the plan's entropy in the entropic loss: the smaller, the sharper the plan, and the
    farther from finished after the same rounds."""
    transport_loss_masses: Literal["uniform", "usage"] = "uniform"
    """Mass of a code in the entropic loss: ``uniform``, which pulls unused codes to tokens, or its
    share of the tokens so far."""
    codebook_learning: CodebookLearning = "averages"
    """What moves codes: moving ``averages`` of their tokens, as published; the ``gradient`` of the
    codebook loss and of the transport losses; ``both``: averages, and the gradient of the
    transport losses."""
    codebook_decay: float = Field(0.99, gt=0.0, lt=1.0)
    """Decay of the codebooks' moving averages for each image."""
    codebook_epsilon: float = Field(1e-5, gt=0.0)
    codebook_start: Literal["random", "images"] = "images"
    """``images``: start each codebook from tokens of its own category's images."""
    revive_codes: bool = True
    """Give codes that no token chooses a new place at the end of an epoch."""
    autocast: Literal["auto", "off", "bfloat16"] = "auto"
    """``auto``: bfloat16 where the device multiplies matrices in it (CUDA from Ampere on, CPUs with
    AVX512_BF16 or AMX); where it is emulated it makes a CPU slower."""
    patience: int = Field(15, ge=0)
    """Stop after this many epochs in which the loss on the held-out images did not fall by 0.1 %,
    with the weights of the best; 0: never stop early."""
    versions: int = Field(5, ge=0, le=64)
    """Versions of each image (moved, compressed, softer, lit otherwise, noisy) that the whitening
    and the map's scale are fitted to besides the image itself: they say how much a good part may
    differ for another camera, lamp or gripper. 0: none, as published."""
    held_out: float = Field(0.15, gt=0.0, lt=0.9)
    """Share of the good training images kept apart: thresholds come from them. Good images of
    another day take their place where there are any."""
    seed: int = Field(0, ge=0, le=10**9)

    @property
    def has_transport_loss(self) -> bool:
        """Whether any transport loss is learnt from."""
        return bool(self.conditional_transport_weight or self.entropic_transport_weight)

    @model_validator(mode="after")
    def _both_need_a_gradient(self) -> TrainingSettings:
        if self.codebook_learning == "both" and not self.has_transport_loss:
            raise ValueError(
                'codebook_learning "both" needs a transport loss: set conditional_transport_weight '
                "or entropic_transport_weight"
            )
        return self


class Settings(StrictTypes):
    """All settings of a run."""

    preset: PresetName = "edge"
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _a_factor_for_each_level(self) -> Settings:
        factors = self.training.transport_loss_levels
        _check_levels("training.transport_loss_levels", factors, self.model.levels)
        return self


_PAPER: dict[str, dict[str, Any]] = {
    "model": {
        "backbone": "efficientnet_b4",
        "padding_side": 380,
        "width": 256,
        "feedforward": 1024,
        "layers": 4,
        "dropout": 0.1,
        "standardise_features": False,
        "tap_resize": "bilinear",
        "normalise_tokens": False,
        "whiten_distance": False,
        "prototypes": 0,
        "transport_weight": 80.0,
        "transport_temperature": 512.0,
        "map_scale": "published",
        "image_level": "kept",
    },
    "training": {
        "epochs": 1000,
        "learning_rate": 1e-4,
        "schedule": "step",
        "codebook_start": "random",
        "revive_codes": False,
        "autocast": "off",
        "patience": 0,
        "versions": 0,
    },
}
_TINY: dict[str, dict[str, Any]] = {
    "model": {
        "width": 64,
        "heads": 4,
        "feedforward": 256,
        "codes": 256,
        "prototypes": 256,
    },
    "training": {"epochs": 24},
}
_PAPER_OT: dict[str, dict[str, Any]] = {
    "model": {
        **_PAPER["model"],
        # One unit: costs of levels lie on scales of their own until good images set one.
        "transport_weight": 1.0,
        "transport_levels": (1.0,) * (_PAPER["model"]["layers"] + 1),
        "map_scale": "good_images",
    },
    "training": {
        **_PAPER["training"],
        "conditional_transport_weight": 0.1,
        "entropic_transport_weight": 0.1,
        "codebook_learning": "both",
    },
}
_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": _PAPER,
    "paper-ot": _PAPER_OT,
    "edge": {},
    "tiny": _TINY,
}


def load_settings(
    preset: str = "edge",
    file: Path | None = None,
    *,
    model: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> Settings:
    """Merge preset, settings file and flags, the later winning, and check the whole.

    Args:
        preset: ``paper``, ``paper-ot``, ``edge`` or ``tiny``.
        file: TOML file with ``[model]`` and ``[training]`` tables.
        model: values given as flags; ``None`` values are ignored.
        training: likewise.

    Raises:
        SettingsError: lists every fault with its key.
    """
    faults: list[str] = []
    if preset not in _PRESETS:
        faults.append(f"preset: {preset!r} is none of {', '.join(_PRESETS)}")
    given = read_toml(file, "--settings") if file else {}
    merged: dict[str, Any] = {"preset": preset} if preset in _PRESETS else {}
    for table, flags in (("model", model), ("training", training)):
        part = given.pop(table, {})
        if not isinstance(part, dict):
            faults.append(f"{table}: must be a table")
            part = {}
        set_by_flags = {key: value for key, value in (flags or {}).items() if value is not None}
        merged[table] = {**_PRESETS.get(preset, {}).get(table, {}), **part, **set_by_flags}
    merged.update(given)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        faults += faults_of(error, Settings)
    if faults:
        source = f" in {file}" if file else ""
        raise all_wrong(
            faults,
            source,
            "correct them; docs/reference/settings.md lists every key with its range",
        )
    return settings
