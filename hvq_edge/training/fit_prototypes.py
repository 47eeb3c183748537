"""Feature prototypes: whitening and k-means centres of each category's own tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.prototypes import FeaturePrototypes, average_neighbours
from hvq_edge.training.batches import standardised
from hvq_edge.training.closed_form import TOKENS_A_CATEGORY, whitened

_IMAGES_AT_ONCE = 32


@torch.no_grad()
def fit_prototypes(
    model: HVQTrans,
    features: NDArray[np.float16],
    category: NDArray[np.int64],
    seed: int,
    on_progress: ProgressCallback = silent,
    *,
    only: Sequence[int] | None = None,
) -> None:
    """Set the whitening and the prototypes of every category, the fine ones too.

    Args:
        model: its ``prototypes`` and ``fine_prototypes`` are changed in place.
        features: float16 ``[images, tokens, raw_channels]``, raw.
        category: int64 ``[images]``.
        seed: for the choice of tokens and of the first centres.
        on_progress: called after each category.
        only: of these categories; ``None``: of all.
    """
    kinds: list[tuple[FeaturePrototypes, Callable[[Tensor], Tensor]]] = []
    if (coarse := model.prototypes) is not None:
        window = coarse.window
        kinds.append((coarse, lambda batch: average_neighbours(model.coarse(batch), window)))
    if model.fine_prototypes is not None:
        kinds.append((model.fine_prototypes, model.fine))
    chosen = range(model.categories) if only is None else only
    for done, k in enumerate(chosen if kinds else (), start=1):
        own = np.flatnonzero(category == k)
        for prototypes, tokens_of in kinds:
            _fit_category(model, prototypes, tokens_of, k, features, own, seed)
        on_progress("prototypes", done, len(chosen))


def _fit_category(
    model: HVQTrans,
    prototypes: FeaturePrototypes,
    tokens_of: Callable[[Tensor], Tensor],
    k: int,
    features: NDArray[np.float16],
    own: NDArray[np.intp],
    seed: int,
) -> None:
    from sklearn.cluster import MiniBatchKMeans

    rng = np.random.default_rng((seed, k))
    per_image = max(1, TOKENS_A_CATEGORY // len(own))
    sample = []
    for start in range(0, len(own), _IMAGES_AT_ONCE):
        batch = standardised(model, features[own[start : start + _IMAGES_AT_ONCE]])
        for image in tokens_of(batch):
            chosen = rng.permutation(len(image))[:per_image]
            sample.append(image[torch.from_numpy(chosen).to(image.device)])
    whitening, shift, white = whitened(torch.cat(sample).double().cpu().numpy())

    count = prototypes.centres.shape[1]
    if len(white) <= count:  # as many prototypes as tokens or more: the tokens, some twice
        centres = np.resize(white, (count, white.shape[1]))
    else:
        kmeans = MiniBatchKMeans(count, batch_size=2048, n_init=1, max_iter=20, random_state=seed)
        centres = kmeans.fit(white).cluster_centers_
    prototypes.whitening[k] = torch.from_numpy(whitening)
    prototypes.shift[k] = torch.from_numpy(shift)
    prototypes.centres[k] = torch.from_numpy(np.asarray(centres))
