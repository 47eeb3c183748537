"""Good test pictures of a kind that no training picture shows.

A variant of the product that only the test pictures have is rejected by any model that learns from
good pictures, and the metrics then tell of the data, not of the model. So such pictures are counted
and named.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from hvq_edge.evaluation.image_result import PictureResult
from hvq_edge.evaluation.metrics.image_metrics import auroc

UNSEEN_MARGIN = 0.4
"""A picture with a smaller margin is unlike all that was learnt from: the margin is 0 at twice the
distance of the farthest held-out good picture, so this is 1.2 times (docs/metrics.md)."""
A_KIND = 0.05
"""Share of the good test pictures from which unseen ones are a kind: single odd pictures are in
every test set."""


class UnseenGood(BaseModel):
    """One category's good test pictures of unseen kinds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    pictures: int
    image_auroc: float | None
    """Of the category without them; ``None`` where one of the classes is then missing."""

    def is_kind(self, good: int) -> bool:
        """Whether they are more than single odd pictures among ``good``."""
        return self.pictures >= max(1, A_KIND * good)

    def note(self, category: str, good: int, image_auroc: float | None) -> str:
        """Say what they are, what they cost, and what to do.

        Args:
            category: its name.
            good: its good test pictures, these included.
            image_auroc: of all its test pictures.
        """
        one = self.pictures == 1
        text = (
            f"{category}: {self.pictures} of {good} good test pictures "
            f"{'is' if one else 'are'} unlike every good picture learnt from"
        )
        if image_auroc is not None and self.image_auroc is not None:
            text += (
                f"; without {'it' if one else 'them'} the image AUROC is "
                f"{100 * self.image_auroc:.1f} instead of {100 * image_auroc:.1f}"
            )
        return (
            f"{text}. If the line makes such parts, put some into train/good and train again; "
            "metrics.json tells which they are (margin)."
        )


def is_unseen(result: PictureResult) -> bool:
    """Whether a picture is good and yet unlike every good picture learnt from."""
    return result.picture.good and result.margin < UNSEEN_MARGIN


def unseen_good(results: Sequence[PictureResult]) -> UnseenGood | None:
    """Count one category's good pictures of unseen kinds.

    Args:
        results: its test pictures.

    Returns:
        ``None`` where nothing is known of them, because the category was given.

    Raises:
        InputError: a score is not finite.
        MissingCapability: scikit-learn is not installed.
    """
    if not any(np.isfinite(result.margin) for result in results):
        return None
    others = [result for result in results if not is_unseen(result)]
    scores = np.array([result.score for result in others], dtype=np.float64)
    defective = np.array([not result.picture.good for result in others], dtype=np.bool_)
    area = auroc(scores, defective) if others else None
    return UnseenGood(pictures=len(results) - len(others), image_auroc=area)
