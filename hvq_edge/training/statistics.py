"""What is fitted in closed form: feature statistics, classifier, whitening, scale of the map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvq_edge.model.category_classifier import pool
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.image_score import image_level
from hvq_edge.training.batches import Images, standardised
from hvq_edge.training.closed_form import inverse_root, level_of_good_images, scale_of_parts

_BATCH = 16
_SMALLEST_STD = 1e-3
"""Relative to the mean over channels: a dead channel is not blown up."""
REACH = 2.0
"""Multiple of the largest distance of a held-out image to its category's centre: what is farther
is no part that the model knows, out of distribution (docs/explanation/folding.md: five products,
each left out in turn)."""
CLASSIFIER_RIDGE = 3.0
"""The same share in the classifier's whitening. With less, directions in which training images
hardly vary decide, and the compression of a video alone makes a part unknown."""


@torch.no_grad()
def fit_feature_statistics(model: HVQTrans, features: NDArray[np.float16]) -> None:
    """Set the model's per-channel mean and standard deviation.

    Args:
        model: changed in place.
        features: float16 ``[images, tokens, raw_channels]``, raw.
    """
    features, channels = features[..., : model.channels], model.channels
    count, total, squares = 0, np.zeros(channels), np.zeros(channels)
    for start in range(0, len(features), _BATCH):
        batch = features[start : start + _BATCH].reshape(-1, channels).astype(np.float64)
        count += len(batch)
        total += batch.sum(0)
        squares += np.square(batch).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std = np.maximum(std, _SMALLEST_STD * std.mean())
    model.feature_mean.copy_(torch.from_numpy(mean))
    model.feature_std.copy_(torch.from_numpy(std))


@torch.no_grad()
def fit_classifier(
    model: HVQTrans,
    features: NDArray[np.float16],
    category: NDArray[np.int64],
    held_out: NDArray[np.float16],
    category_held_out: NDArray[np.int64],
) -> None:
    """Fit the category classifier and how far off an image of a category may be.

    Args:
        model: changed in place.
        features: float16 ``[images, tokens, channels]``, raw.
        category: int64 ``[images]``.
        held_out: float16 ``[others, tokens, channels]``: images not in ``features``.
        category_held_out: int64 ``[others]``.
    """
    from sklearn.covariance import ledoit_wolf

    pooled = _pooled(model, features)
    centres = np.stack([pooled[category == k].mean(0) for k in range(model.categories)])
    inner = pooled - centres[category]
    # Shrinkage is towards a multiple of the identity: channels are brought to one scale first.
    scale = np.maximum(inner.std(0), _SMALLEST_STD * max(float(inner.std()), 1e-12))
    covariance = ledoit_wolf(inner / scale, assume_centered=True)[0]
    whitening = inverse_root(covariance, ridge=CLASSIFIER_RIDGE) / scale[:, None]

    white = _pooled(model, held_out) @ whitening
    distance = np.linalg.norm(white - (centres @ whitening)[category_held_out], axis=1)
    classifier = model.classifier
    classifier.whitening.copy_(torch.from_numpy(whitening))
    classifier.centres.copy_(torch.from_numpy(centres @ whitening))
    classifier.reach.fill_(REACH * float(distance.max()))
    classifier.fitted.fill_(True)


@torch.no_grad()
def fit_centre(model: HVQTrans, k: int, features: NDArray[np.float16]) -> None:
    """Set one category's centre in a classifier that is fitted; its whitening stays.

    Args:
        model: changed in place.
        k: the category.
        features: float16 ``[images, tokens, channels]``, raw: of its good images.
    """
    classifier = model.classifier
    centre = torch.from_numpy(_pooled(model, features).mean(0)).to(classifier.whitening)
    classifier.centres[k] = centre @ classifier.whitening


def _pooled(model: HVQTrans, features: NDArray[np.float16]) -> NDArray[np.float64]:
    """float64 ``[images, 2 * channels]``."""
    parts = [
        pool(model.coarse(standardised(model, features[start : start + _BATCH]))).cpu().numpy()
        for start in range(0, len(features), _BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


@torch.no_grad()
def fit_residual_whitening(
    model: HVQTrans, *images: Images, only: Sequence[int] | None = None
) -> None:
    """Set each category's whitening of the rebuilding error.

    A channel mix that good images are always rebuilt well in tells more of a defect than one that
    varies anyway. The matrix is the symmetric inverse root of the errors' second moment, with a
    ridge of :data:`hvq_edge.training.closed_form.RIDGE` of its mean eigenvalue.

    Args:
        model: changed in place.
        images: groups of good images, which count alike.
        only: of these categories; ``None``: of all.
    """
    model.eval()
    for k in range(model.categories) if only is None else only:
        channels = model.residual_whitening.shape[1]
        total, count = torch.zeros(channels, channels, dtype=torch.float64), 0
        for batch, label in batches_of(model, images, k):
            tokens = model.normalise(batch)
            residual = (model.reconstruct(tokens, label).features - tokens).flatten(0, 1)
            residual = residual.double()
            total += (residual.T @ residual).cpu()
            count += len(residual)
        root = inverse_root((total / count).numpy())
        model.residual_whitening[k] = torch.from_numpy(root)


@torch.no_grad()
def fit_map_scale(model: HVQTrans, *images: Images, only: Sequence[int] | None = None) -> None:
    """Set centre and spread of the map's parts, by category and position.

    Args:
        model: changed in place.
        images: groups of good images, which count alike.
        only: of these categories; ``None``: of all.
    """
    model.eval()
    for k in range(model.categories) if only is None else only:
        parts = [
            model.map_parts(batch, model.reconstruct(model.normalise(batch), label), label)
            for batch, label in batches_of(model, images, k)
        ]
        centre, spread = scale_of_parts(torch.cat(parts, dim=1).double().cpu().numpy())
        model.map_centre[:, k] = torch.from_numpy(centre)
        model.map_spread[:, k] = torch.from_numpy(spread)


@torch.no_grad()
def fit_level(
    model: HVQTrans, fit: Images, held_out: Images, *, only: Sequence[int] | None = None
) -> None:
    """Set how much of an image's own level each category's score leaves out.

    Args:
        model: changed in place.
        fit: good images that the model learnt from.
        held_out: good images that it did not.
        only: of these categories; ``None``: of all.
    """
    model.eval()
    for k in range(model.categories) if only is None else only:
        learnt, others = (_level_and_window(model, images, k) for images in (fit, held_out))
        share, limit = level_of_good_images(learnt, others)
        model.level_share[k], model.level_limit[k] = share, limit


def _level_and_window(model: HVQTrans, images: Images, k: int) -> NDArray[np.float64]:
    """Level and highest window of one category's images, float64 ``[images, 2]``."""
    found = []
    for batch, label in batches_of(model, [images], k):
        rebuilt = model.reconstruct(model.normalise(batch), label)
        anomaly_map = model.anomaly_map(batch, rebuilt, label)
        level = image_level(anomaly_map.flatten(1))[:, 0]
        found.append(torch.stack([level, model.highest_window(anomaly_map)], dim=1))
    return torch.cat(found).double().cpu().numpy() if found else np.zeros((0, 2))


def batches_of(
    model: HVQTrans, groups: Sequence[Images], k: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield standardised features and labels of one category's images, batch by batch."""
    for images in groups:
        own = np.flatnonzero(images.category == k)
        for start in range(0, len(own), _BATCH):
            batch = standardised(model, images.features[own[start : start + _BATCH]])
            yield batch, torch.full((len(batch),), k, device=batch.device)
