"""Which prototypes a category gets from new images, and which of its old ones go.

A table has a fixed size, and k-means has filled it. A prototype that lies close to another one is
missed least: what it stood for is still near its neighbour. So the new ones take the place of one
of each closest pair, which needs no training image. Spare places at export would hardly be better
(docs/explanation/learning.md, "Replaced, not added") and would not help bundles that are in use.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.export.learn.tables import Centres

MOST_REPLACED = 1 / 8
"""Share of a category's prototypes that one learning replaces at most: see above."""
TOKENS_A_PROTOTYPE = 4
"""At least so many tokens have a new prototype: fewer, and single tokens are learnt by heart."""
_ROUNDS = 20
_SEED = 0


def how_many(prototypes: int, tokens: int) -> int:
    """Return how many of a category's prototypes so many tokens of new images replace."""
    return max(1, min(int(prototypes * MOST_REPLACED), tokens // TOKENS_A_PROTOTYPE))


def learnt_centres(known: Centres, tokens: NDArray[np.float32]) -> tuple[tuple[int, ...], Centres]:
    """Let new images join a category's prototypes.

    Args:
        known: the category's prototypes, ``[prototypes, channels]``.
        tokens: of the new images, ``[images, tokens, channels]``, whitened.

    Returns:
        The places that changed, and all prototypes, of the same shape as ``known``.
    """
    flat = tokens.reshape(-1, tokens.shape[-1])
    count = how_many(len(known), len(flat))
    columns = least_missed(known, count)
    made = known.copy()
    made[columns] = centres_of(flat, count)
    return tuple(columns), made


def centres_of(tokens: NDArray[np.float32], count: int) -> Centres:
    """Return the k-means centres of tokens, the same ones every time.

    Args:
        tokens: ``[tokens, channels]``, whitened; at least ``count``.
        count: of the centres.
    """
    cv2.setRNGSeed(_SEED)  # it has no argument for that; nothing else here draws from it
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, _ROUNDS, 0.0)
    _, _, centres = cv2.kmeans(
        np.ascontiguousarray(tokens, np.float32),
        count,
        None,
        criteria,
        1,
        cv2.KMEANS_PP_CENTERS,
    )
    return np.asarray(centres, np.float32)


def least_missed(centres: Centres, count: int) -> list[int]:
    """Name the prototypes that are missed least: again and again one of the closest pair.

    Args:
        centres: ``[prototypes, channels]``.
        count: how many; less than there are.
    """
    squares = np.square(centres).sum(1, dtype=np.float64)
    apart = squares[:, None] + squares - 2.0 * (centres @ centres.T)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(1)
    distance = apart[np.arange(len(apart)), nearest]
    gone: list[int] = []
    for _ in range(count):
        place = int(distance.argmin())
        gone.append(place)
        apart[:, place] = np.inf
        distance[place] = np.inf
        for other in np.flatnonzero((nearest == place) & np.isfinite(distance)):
            nearest[other] = apart[other].argmin()
            distance[other] = apart[other, nearest[other]]
    return gone
