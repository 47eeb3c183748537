"""Per-region overlap: how much of each single defect is found, large or small alike.

Pixel AUROC counts pixels, so one large defect outweighs ten small ones. The per-region overlap
(PRO) of a threshold is the share of each defect region above it, averaged over the regions; its
curve over the false positive rate, cut at a rate of 0.3, gives AUPRO. Source: Bergmann et al.,
"The MVTec Anomaly Detection Dataset", IJCV 129 (2021), section 5.2, whose evaluation also takes
regions as 8-connected and joins the curve's points by straight lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.errors import InputError

FPR_LIMIT = 0.3
"""False positive rate up to which AUPRO is published for MVTec AD and VisA."""


@dataclass(frozen=True)
class RegionWeights:
    """A mask's defect regions, as what each pixel weighs in the overlap."""

    weights: NDArray[np.float64]
    """``[h, w]``: 1 / pixels of its region inside a region, 0 outside; each region sums to 1."""
    regions: int
    """How many regions there are."""


def region_weights(mask: NDArray[np.bool_]) -> RegionWeights:
    """Split a mask into its 8-connected regions.

    Args:
        mask: bool ``[h, w]``, true where defective.

    Raises:
        InputError: another shape or dtype.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise InputError(f"a mask must be bool [h, w]; this is {mask.dtype} {list(mask.shape)}.")
    if not mask.any():  # also the mask without pixels, which OpenCV does not take
        return RegionWeights(np.zeros(mask.shape), 0)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    share = np.zeros(count)
    share[1:] = 1.0 / statistics[1:, cv2.CC_STAT_AREA]  # label 0 is all that is outside
    return RegionWeights(share[labels], count - 1)


def aupro(
    good: NDArray[np.int64],
    overlap: NDArray[np.float64],
    fpr_limit: float = FPR_LIMIT,
) -> float | None:
    """Area under the PRO curve up to a false positive rate, divided by that rate.

    Averaging over regions and counting pixels commute: with each defective pixel weighed by one
    over its region's size, the PRO curve is a weighted count by score, so it takes one number a
    score, however many regions there are.

    Args:
        good: int64 ``[n]``, at least 0: good pixels of each score, scores ascending.
        overlap: float64 ``[n]``, at least 0: sum of the weights of :class:`RegionWeights` of the
            pixels of each score.
        fpr_limit: above 0, at most 1.

    Returns:
        0 to 1, or ``None`` where there is no good pixel or no region.

    Raises:
        InputError: other shapes, or a limit outside its range.
    """
    if good.ndim != 1 or good.shape != overlap.shape or not 0.0 < fpr_limit <= 1.0:
        raise InputError(
            f"cannot integrate the overlap of {list(good.shape)} and {list(overlap.shape)} scores "
            f"up to a false positive rate of {fpr_limit}: expected [n], [n] and above 0 to 1."
        )
    if not (good.any() and overlap.any()):
        return None
    false_positives = np.append(0, np.cumsum(good[::-1]))
    found = np.append(0.0, np.cumsum(overlap[::-1]))
    rate, share = false_positives / false_positives[-1], found / found[-1]
    # The point at the limit lies on the line between the last rate within and the first beyond.
    within = rate <= fpr_limit
    x = np.append(rate[within], fpr_limit)
    y = np.append(share[within], np.interp(fpr_limit, rate, share))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / fpr_limit)
