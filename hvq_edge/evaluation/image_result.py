"""How one test image was judged: what metrics, charts and example images are made from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvq_edge.data.dataset import DatasetImage


@dataclass(frozen=True, eq=False)
class ImageResult:
    """How one test image was judged. Compared and hashed by identity."""

    image: DatasetImage
    chosen: str
    """The category it was judged as: its own, or the one the model chose."""
    score: float
    map: NDArray[np.float32]
    """``[height / 16, width / 16]`` of the frame."""
    margin: float = math.inf
    """1 at the chosen category's centre, 0 as far off as an image of it may be; infinite where the
    category was given."""
    refused: str | None = None
    """Why the line decides nothing on it whatever the threshold; ``None`` where it decides."""

    @property
    def finite(self) -> bool:
        """Whether it can be ranked: its score and its map are numbers."""
        return math.isfinite(self.score) and bool(np.isfinite(self.map).all())
