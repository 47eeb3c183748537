"""One measurement of a frame for all who ask: the same to the last bit, and made once."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest
from helpers.bright_parts import BrightnessEngine, bundle  # noqa: F401  # a fixture
from helpers.images import make_texture
from helpers.sources import ListSource

from hvq_edge.data.images import fit_image
from hvq_edge.stream.inspector import Inspector
from hvq_edge.verdict.frame_quality import FrameQuality, measure
from hvq_edge.verdict.image_checks import SeenFrame
from hvq_edge.verdict.likeness.look import look_at
from hvq_edge.verdict.placement import SIDE, small_grey


def image_of(seed: int) -> np.ndarray:
    tint = np.array([1.0, 0.9, 0.7]) if seed % 2 else 1.0
    return (make_texture(seed, height=90 + 40 * seed, width=130, grain=0.5 + seed) * tint).astype(
        np.uint8
    )


def edges_of(grey: np.ndarray) -> np.ndarray:
    return cv2.Laplacian(grey, cv2.CV_16S)


@pytest.mark.parametrize("seed", range(6))
def test_each_measure_is_that_of_the_frame_alone(seed):
    image = image_of(seed)
    fitted = fit_image(image, (224, 224) if seed < 3 else (64, 96))
    seen = SeenFrame(fitted)
    look, quality, small = seen.look(image), seen.quality, seen.small
    assert look == look_at(image, fitted)
    assert quality == measure(fitted)
    assert np.array_equal(small, small_grey(fitted))

    # As each was computed before they shared anything.
    grey = cv2.cvtColor(fitted, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(grey)
    _, edges = cv2.meanStdDev(edges_of(grey))
    assert quality == FrameQuality(mean[0, 0], deviation[0, 0], float(edges[0, 0]) ** 2)
    assert np.array_equal(small, cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    powers = [cv2.norm(edges_of(one), cv2.NORM_L2) ** 2 / one.size + 0.5 for one in (grey, half)]
    assert look.sharpness == powers[0] / powers[1]
    assert look.brightness == cv2.mean(grey)[0] + 1.0
    red, green, blue, _ = (level + 1.0 for level in cv2.mean(fitted))
    assert (look.warmth, look.greenness) == (red / blue, green / (red * blue) ** 0.5)


def test_of_a_frame_of_a_line_grey_and_edges_are_made_once(bundle, monkeypatch):
    made: Counter[str] = Counter()
    to_grey, to_edges, to_size = cv2.cvtColor, cv2.Laplacian, cv2.resize
    side = BrightnessEngine().info.frame_shape[0]

    def cvt_color(image, *rest):
        made["grey"] += image.shape == (side, side, 3)
        return to_grey(image, *rest)

    def laplacian(image, *rest):
        made["edges"] += image.shape == (side, side)
        return to_edges(image, *rest)

    def resize(image, size, **rest):
        made["small"] += size == (SIDE, SIDE) and image.ndim == 2
        return to_size(image, size, **rest)

    images = [make_texture(i, height=100, width=100) for i in range(3)]
    monkeypatch.setattr(cv2, "cvtColor", cvt_color)
    monkeypatch.setattr(cv2, "Laplacian", laplacian)
    monkeypatch.setattr(cv2, "resize", resize)
    inspector = Inspector(BrightnessEngine(), bundle, ListSource(images, live=False))
    inspector.controls.set_threshold("bolt", 9.0)
    decided = list(inspector)
    assert [one.verdict for one in decided] == ["pass"] * len(images)
    assert made == {"grey": len(images), "edges": len(images), "small": len(images)}
