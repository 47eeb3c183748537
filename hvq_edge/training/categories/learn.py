"""One more category for a trained model: what is its own is learnt, all else stays.

Backbone, encoder and decoder are frozen, so nothing needs a gradient. Codes start at tokens of the
new category's images and follow them by the moving averages of training; the output projection,
linear and the category's own, is the least-squares one; the rest is fitted in closed form as at the
end of any training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.settings import TrainingSettings
from hvq_edge.training.batches import Images, shuffled_batches
from hvq_edge.training.codebook_start import revive_codes, start_codebooks
from hvq_edge.training.fit_prototypes import fit_prototypes
from hvq_edge.training.statistics import (
    batches_of,
    fit_centre,
    fit_level,
    fit_map_scale,
    fit_residual_whitening,
)

MOST_IMAGES = 200
"""Images that codes and projection learn from, spread over all: their tokens are kept in memory."""
EPOCHS = 20
"""Times that codes follow the images: with ten, more than two half-lives of the averages."""
RIDGE = 1e-2
"""Share of the decoder outputs' mean eigenvalue that holds the projection to the other
categories'."""


def learn_category(
    model: HVQTrans,
    k: int,
    fit: Images,
    varied: Sequence[Images],
    held_out: Images,
    settings: TrainingSettings,
    on_progress: ProgressCallback = silent,
) -> None:
    """Learn all that belongs to one category alone.

    Args:
        model: changed in place, in what belongs to ``k``.
        k: the category; the other tensors of the model are those of a finished training.
        fit: its good images to learn from, all of category ``k``.
        varied: groups of versions of them.
        held_out: its good images that are not learnt from.
        settings: of the training that the model comes from.
        on_progress: called within every stage.
    """
    only, seed = (k,), settings.seed
    some = _spread(fit)
    learn_codes(model, k, some, settings, on_progress)
    fit_output_projection(model, k, some, RIDGE)
    fit_centre(model, k, fit.features)
    fit_prototypes(model, fit.features, fit.category, seed, on_progress, only=only)
    if model.settings.whiten_distance:
        fit_residual_whitening(model, fit, *varied, only=only)
    if model.settings.map_scale == "good_images":
        fit_map_scale(model, fit, *varied, only=only)
    if model.settings.image_level == "learnt":
        fit_level(model, fit, held_out, only=only)


def _spread(images: Images) -> Images:
    """At most :data:`MOST_IMAGES`, evenly spread."""
    step = max(1, -(-len(images.features) // MOST_IMAGES))
    return Images(images.features[::step], images.category[::step])


@torch.no_grad()
def learn_codes(
    model: HVQTrans,
    k: int,
    fit: Images,
    settings: TrainingSettings,
    on_progress: ProgressCallback = silent,
) -> None:
    """Move one category's codes to where the encoder puts its tokens.

    Args:
        model: changed in place.
        k: the category.
        fit: its good images.
        settings: batch size and seed; whether unused codes are placed again.
        on_progress: called after each epoch.
    """
    model.eval()
    start_codebooks(model, fit.features, fit.category, settings.seed, only=(k,))
    # The encoder is frozen: what it makes of an image is the same in every epoch.
    encoded = [
        torch.cat(level)
        for level in zip(
            *(model.encode(model.normalise(batch)) for batch, _ in batches_of(model, [fit], k)),
            strict=True,
        )
    ]
    books = cast("list[Codebooks]", list(model.codebooks))
    for epoch in range(EPOCHS):
        for level in books:
            level.train()
        for chosen in shuffled_batches(
            len(fit.features), settings.batch_size, settings.seed, epoch
        ):
            outputs = [level[torch.from_numpy(chosen)] for level in encoded]
            model.quantise(outputs, _label(outputs[0], k))
        model.eval()
        if settings.revive_codes and epoch + 1 < EPOCHS * 0.7:
            revive_codes(
                model, fit.features, fit.category, settings.seed * 1_000_003 + epoch, only=(k,)
            )
        on_progress("codes", epoch + 1, EPOCHS)


@torch.no_grad()
def fit_output_projection(model: HVQTrans, k: int, fit: Images, ridge: float) -> None:
    """Set one category's output projection: least squares from decoder outputs to features.

    A ridge holds it to the mean projection of the other categories, where its images do not tell.

    Args:
        model: changed in place; its codes are learnt.
        k: the category.
        fit: its good images.
        ridge: its weight, as a share of the mean eigenvalue of the outputs' second moment.
    """
    model.eval()
    others = [other for other in range(model.categories) if other != k]
    prior = torch.cat([model.output_weight, model.output_bias[..., None]], dim=2)[others]
    start = prior.double().mean(0)  # [channels, 2 * width + 1]
    size = start.shape[1]
    moment = torch.zeros(size, size, dtype=torch.float64, device=start.device)
    product = torch.zeros_like(start)
    for batch, label in batches_of(model, [fit], k):
        tokens = model.normalise(batch)
        levels, _ = model.quantise(model.encode(tokens), label)
        decoded = model.decode([level.codes for level in levels[:-1]]).flatten(0, 1).double()
        inputs = torch.cat([decoded, torch.ones_like(decoded[:, :1])], dim=1)
        missing = tokens.flatten(0, 1).double() - inputs @ start.T
        moment += inputs.T @ inputs
        product += missing.T @ inputs
    moment.diagonal().add_(ridge * moment.diagonal().mean())
    found = start + torch.linalg.solve(moment, product.T).T
    model.output_weight[k] = found[:, :-1]
    model.output_bias[k] = found[:, -1]


def _label(outputs: Tensor, k: int) -> Tensor:
    return torch.full((len(outputs),), k, device=outputs.device)
