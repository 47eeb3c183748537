"""What is done to every frame of a source before anyone sees it: skip, rotate, cut out, mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.stream.capture.part_number import PartReader
from hvq_edge.stream.settings import Points, Rectangle, Rotation
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.source import (
    Frame,
    Image,
    Source,
    comes_on_demand,
    is_camera,
    transport_of,
)

FILL = (124, 116, 104)
"""RGB outside a polygon: the mean of ImageNet, which the backbone subtracts. What is left is about
0, as beyond the image's own border, where convolutions pad with zeros: the model meets nothing
there that it does not meet at every edge. Black or white would be a bright contour to it."""

_TURNS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


@dataclass(frozen=True)
class Preparation:
    """What is done, in this order."""

    every: int = 1
    """Keep every n-th frame."""
    rotate: Rotation = 0
    """Degrees clockwise."""
    roi: Rectangle | None = None
    """Cut this out of the rotated image."""
    polygon: Points | None = None
    """Cut out this polygon's bounding box and fill what is outside with :data:`FILL`."""


class PreparedSource:
    """A source whose frames are prepared.

    Frames that are skipped are not frames of the run: they are neither decided nor counted, and
    those kept bear the numbers they have in the source (0, 5, 10 with ``every=5``). A lost frame is
    never skipped. An image in which a region does not lie is a lost frame.

    Args:
        source: closed with this one.
        preparation: what is done.
        name: what the camera is called; ``None``: as the source is.
        parts: finds serial numbers; ``None``: those that the source gives are all.
    """

    def __init__(
        self,
        source: Source,
        preparation: Preparation,
        name: str | None = None,
        parts: PartReader | None = None,
    ) -> None:
        self._source = source
        self._preparation = preparation
        self._name = name or source.name
        self._parts = parts
        self._mask: NDArray[np.bool_] | None = None
        self.live = source.live
        self.is_camera = is_camera(source)

    @property
    def on_demand(self) -> bool:
        """Whether no frame is due now, as the source says."""
        return comes_on_demand(self._source)

    @property
    def unread_parts(self) -> int:
        """Images whose part should have a serial number, and none was found."""
        return self._parts.unread if self._parts is not None else 0

    @property
    def transport(self) -> Transport:
        """What went wrong on the way from the camera, as the source says."""
        return transport_of(self._source)

    @property
    def name(self) -> str:
        """What the camera is called."""
        return self._name

    @property
    def frames_per_second(self) -> float | None:
        """The source's rate, less what is skipped."""
        rate = self._source.frames_per_second
        return rate / self._preparation.every if rate else None

    def __iter__(self) -> Iterator[Frame]:
        """Give prepared frames."""
        for number, frame in enumerate(self._source):
            if frame.image is None:
                yield self._with_part(frame, None)
            elif number % self._preparation.every == 0:
                yield self._prepare(frame, frame.image)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _prepare(self, frame: Frame, image: Image) -> Frame:
        if self._preparation.rotate:
            image = rotate(image, self._preparation.rotate)
        frame = self._with_part(frame, image)
        roi = self._preparation.roi
        if self._preparation.polygon is not None:
            roi = bounding_box(self._preparation.polygon)
        if roi is None:
            return replace(frame, image=image)
        left, top, width, height = roi
        if image.shape[0] < top + height or image.shape[1] < left + width:
            size = f"{image.shape[1]}x{image.shape[0]}"
            fault = f"the region {left},{top},{width},{height} does not lie in an image of {size}"
            return replace(frame, image=None, fault=fault)
        image = np.ascontiguousarray(image[top : top + height, left : left + width])
        if self._preparation.polygon is not None:
            if self._mask is None:
                self._mask = outside(self._preparation.polygon)
            image[self._mask] = FILL
        return replace(frame, image=image)

    def _with_part(self, frame: Frame, image: Image | None) -> Frame:
        if self._parts is None:
            return frame
        return replace(frame, part=self._parts.read(frame.name, image, frame.part))


def rotate(image: Image, degrees: Rotation) -> Image:
    """Turn an image clockwise, uint8 ``[height, width, 3]``."""
    if degrees == 0:
        return image
    turned: Image = cv2.rotate(image, _TURNS[degrees])
    return turned


def bounding_box(polygon: Sequence[tuple[int, int]]) -> Rectangle:
    """Return the least rectangle that holds all corners' pixels."""
    left, top = (min(point[axis] for point in polygon) for axis in (0, 1))
    right, bottom = (max(point[axis] for point in polygon) for axis in (0, 1))
    return left, top, right - left + 1, bottom - top + 1


def outside(polygon: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Return which pixels of the polygon's bounding box are outside it, bool ``[h, w]``."""
    left, top, width, height = bounding_box(polygon)
    inside = np.zeros((height, width), np.uint8)
    corners = np.array(polygon, np.int32) - np.array([left, top], np.int32)
    cv2.fillPoly(inside, [corners], 1)
    return np.asarray(inside == 0, dtype=np.bool_)
