"""Good test images of a kind that no training image shows.

A variant of the product that only the test images have is rejected by any model that learns from
good images, and the metrics then tell of the data, not of the model. So such images are counted
and named.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hvq_edge.common.records import Extensible
from hvq_edge.common.wording import counted
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.image_metrics import auroc

UNSEEN_MARGIN = 0.4
"""An image with a smaller margin is unlike all that was learnt from: the margin is 0 at twice the
distance of the farthest held-out good image, so this is 1.2 times (docs/reference/metrics.md)."""
A_KIND = 0.05
"""Share of the good test images from which unseen ones are a kind: single odd images are in
every test set."""


class UnseenGood(Extensible):
    """One category's good test images of unseen kinds."""

    images: int
    image_auroc: float | None
    """Of the category without them; ``None`` where one of the classes is then missing."""

    def is_kind(self, good: int) -> bool:
        """Whether they are more than single odd images among ``good``."""
        return self.images >= max(1, A_KIND * good)

    def note(self, category: str, good: int, image_auroc: float | None) -> str:
        """Say what they are, what they cost, and what to do.

        Args:
            category: its name.
            good: its good test images, these included.
            image_auroc: of all its test images.
        """
        one = self.images == 1
        text = (
            f"{category}: {self.images} of {counted(good, 'good test image')} "
            f"{'is' if one else 'are'} unlike every good image learnt from"
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


def is_unseen(result: ImageResult) -> bool:
    """Whether an image is good and yet unlike every good image learnt from."""
    return result.image.good and result.margin < UNSEEN_MARGIN


def unseen_good(results: Sequence[ImageResult]) -> UnseenGood | None:
    """Count one category's good images of unseen kinds.

    Args:
        results: its test images.

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
    defective = np.array([not result.image.good for result in others], dtype=np.bool_)
    area = auroc(scores, defective) if others else None
    return UnseenGood(images=len(results) - len(others), image_auroc=area)
