"""Pixel formats of industrial cameras (GenICam PFNC) made RGB.

https://www.emva.org/standards-technology/genicam/genicam-downloads/ has the names and codes. Levels
of more than 8 bits are scaled by their nominal range: 1023 of 10 bits is 255.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.stream.sources.source import Image

Levels = NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16 ``[height, width]``."""

CODES = {
    "Mono8": 0x01080001,
    "Mono10": 0x01100003,
    "Mono10Packed": 0x010C0004,
    "Mono10p": 0x010A0046,
    "Mono12": 0x01100005,
    "Mono12Packed": 0x010C0006,
    "Mono12p": 0x010C0047,
    "Mono14": 0x01100025,
    "Mono16": 0x01100007,
    "BayerGR8": 0x01080008,
    "BayerRG8": 0x01080009,
    "BayerGB8": 0x0108000A,
    "BayerBG8": 0x0108000B,
    "BayerGR10": 0x0110000C,
    "BayerRG10": 0x0110000D,
    "BayerGB10": 0x0110000E,
    "BayerBG10": 0x0110000F,
    "BayerGR12": 0x01100010,
    "BayerRG12": 0x01100011,
    "BayerGB12": 0x01100012,
    "BayerBG12": 0x01100013,
    "BayerGR10Packed": 0x010C0026,
    "BayerRG10Packed": 0x010C0027,
    "BayerGB10Packed": 0x010C0028,
    "BayerBG10Packed": 0x010C0029,
    "BayerGR12Packed": 0x010C002A,
    "BayerRG12Packed": 0x010C002B,
    "BayerGB12Packed": 0x010C002C,
    "BayerBG12Packed": 0x010C002D,
    "BayerGR16": 0x0110002E,
    "BayerRG16": 0x0110002F,
    "BayerGB16": 0x01100030,
    "BayerBG16": 0x01100031,
    "BayerBG10p": 0x010A0052,
    "BayerBG12p": 0x010C0053,
    "BayerGB10p": 0x010A0054,
    "BayerGB12p": 0x010C0055,
    "BayerGR10p": 0x010A0056,
    "BayerGR12p": 0x010C0057,
    "BayerRG10p": 0x010A0058,
    "BayerRG12p": 0x010C0059,
    "RGB8": 0x02180014,
    "BGR8": 0x02180015,
    "YUV422_8_UYVY": 0x0210001F,
    "YUV422_8": 0x02100032,
    "YCbCr422_8": 0x0210003B,
    "YCbCr422_8_CbYCrY": 0x02100043,
    "YCbCr601_422_8": 0x0210003E,
    "YCbCr601_422_8_CbYCrY": 0x02100044,
}
NAMES = {code: name for name, code in CODES.items()}

_BAYER = {
    "RG": cv2.COLOR_BayerRGGB2RGB,
    "GR": cv2.COLOR_BayerGRBG2RGB,
    "GB": cv2.COLOR_BayerGBRG2RGB,
    "BG": cv2.COLOR_BayerBGGR2RGB,
}
_LEVELS = re.compile(r"(Mono|Bayer(RG|GR|GB|BG))(\d+)(Packed|p|)")


class _Packing(NamedTuple):
    """How levels lie in bytes: each group of pixels in the same way."""

    pixels: int
    pieces: tuple[tuple[tuple[int, int, int, int], ...], ...]
    """For each pixel: of which byte, from which bit on, how many bits, and where they go."""
    bytes: int


_PACKINGS = {
    # GigE Vision: two pixels share the middle byte of three.
    (10, "Packed"): _Packing(2, (((0, 0, 8, 2), (1, 0, 2, 0)), ((2, 0, 8, 2), (1, 4, 2, 0))), 3),
    (12, "Packed"): _Packing(2, (((0, 0, 8, 4), (1, 0, 4, 0)), ((2, 0, 8, 4), (1, 4, 4, 0))), 3),
    # PFNC: one bit after the other, the least first.
    (10, "p"): _Packing(
        4,
        (
            ((0, 0, 8, 0), (1, 0, 2, 8)),
            ((1, 2, 6, 0), (2, 0, 4, 6)),
            ((2, 4, 4, 0), (3, 0, 6, 4)),
            ((3, 6, 2, 0), (4, 0, 8, 2)),
        ),
        5,
    ),
    (12, "p"): _Packing(2, (((0, 0, 8, 0), (1, 0, 4, 8)), ((1, 4, 4, 0), (2, 0, 8, 4))), 3),
}


