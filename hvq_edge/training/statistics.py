"""What is fitted in closed form: feature statistics, category classifier, scale of the map."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hvq_edge.model.hvq_trans import HVQTrans, pool
from hvq_edge.training.batches import to_tensor

_BATCH = 16
_SMALLEST_STD = 1e-3
"""Relative to the mean over channels: a dead channel is not blown up."""


@torch.no_grad()
def fit_feature_statistics(model: HVQTrans, features: NDArray[np.float16]) -> None:
    """Set the model's per-channel mean and standard deviation.

    Args:
        model: changed in place.
        features: float16 ``[pictures, tokens, channels]``, raw.
    """
    channels = features.shape[2]
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
    model: HVQTrans, features: NDArray[np.float16], category: NDArray[np.int64]
) -> None:
    """Fit the category classifier: linear discriminant analysis on pooled features.

    Closed form (shared covariance, Ledoit–Wolf shrinkage), so it adds nothing to training and one
    small matrix to the graph.
    """
    model.classifier_fitted.fill_(True)
    if model.categories == 1:
        return  # zero weights choose category 0
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    pooled = np.concatenate(
        [
            pool(to_tensor(model, features[start : start + _BATCH])).cpu().numpy()
            for start in range(0, len(features), _BATCH)
        ]
    ).astype(np.float64)
    # Equal priors: how many pictures a category has says nothing of the next part on the line.
    priors = np.full(model.categories, 1 / model.categories)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=priors)
    lda.fit(pooled, category)
    weight, bias = lda.coef_, lda.intercept_
    if model.categories == 2:  # scikit-learn gives one row for two classes: second minus first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    model.classifier_weight.copy_(torch.from_numpy(weight))
    model.classifier_bias.copy_(torch.from_numpy(bias))


@torch.no_grad()
def fit_map_scale(
    model: HVQTrans, features: NDArray[np.float16], category: NDArray[np.int64]
) -> None:
    """Set centre and spread of distance and transport score, by category and position.

    The spread of a position is pooled half and half with its category's, in variance: with few
    pictures a position's own estimate is too noisy to divide by.
    """
    model.eval()
    model.map_centre.zero_()
    model.map_spread.fill_(1)
    for k in range(model.categories):
        own = np.flatnonzero(category == k)
        both = []
        for start in range(0, len(own), _BATCH):
            batch = to_tensor(model, features[own[start : start + _BATCH]])
            label = torch.full((len(batch),), k, device=batch.device)
            rebuilt = model.reconstruct(batch, label)
            distance = (rebuilt.features - batch).square().sum(2).sqrt()
            both.append(torch.stack([distance, rebuilt.transport]))
        values = torch.cat(both, dim=1).double()  # [2, pictures, tokens]
        centre = values.mean(1)
        variance = (values - centre[:, None]).square().mean(1)
        pooled = (variance + variance.mean(1, keepdim=True)) / 2
        model.map_centre[:, k] = centre.float()
        model.map_spread[:, k] = pooled.sqrt().clamp_min(1e-6).float()
