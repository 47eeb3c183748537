"""Finds the serial number of a part: in the name of the image's file, or in a code in the image."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress

import cv2

from hvq_edge.common.extras import require
from hvq_edge.errors import MissingCapability
from hvq_edge.stream.settings import CameraSettings, PartCode, Rectangle
from hvq_edge.stream.sources.source import Image, part_number

logger = logging.getLogger(__name__)

_FORMATS: dict[PartCode, tuple[str, ...]] = {
    "qr": ("QRCode",),
    "data-matrix": ("DataMatrix",),
    "code-128": ("Code128",),
    "any": ("QRCode", "DataMatrix", "Code128"),
}
"""What zxing-cpp calls them."""

ReadCodes = Callable[[Image], list[str]]
"""From an image to what its codes say."""


class PartReader:
    """Finds serial numbers as a camera's settings say; used by the thread that captures.

    Args:
        settings: of the camera.

    Raises:
        MissingCapability: no library here reads such codes.
    """

    def __init__(self, settings: CameraSettings) -> None:
        self._pattern = None if settings.part_from is None else re.compile(settings.part_from)
        self._codes = None if settings.part_code is None else open_code_reader(settings.part_code)
        self._region = settings.part_code_region
        self._wanted = settings.names_parts
        self.unread = 0
        """Images whose part should have a number and has none."""

    def read(self, name: str, image: Image | None, given: str) -> str:
        """Return the serial number of the part that a frame shows; empty: it is not known.

        Args:
            name: of the frame.
            image: uint8 ``[height, width, 3]``, RGB, turned and not cut; ``None``: it is lost.
            given: what the trigger said, which counts more than all else.
        """
        number = given
        if not number and self._pattern is not None:
            number = named_part(self._pattern, name)
        elif not number and self._codes is not None and image is not None:
            number = self._coded_part(self._codes, image)
        self.unread += self._wanted and image is not None and not number
        return number

    def _coded_part(self, read: ReadCodes, image: Image) -> str:
        """Return what the code says; nothing where two differ: no guess is made."""
        if self._region is not None:
            image = _cut(image, self._region)
            if not image.size:
                return ""
        found = set(read(image))
        return part_number(found.pop()) if len(found) == 1 else ""


def named_part(pattern: re.Pattern[str], name: str) -> str:
    """Return the serial number in a frame's name; empty: the pattern is not in it.

    Args:
        pattern: its group ``part``, else its first group, else all that it matches is the number.
        name: of the frame.
    """
    match = pattern.search(name)
    if match is None:
        return ""
    group: str | int = "part" if "part" in pattern.groupindex else min(pattern.groups, 1)
    return part_number(match[group] or "")


def open_code_reader(kind: PartCode) -> ReadCodes:
    """Return the function that reads codes: zxing-cpp's, for QR codes else OpenCV's.

    Raises:
        MissingCapability: zxing-cpp is not there, and other codes than QR are to be read.
    """
    try:
        zxing = require("zxingcpp")
    except MissingCapability as error:
        if kind != "qr":
            raise MissingCapability(
                f"codes of the kind {kind} are read by zxing-cpp alone, which is not installed; "
                "OpenCV reads QR codes only.",
                next_step=f"{error.next_step}, or --part-code qr",
            ) from error
        logger.info("QR codes are read by OpenCV: zxing-cpp, which reads more, is not installed")
        return _opencv_reader()
    formats = [getattr(zxing.BarcodeFormat, name) for name in _FORMATS[kind]]
    plain = zxing.TextMode.Plain

    def read(image: Image) -> list[str]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return [one.text for one in zxing.read_barcodes(grey, formats=formats, text_mode=plain)]

    return read


def _opencv_reader() -> ReadCodes:
    detector = cv2.QRCodeDetector()

    def read(image: Image) -> list[str]:
        # It raises for some images that hold none, and for bytes that are no text.
        with suppress(cv2.error, UnicodeDecodeError):
            _, texts, _, _ = detector.detectAndDecodeMulti(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
            return [text for text in texts if text]
        return []

    return read


def _cut(image: Image, region: Rectangle) -> Image:
    left, top, width, height = region
    return image[top : top + height, left : left + width]
