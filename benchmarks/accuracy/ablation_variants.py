"""What the training has no setting for, tried around the product's own training loop.

Each is a start of the codebooks or a context manager. Most of them stand in for one name while
they are entered, which is said where it happens; the loop itself is
:func:`hvq_edge.training.trainer.train_epochs` in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from hvq_edge.errors import InputError
from hvq_edge.model.backbone import tap_channels
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.training import trainer
from hvq_edge.training.batches import to_tensor
from hvq_edge.training.codebook_start import start_codebooks

AVERAGE_DECAY = 0.999
"""Of the weights' moving average, a step."""
JITTER_SCALE = 20.0
"""UniAD's (You et al., "A Unified Model for Multi-class Anomaly Detection", NeurIPS 2022, section
3): noise in every image, of this many times the token's length divided by its channels."""
NEIGHBOURS = 7
"""Side of UniAD's masked neighbourhood, in cells."""
KMEANS_IMAGES = 64
"""Images of a category that k-means sees."""

Start = Callable[[HVQTrans, NDArray[np.float16], NDArray[np.int64], int], None]
"""Model, raw features, category, seed: places every code before training, as
:func:`hvq_edge.training.codebook_start.start_codebooks` does."""
Around = Callable[[HVQTrans], AbstractContextManager[None]]


def _nothing(model: HVQTrans) -> AbstractContextManager[None]:  # noqa: ARG001
    return nullcontext()


@dataclass(frozen=True)
class Variant:
    """A change that is no setting."""

    start: Start = start_codebooks
    """Used where the settings start codebooks from images."""
    training: Around = _nothing
    """Entered for the training loop."""
    always: Around = _nothing
    """Entered for the loop and for all that uses the model after it."""


@torch.no_grad()
def kmeans_start(
    model: HVQTrans, features: NDArray[np.float16], category: NDArray[np.int64], seed: int
) -> None:
    """Start each codebook at the k-means centres of its category's tokens.

    A code's usage is the share of tokens that its centre has, so that the moving averages begin
    where they would settle.
    """
    training = model.training
    model.eval()
    generator = np.random.default_rng(seed)
    *lower, top = cast("list[Codebooks]", list(model.codebooks))
    for k in range(model.categories):
        own = generator.permutation(np.flatnonzero(category == k))[:KMEANS_IMAGES]
        outputs = model.encode(to_tensor(model, features[np.sort(own)]))
        label = torch.full((len(own),), k, device=outputs[0].device)
        _place_centres(top, k, outputs[-1], seed)
        top_codes = top(outputs[-1], label).codes
        for level, books in enumerate(lower):
            _place_centres(books, k, torch.cat([outputs[level], top_codes], dim=2), seed)
    model.train(training)


def _place_centres(books: Codebooks, k: int, tokens: Tensor, seed: int) -> None:
    from sklearn.cluster import MiniBatchKMeans

    flat = tokens.flatten(0, 1).cpu().numpy()
    count = min(books.codes.shape[1], len(flat))
    kmeans = MiniBatchKMeans(count, batch_size=2048, n_init=1, max_iter=20, random_state=seed)
    members = np.bincount(kmeans.fit_predict(flat), minlength=count)
    usage = np.maximum(members, 1) / len(tokens)  # tokens an image gives to the code
    slots = np.arange(books.codes.shape[1]) % count  # more codes than tokens: some twice
    device = books.codes.device
    books.place(
        k,
        torch.arange(len(slots), device=device),
        torch.from_numpy(kmeans.cluster_centers_[slots].astype(np.float32)).to(device),
        torch.from_numpy(usage[slots].astype(np.float32)).to(device),
    )


