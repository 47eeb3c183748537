"""Pixel formats of industrial cameras: known pictures there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.stream.sources.cameras.pixel_formats import CODES, rgb_of

COLOURS = {"R": 0, "G": 1, "B": 2}
LEVELS = [name for name in CODES if name.startswith(("Mono", "Bayer"))]
PAIRS = [name for name in CODES if name.startswith("Y")]
KR, KB = 0.299, 0.114


def bits_of(name: str) -> int:
    return int("".join(one for one in name.removesuffix("p") if one.isdigit()))


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """Red rises to the right, green downwards, blue falls with both: no two colours are alike."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = [40 + 180 * across, 30 + 150 * down, 220 - 90 * across - 90 * down]
    return np.dstack(planes).round().astype(np.uint8)


def packed(levels: np.ndarray, name: str, padding: int = 0) -> bytes:
    """Levels as the format has them, bit by bit."""
    bits = bits_of(name)
    lines = levels if padding else levels.reshape(1, -1)
    return b"".join(_line(line, bits, name) + bytes(padding) for line in lines)


def _line(levels: np.ndarray, bits: int, name: str) -> bytes:
    if name.endswith("Packed"):
        low = bits - 8
        out = bytearray()
        for place in range(0, levels.size, 2):
            first = int(levels[place])
            out += bytes([first >> low, first & ((1 << low) - 1)])
            if place + 1 < levels.size:
                second = int(levels[place + 1])
                out[-1] |= (second & ((1 << low) - 1)) << 4
                out.append(second >> low)
        return bytes(out)
    if name.endswith("p"):
        each = (levels[:, None] >> np.arange(bits)) & 1
        return np.packbits(each.astype(np.uint8).ravel(), bitorder="little").tobytes()
    return levels.astype(np.uint8 if bits == 8 else "<u2").tobytes()


def mosaic(image: np.ndarray, order: str) -> np.ndarray:
    """What a sensor behind a Bayer filter sees; ``RG``: red, green, then green, blue."""
    rows = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}[order]
    seen = np.empty(image.shape[:2], np.uint8)
    for place, colour in enumerate(rows):
        top, left = divmod(place, 2)
        seen[top::2, left::2] = image[top::2, left::2, COLOURS[colour]]
    return seen


def widened(levels: np.ndarray, bits: int) -> np.ndarray:
    """8 bits at their place in a greater range."""
    return (levels.astype(np.uint32) * ((1 << bits) - 1) + 127) // 255


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("name", [name for name in LEVELS if name.startswith("Mono")])
def test_grey_levels_come_back_from_any_width_and_packing(name, padding):
    grey = np.random.default_rng(1).integers(0, 256, (7, 9), np.uint8)
    grey[0, :2] = (0, 255)
    data = packed(widened(grey, bits_of(name)), name, padding)
    image = rgb_of(name, data, 9, 7, padding)
    np.testing.assert_array_equal(image, np.dstack([grey] * 3))


@pytest.mark.parametrize("name", [name for name in LEVELS if name.startswith("Bayer")])
def test_colours_come_back_through_each_filter(name):
    seen = widened(mosaic(picture(), name[5:7]), bits_of(name))
    image = rgb_of(name, packed(seen, name), 60, 40)
    difference = np.abs(image.astype(int) - picture())[2:-2, 2:-2]
    assert difference.max() <= 4, "a wrong order of colours would be off by 20 and more"


@given(st.integers(0, 4095), st.sampled_from(["Mono12", "Mono12p", "Mono12Packed"]))
def test_each_level_is_scaled_by_the_nominal_range(level, name):
    levels = np.full((2, 3), level, np.uint32)
    image = rgb_of(name, packed(levels, name), 3, 2)
    assert np.abs(image.astype(float) - level * 255 / 4095).max() <= 0.5 + 1e-6


def test_colours_of_one_byte_each():
    image = picture()
    np.testing.assert_array_equal(rgb_of("RGB8", image.tobytes(), 60, 40), image)
    found = rgb_of("BGR8", image[..., ::-1].tobytes(), 60, 40)
    np.testing.assert_array_equal(found, image)
    rgb_of("RGB8", image.tobytes(), 60, 40)[:] = 0  # is drawn on


@pytest.mark.parametrize("name", PAIRS)
def test_luma_and_chroma_come_back_in_the_range_of_their_format(name):
    """ITU-R BT.601; full range, but where the name says 601: there black is 16 and white 235."""
    image = np.repeat(picture()[:, ::2], 2, axis=1).astype(float)  # two pixels share a chroma
    luma = KR * image[..., 0] + (1 - KR - KB) * image[..., 1] + KB * image[..., 2]
    blue = (image[..., 2] - luma) / 2 / (1 - KB)
    red = (image[..., 0] - luma) / 2 / (1 - KR)
    if "601" in name:
        luma, blue, red = 16 + luma * 219 / 255, blue * 224 / 255, red * 224 / 255
    pairs = np.empty((*luma.shape, 2), np.uint8)
    first = int(name.endswith(("UYVY", "CbYCrY")))
    pairs[..., first] = luma.round()
    pairs[:, ::2, 1 - first] = (128 + blue[:, ::2]).round()
    pairs[:, 1::2, 1 - first] = (128 + red[:, 1::2]).round()
    found = rgb_of(name, pairs.tobytes(), 60, 40)
    assert np.abs(found - image).max() <= 3


@settings(deadline=None)
@given(st.sampled_from(list(CODES)), st.binary(max_size=60), st.integers(0, 9), st.integers(0, 9))
def test_any_bytes_are_an_image_or_too_few(name, data, width, height):
    try:
        image = rgb_of(name, data, width, height)
    except ValueError:
        return
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8


def test_a_line_of_pairs_has_no_odd_width():
    with pytest.raises(ValueError, match="pairs"):
        rgb_of("YUV422_8", bytes(30), 3, 2)
