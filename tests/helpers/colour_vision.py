"""What colours look like to others, how far apart they are, and how text is read on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Floats = NDArray[np.float64]

VISION: dict[str, list[list[float]]] = {
    "trichromacy": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision
deficiency", 2009, severity 1.0; they take linear RGB."""

_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65


def linear(colour: Colour) -> Floats:
    """sRGB without its gamma, 0 to 1."""
    share = np.array(colour) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def contrast(one: Colour, other: Colour) -> float:
    """Of WCAG 2: 1 to 21."""
    lower, higher = sorted(float(np.dot([0.2126, 0.7152, 0.0722], linear(c))) for c in (one, other))
    return (higher + 0.05) / (lower + 0.05)


def seen(colour: Colour, vision: str) -> Floats:
    """CIELAB of a colour as somebody sees it."""
    xyz = _XYZ @ np.clip(np.array(VISION[vision]) @ linear(colour), 0, 1) / _WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(one: Floats, other: Floats) -> float:
    """CIEDE2000 of two colours in CIELAB."""
    light, chroma, hue = np.empty(2), np.empty(2), np.empty(2)
    mean = (np.hypot(*one[1:]) + np.hypot(*other[1:])) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25.0**7))
    for place, (lightness, a, b) in enumerate((one, other)):
        light[place], chroma[place] = lightness, np.hypot(a * stretch, b)
        hue[place] = np.degrees(np.arctan2(b, a * stretch)) % 360
    grey = chroma.prod() == 0
    turn = 0.0 if grey else (hue[1] - hue[0] + 180) % 360 - 180
    d_hue = 2 * np.sqrt(chroma.prod()) * np.sin(np.radians(turn / 2))
    at = hue.sum() if grey else hue[0] + turn / 2
    c, s = chroma.mean(), (light.mean() - 50) ** 2
    waves = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    t = 1 + sum(size * np.cos(np.radians(k * at + shift)) for size, k, shift in waves)
    parts = np.array(
        [
            np.diff(light)[0] / (1 + 0.015 * s / np.sqrt(20 + s)),
            np.diff(chroma)[0] / (1 + 0.045 * c),
            d_hue / (1 + 0.015 * c * t),
        ]
    )
    bend = np.sin(np.radians(60 * np.exp(-(((at % 360 - 275) / 25) ** 2))))
    rotation = -2 * np.sqrt(c**7 / (c**7 + 25.0**7)) * bend
    return float(np.sqrt((parts**2).sum() + rotation * parts[1] * parts[2]))
