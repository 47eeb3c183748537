"""What an image must be like to be judged, as learnt from the training images."""

from __future__ import annotations

from pydantic import Field

from hvq_edge.common.records import Strict
from hvq_edge.verdict.likeness.usual import UsualLook


class ImageLimits(Strict):
    """What a usable frame looks like, learnt from training images (8-bit grey levels).

    Outside these limits there is no decision: the camera, not the part, is at fault.
    """

    brightness_low: float
    brightness_high: float
    """Mean grey level of the resized frame."""
    contrast_low: float
    """Standard deviation of the grey level."""
    sharpness_low: float
    """Variance of the Laplacian of the grey level."""

    def with_all_of(self, other: ImageLimits) -> ImageLimits:
        """Return limits within which all lies that is within either."""
        return ImageLimits(
            brightness_low=min(self.brightness_low, other.brightness_low),
            brightness_high=max(self.brightness_high, other.brightness_high),
            contrast_low=min(self.contrast_low, other.contrast_low),
            sharpness_low=min(self.sharpness_low, other.sharpness_low),
        )


class Placement(Strict):
    """Where a category's parts lie in the image (:mod:`hvq_edge.verdict.placement`)."""

    reference: str = Field(pattern=r"^[0-9A-Za-z+/]{4182}==$")
    """Mean of the training images: 56x56 grey levels of 8 bits, row by row, in Base64."""
    gain_high: float
    """A frame that matches the reference better than this elsewhere than in its place has moved."""
    similarity_low: float
    """And that matches there at least so well: else it is something else that is wrong."""


class CategoryLimits(Strict):
    """What a usable frame of one category looks like."""

    image: ImageLimits
    usual: UsualLook
    """Beyond this there is still a decision, and the line says so."""
    placement: Placement | None = None
    """``None``: training images do not lie alike, so a camera that moved cannot be told."""
