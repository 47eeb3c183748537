"""The rows of the table of ablations: one change each from the settings that they start from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hvq_edge.model.image_score import POOLING_SIDE
from hvq_edge.run.settings import Settings

BASE = "base"


@dataclass(frozen=True)
class Row:
    """One row."""

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the model that differ."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the training that differ."""
    learning_rate_factor: float = 1.0
    temperature_factor: float = 1.0
    """Of the transport score."""
    pooling: int = POOLING_SIDE
    """Side of the windows that an image's score averages over, in pixels."""
    variant: str = ""
    """Key of :data:`ablation_variants.VARIANTS`."""
    flips: bool = False
    """Learn from flipped images too, of categories where flipped images look like good ones."""
    weights_of: str = ""
    """The row whose trained weights are used, where the change only concerns what is fitted or
    computed after training; empty: its own."""

    @property
    def slug(self) -> str:
        """The name for files."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def settings(self, base: Settings) -> Settings:
        """Apply the change.

        Raises:
            pydantic.ValidationError: the change does not fit ``base``.
        """
        model = {**base.model.model_dump(), **self.model}
        training = {**base.training.model_dump(), **self.training}
        training["learning_rate"] *= self.learning_rate_factor
        if self.temperature_factor != 1:
            own = model["transport_temperature"] or 2.0 * model["width"]
            model["transport_temperature"] = own * self.temperature_factor
        return Settings.model_validate(
            {"preset": base.preset, "model": model, "training": training}
        )


def _after_training(name: str, **change: Any) -> Row:  # noqa: ANN401  # values of any setting
    return Row(name, model=change, weights_of=BASE)


ROWS: tuple[Row, ...] = (
    Row(BASE),
    # Chance alone: what other seeds change is no effect.
    Row("another seed", training={"seed": 1}),
    Row("a third seed", training={"seed": 2}),
    # What is learnt from.
    Row("no feature standardisation", model={"standardise_features": False}),
    Row("tokens not normalised", model={"normalise_tokens": False}),
    Row("taps bilinear", model={"tap_resize": "bilinear"}),
    Row("feature jitter", variant="jittered features"),
    Row("flipped images", flips=True),
    Row("input 256 px", model={"input_side": 256}),
    Row("input 320 px", model={"input_side": 320}),
    Row("EfficientNet-Lite1", model={"backbone": "efficientnet_lite1"}),
    Row("EfficientNet-Lite2", model={"backbone": "efficientnet_lite2"}),
    # Codebooks.
    Row("random codebook start", training={"codebook_start": "random"}),
    Row("k-means codebook start", variant="k-means start"),
    Row("no code revival", training={"revive_codes": False}),
    Row("64 codes", model={"codes": 64}),
    Row("1024 codes", model={"codes": 1024}),
    # Training.
    Row("learning rate x 0.5", learning_rate_factor=0.5),
    Row("learning rate x 2", learning_rate_factor=2.0),
    Row("schedule step", training={"schedule": "step"}),
    Row("averaged weights", variant="averaged weights"),
    Row("neighbour-masked attention", variant="neighbours masked"),
    Row("attention to means of 2x2 tokens", variant="keys pooled"),
    # Against the identical shortcut, and what the loss counts.
    Row("noise of 0.2 deviations", variant="noise 0.2"),
    Row("noise of 0.5 deviations", variant="noise 0.5"),
    Row("a quarter of the tokens masked", variant="tokens masked"),
    Row("errors weighted by themselves", variant="hard tokens"),
    Row("errors weighted, another seed", training={"seed": 1}, variant="hard tokens"),
    Row("worst half of the tokens", variant="worst half"),
    Row("worst 2 % of the tokens left out", variant="odd tokens left out"),
    Row("cosine loss", variant="cosine loss"),
    Row("taps count alike", variant="taps alike"),
    # What is made of the trained weights.
    _after_training("distance not whitened", whiten_distance=False),
    _after_training("no prototypes", prototypes=0),
    _after_training("prototypes over 3x3 tokens", prototype_window=3),
    _after_training("prototypes over 5x5 tokens", prototype_window=5),
    _after_training("prototype weight 1", prototype_weight=1.0),
    _after_training("image level kept", image_level="kept"),
    _after_training("map scale published", map_scale="published"),
    _after_training("transport weight 0.5", transport_weight=0.5),
    _after_training("transport weight 1", transport_weight=1.0),
    Row(
        "transport weight 0.5, temperature x 0.5",
        model={"transport_weight": 0.5},
        temperature_factor=0.5,
        weights_of=BASE,
    ),
    Row(
        "transport weight 0.5, temperature x 2",
        model={"transport_weight": 0.5},
        temperature_factor=2.0,
        weights_of=BASE,
    ),
    Row("score over 8 px", pooling=8, weights_of=BASE),
    Row("score over 24 px", pooling=24, weights_of=BASE),
    Row("score over 32 px", pooling=32, weights_of=BASE),
)
"""In the order of the table."""