@contextmanager
def averaged_weights(model: HVQTrans, decay: float = AVERAGE_DECAY) -> Iterator[None]:
    """Average the weights over the steps; on leaving, the model holds the averages.

    The codebooks are averaged with them, since codes of the last step do not fit an averaged
    encoder. In the first steps the decay is (1 + t) / (10 + t), so that the random start is
    forgotten.
    """
    weights: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    tensors = weights + list(model.codebooks.buffers())
    averages = [tensor.detach().clone() for tensor in tensors]
    steps = 0

    @torch.no_grad()
    def average(*_: object) -> None:
        nonlocal steps
        steps += 1
        kept = min(decay, (1 + steps) / (10 + steps))
        for mean, tensor in zip(averages, tensors, strict=True):
            mean.lerp_(tensor, 1 - kept)

    hook = register_optimizer_step_post_hook(average)
    try:
        yield
    finally:
        hook.remove()
    with torch.no_grad():
        for mean, tensor in zip(averages, tensors, strict=True):
            tensor.copy_(mean)


@contextmanager
def jittered_features(model: HVQTrans, scale: float = JITTER_SCALE) -> Iterator[None]:
    """Add noise to what the encoder sees while training; what it has to rebuild stays clean.

    Gaussian, with a deviation of ``scale`` times the token's length divided by its channels.
    Stands in for ``model.encode``.
    """
    encode = model.encode

    def noisy(features: Tensor) -> list[Tensor]:
        if model.training:
            deviation = features.norm(dim=2, keepdim=True) * (scale / features.shape[2])
            features = features + torch.randn_like(features) * deviation
        return encode(features)

    with mock.patch.object(model, "encode", noisy):
        yield


@contextmanager
def noisy_features(model: HVQTrans, deviation: float) -> Iterator[None]:
    """As :func:`jittered_features`, with one deviation for all: 1 is that of good features."""
    encode = model.encode

    def noisy(features: Tensor) -> list[Tensor]:
        if model.training:
            features = features + deviation * torch.randn_like(features)
        return encode(features)

    with mock.patch.object(model, "encode", noisy):
        yield


@contextmanager
def masked_tokens(model: HVQTrans, share: float) -> Iterator[None]:
    """Hide a share of the tokens from the encoder while training; all have to be rebuilt.

    A hidden token is zeros, the mean of good features. Stands in for ``model.encode``.
    """
    encode = model.encode

    def masked(features: Tensor) -> list[Tensor]:
        if model.training:
            seen = torch.rand(features.shape[:2], device=features.device) >= share
            features = features * seen[..., None]
        return encode(features)

    with mock.patch.object(model, "encode", masked):
        yield


Loss = Callable[[Tensor, Tensor], Tensor]
"""Rebuilt and true features, ``[b, l, c]`` each -> scalar."""


@contextmanager
def _learnt_by(loss: Loss) -> Iterator[None]:
    """Stands in for :func:`hvq_edge.training.trainer.feature_loss`."""
    with mock.patch.object(trainer, "feature_loss", loss):
        yield


def hard_tokens(model: HVQTrans, power: float) -> AbstractContextManager[None]:  # noqa: ARG001
    """Weigh each token's error by that error to a power, with a mean weight of 1 in an image.

    A negative power weighs what is hard less.
    """

    def loss(rebuilt: Tensor, features: Tensor) -> Tensor:
        error = (rebuilt - features).square().mean(2)
        weight = error.detach() ** power
        return (weight / weight.mean(1, keepdim=True) * error).mean()

    return _learnt_by(loss)


def worst_tokens(model: HVQTrans, share: float) -> AbstractContextManager[None]:  # noqa: ARG001
    """Learn from the worst rebuilt share of each image's tokens alone."""

    def loss(rebuilt: Tensor, features: Tensor) -> Tensor:
        error = (rebuilt - features).square().mean(2)
        return error.topk(round(share * error.shape[1]), dim=1).values.mean()

    return _learnt_by(loss)


def without_odd_tokens(model: HVQTrans, share: float) -> AbstractContextManager[None]:  # noqa: ARG001
    """Leave the worst rebuilt share of each batch's tokens out of the loss: cleaning."""

    def loss(rebuilt: Tensor, features: Tensor) -> Tensor:
        error = (rebuilt - features).square().mean(2).flatten()
        return error.topk(len(error) - round(share * len(error)), largest=False).values.mean()

    return _learnt_by(loss)