def rgb_of(name: str, data: bytes, width: int, height: int, padding: int = 0) -> Image:
    """Return an image as uint8 ``[height, width, 3]`` RGB.

    Args:
        name: of the pixel format, one of :data:`CODES`.
        data: of the image, as it came.
        width: in pixels.
        height: likewise.
        padding: bytes behind each line that belong to no pixel.

    Raises:
        ValueError: the data is shorter than the image, or its width is none of this format.
    """
    if min(width, height) < 1:
        raise ValueError(f"it has {width}x{height} pixels")
    match = _LEVELS.fullmatch(name)
    if match is None:
        return _colour(name, data, width, height, padding)
    bits, packing = int(match[3]), match[4]
    levels: Levels
    if packing:
        levels = _unpacked(_PACKINGS[bits, packing], data, width, height, padding)
    else:
        item = 1 if bits == 8 else 2
        rows = _rows(data, width * item, height, padding)
        levels = rows if item == 1 else rows.view("<u2")
    # Above the nominal range there is nothing, whatever a camera puts into spare bits.
    grey = levels if bits == 8 else cv2.convertScaleAbs(levels, alpha=255.0 / ((1 << bits) - 1))
    image: Image = cv2.cvtColor(grey, _BAYER[match[2]] if match[2] else cv2.COLOR_GRAY2RGB)
    return image


def _colour(name: str, data: bytes, width: int, height: int, padding: int) -> Image:
    if name in ("RGB8", "BGR8"):
        pixels = _rows(data, width * 3, height, padding).reshape(height, width, 3)
        image: Image = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if name == "BGR8" else pixels.copy()
        return image
    if width % 2:
        raise ValueError(f"lines of {name} are of pairs, and these have {width} pixels")
    pairs = _rows(data, width * 2, height, padding).reshape(height, width, 2)
    chroma_first = name.endswith(("UYVY", "CbYCrY"))
    if name.startswith("YCbCr601"):  # 16 to 235, as television has it: the range of OpenCV's own
        code = cv2.COLOR_YUV2RGB_UYVY if chroma_first else cv2.COLOR_YUV2RGB_YUY2
        return np.asarray(cv2.cvtColor(pairs, code), np.uint8)
    luma, chroma = pairs[..., int(chroma_first)], pairs[..., int(not chroma_first)]
    blue, red = (np.repeat(chroma[:, start::2], 2, axis=1) for start in (0, 1))
    luma_red_blue = np.dstack([luma, red, blue])
    return np.asarray(cv2.cvtColor(luma_red_blue, cv2.COLOR_YCrCb2RGB), np.uint8)


def _rows(data: bytes, line: int, height: int, padding: int) -> NDArray[np.uint8]:
    """Return the lines, ``[height, line]`` bytes, without what is behind each."""
    whole = line + padding
    if len(data) < whole * (height - 1) + line:
        raise ValueError(f"{len(data)} bytes came, and {height} lines have {whole} each")
    flat = np.frombuffer(data, np.uint8)[: whole * height]
    if padding:
        flat = np.pad(flat, (0, whole * height - flat.size))
    return np.ascontiguousarray(flat.reshape(height, whole)[:, :line])


def _unpacked(packing: _Packing, data: bytes, width: int, height: int, padding: int) -> Levels:
    """Return the levels of a packed image; without padding a line may begin within a byte."""
    lines, pixels = (height, width) if padding else (1, width * height)
    packed = _rows(data, -(-pixels * packing.bytes // packing.pixels), lines, padding)
    groups = -(-pixels // packing.pixels)
    packed = np.pad(packed, ((0, 0), (0, groups * packing.bytes - packed.shape[1])))
    parts = packed.reshape(lines, groups, packing.bytes).astype(np.uint16)
    levels = np.empty((lines, groups, packing.pixels), np.uint16)
    for pixel, pieces in enumerate(packing.pieces):
        levels[..., pixel] = sum(
            ((parts[..., byte] >> start) & ((1 << count) - 1)) << place
            for byte, start, count, place in pieces
        )
    return np.ascontiguousarray(levels.reshape(lines, -1)[:, :pixels]).reshape(height, width)
