"""The anomaly map of a trained model in other forms, without training again.

What the map is made of is fitted in closed form after training, so a trained model tells what each
part is worth: the distance between features and what was rebuilt, plain and whitened; the distance
to the nearest feature prototype; the transport score; whether positions are standardised on their
own; and whether the image's own level is taken off. All forms share one reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.accuracy.evidence import Verdict
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.image_score import image_level
from hvq_edge.run.settings import ModelSettings
from hvq_edge.training.batches import Images
from hvq_edge.training.fit_prototypes import fit_prototypes
from hvq_edge.training.statistics import batches_of, fit_map_scale, fit_residual_whitening

FORMS: dict[str, tuple[float, float, float, float]] = {
    "distance": (1, 0, 0, 0),
    "whitened distance": (0, 1, 0, 0),
    "transport": (0, 0, 1, 0),
    "prototypes": (0, 0, 0, 1),
    "distance + prototypes / 2": (1, 0, 0, 0.5),
    "whitened + prototypes / 2": (0, 1, 0, 0.5),
    "whitened + prototypes": (0, 1, 0, 1),
    "whitened + transport / 2": (0, 1, 0.5, 0),
    "whitened + (prototypes + transport) / 2": (0, 1, 0.5, 0.5),
}
"""Weights of the parts: distance, whitened distance, transport, prototypes."""

BY_POSITION = ", by position"
"""Ends the name of a form that standardises positions too, as ``hvq-edge train`` does."""
LEVELLED = ", level subtracted"
"""Ends the name of a form whose score is taken relative to the image's own level
(:attr:`hvq_edge.run.settings.ModelSettings.image_level`)."""


class _Scale(NamedTuple):
    """Centre and spread of the four parts; both ``[4, categories, tokens or 1]``."""

    centre: Tensor
    spread: Tensor

    def apply(self, parts: Tensor, k: int) -> Tensor:
        """``[4, batch, tokens]`` -> same."""
        return (parts - self.centre[:, k, None]) / self.spread[:, k, None]


class MapForms:
    """All forms of one trained model's map.

    Parts that the model was not trained with are fitted here, as training would have.

    Args:
        model: a trained one, in eval mode; not changed.
        images: those learnt from, and then their versions where there are any; features are in
            the model's own ``tap_resize``.
        seed: of the training.
    """

    def __init__(self, model: HVQTrans, images: Sequence[Images], seed: int) -> None:
        had = model.settings
        self._whitened = _with_parts(model, whiten=True)
        if not had.prototypes:
            fit_prototypes(self._whitened, images[0].features, images[0].category, seed)
        if not had.whiten_distance:
            fit_residual_whitening(self._whitened, *images)
        self._plain = _with_parts(self._whitened, whiten=False)
        for one in (self._whitened, self._plain):
            fit_map_scale(one, *images)
        self._positions = _Scale(*(self._join(name) for name in ("map_centre", "map_spread")))
        self._categories = self._category_scale(images)

    @property
    def resize(self) -> str:
        """How taps are brought to the grid."""
        return self._plain.settings.tap_resize

    @torch.no_grad()
    def __call__(self, raw: Tensor, k: int) -> dict[str, Verdict]:
        """Every form's map and score.

        Args:
            raw: ``[batch, tokens, channels]``.
            k: the images' category.

        Returns:
            By name: those of :data:`FORMS`, each once more by position, and all of them once more
            with the level subtracted from the score.
        """
        parts = self._parts(self._plain.standardise(raw), k)
        grid, window = self._plain.settings.grid, self._plain.score_window
        verdicts: dict[str, Verdict] = {}
        for end, scale in (("", self._categories), (BY_POSITION, self._positions)):
            scaled = scale.apply(parts, k)
            for name, weights in FORMS.items():
                joined = torch.einsum("p,pbt->bt", scaled.new_tensor(weights), scaled)
                found = joined.unflatten(1, (grid, grid))
                verdicts |= with_and_without_level(name + end, found, window)
        return verdicts

    def _parts(self, whole: Tensor, k: int) -> Tensor:
        """Standardised tokens with the length they have -> ``[4, batch, tokens]``."""
        features = self._plain.normalise(whole)
        label = torch.full((len(features),), k, device=features.device)
        rebuilt = self._plain.reconstruct(features, label)
        plain = (rebuilt.features - features).square().sum(2).sqrt()
        return torch.cat([plain[None], self._whitened.map_parts(whole, rebuilt, label)])

    def _join(self, buffer: str) -> Tensor:
        plain, whitened = getattr(self._plain, buffer), getattr(self._whitened, buffer)
        return torch.cat([plain[:1], whitened])

    @torch.no_grad()
    def _category_scale(self, images: Sequence[Images]) -> _Scale:
        """Mean and deviation of each part over all tokens of a category."""
        centres, spreads = [], []
        for k in range(self._plain.categories):
            batches = batches_of(self._plain, images, k)
            parts = torch.cat([self._parts(batch, k) for batch, _ in batches], dim=1).double()
            centres.append(parts.mean((1, 2)))
            spreads.append(parts.std((1, 2), correction=0).clamp_min(1e-6))
        centre, spread = torch.stack(centres, dim=1), torch.stack(spreads, dim=1)
        return _Scale(centre.float()[..., None], spread.float()[..., None])


def with_and_without_level(name: str, found: Tensor, window: Tensor) -> dict[str, Verdict]:
    """Score a map as it is, and relative to the image's own level.

    Args:
        name: of the first; the second's ends in :data:`LEVELLED`.
        found: ``[batch, grid, grid]``.
        window: :func:`hvq_edge.model.image_score.score_window`.
    """
    highest = (window @ found @ window.T).amax((1, 2))
    level = image_level(found.flatten(1))[:, 0]
    return {name: Verdict(found, highest), name + LEVELLED: Verdict(found, highest - level)}


def _with_parts(model: HVQTrans, *, whiten: bool) -> HVQTrans:
    """Copy a model into one that computes every part of the map."""
    settings = model.settings.model_copy(
        update={
            "whiten_distance": whiten,
            "prototypes": model.settings.prototypes or ModelSettings().prototypes,
            "prototype_weight": 1.0,
            "fine_prototypes": 0,
            "transport_weight": model.settings.transport_weight or 1.0,
            "transport_levels": (),
            "map_scale": "good_images",
        }
    )
    copy = HVQTrans(settings, model.categories).to(model.feature_mean.device)
    names = copy.state_dict().keys()
    kept = {
        name: value
        for name, value in model.state_dict().items()
        if name in names and not name.startswith("map_")  # fitted anew, and of other parts
    }
    copy.load_state_dict(kept, strict=False)
    return copy.eval().requires_grad_(False)