def cosine_loss(model: HVQTrans) -> AbstractContextManager[None]:  # noqa: ARG001
    """Learn the direction of tokens instead of their values."""

    def loss(rebuilt: Tensor, features: Tensor) -> Tensor:
        return 2 * (1 - F.cosine_similarity(rebuilt, features, dim=2)).mean()

    return _learnt_by(loss)


def taps_alike(model: HVQTrans) -> AbstractContextManager[None]:
    """Let each tap's mean error count alike, however many channels it has."""
    sizes = tap_channels(model.settings.backbone)

    def loss(rebuilt: Tensor, features: Tensor) -> Tensor:
        taps = (rebuilt - features).square().split(list(sizes), dim=2)
        return torch.stack([tap.mean() for tap in taps]).mean()

    return _learnt_by(loss)


@contextmanager
def neighbours_masked(model: HVQTrans, size: int = NEIGHBOURS) -> Iterator[None]:
    """Let no token attend to itself and its neighbours, in encoder and decoder.

    A token that sees itself is copied instead of rebuilt. Stands in for PyTorch's
    ``scaled_dot_product_attention``.

    Raises:
        InputError: the neighbourhood covers the whole grid for some token.
    """
    attend = far_from_each_other(model.settings.grid, size).to(model.feature_mean.device)
    if not attend.any(dim=1).all():
        raise InputError(
            f"a neighbourhood of {size}x{size} leaves nothing to see on a grid of "
            f"{model.settings.grid}x{model.settings.grid} tokens.",
            next_step="use a larger input_side, or leave this row out",
        )
    masked = partial(F.scaled_dot_product_attention, attn_mask=attend)
    with mock.patch.object(F, "scaled_dot_product_attention", masked):
        yield


def far_from_each_other(grid: int, size: int) -> Tensor:
    """Which tokens lie outside each other's neighbourhood, bool ``[grid**2, grid**2]``."""
    cell = torch.arange(grid)
    near = (cell[:, None] - cell).abs() <= size // 2
    return ~(near[:, None, :, None] & near[None, :, None, :]).view(grid**2, grid**2)


@contextmanager
def pooled_keys(model: HVQTrans, side: int = 2) -> Iterator[None]:
    """Let every token attend to means of ``side`` x ``side`` tokens, in encoder and decoder.

    Products of attention take ``side**2`` times less. Stands in for PyTorch's
    ``scaled_dot_product_attention``.

    Raises:
        InputError: the grid cannot be divided so.
    """
    grid = model.settings.grid
    if grid % side:
        raise InputError(
            f"a grid of {grid}x{grid} tokens has no means of {side}x{side}.",
            next_step="use another input_side, or leave this row out",
        )
    attend = F.scaled_dot_product_attention

    def means(tokens: Tensor) -> Tensor:
        cells: Tensor = tokens.unflatten(2, (grid // side, side, grid // side, side))
        return cells.mean((3, 5)).flatten(2, 3)

    def attend_to_means(query: Tensor, key: Tensor, value: Tensor, **named: Any) -> Tensor:  # noqa: ANN401  # as PyTorch's
        return attend(query, means(key), means(value), **named)

    with mock.patch.object(F, "scaled_dot_product_attention", attend_to_means):
        yield


VARIANTS: dict[str, Variant] = {
    "": Variant(),
    "k-means start": Variant(start=kmeans_start),
    "averaged weights": Variant(training=averaged_weights),
    "jittered features": Variant(training=jittered_features),
    "neighbours masked": Variant(always=neighbours_masked),
    "keys pooled": Variant(always=pooled_keys),
    "noise 0.2": Variant(training=partial(noisy_features, deviation=0.2)),
    "noise 0.5": Variant(training=partial(noisy_features, deviation=0.5)),
    "tokens masked": Variant(training=partial(masked_tokens, share=0.25)),
    "hard tokens": Variant(training=partial(hard_tokens, power=1.0)),
    "worst half": Variant(training=partial(worst_tokens, share=0.5)),
    "odd tokens left out": Variant(training=partial(without_odd_tokens, share=0.02)),
    "cosine loss": Variant(training=cosine_loss),
    "taps alike": Variant(training=taps_alike),
}
"""By the name that rows use."""
