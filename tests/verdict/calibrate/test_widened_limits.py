"""Limits of usable images hold what people called good after all, and nothing less than before."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.images import make_texture

from hvq_edge.data.images import fit_image
from hvq_edge.verdict.calibrate.widened_limits import widened
from hvq_edge.verdict.frame_quality import fault, learn_limits, measure
from hvq_edge.verdict.image_limits import CategoryLimits
from hvq_edge.verdict.likeness.look import look_at
from hvq_edge.verdict.likeness.usual import differences, learn_usual
from hvq_edge.verdict.placement import learn_placement, moved, small_grey


def limits_of(images):
    fitted = [fit_image(image, 64) for image in images]
    return CategoryLimits(
        image=learn_limits([measure(frame) for frame in fitted]),
        usual=learn_usual([look_at(i, f) for i, f in zip(images, fitted, strict=True)]),
    )


def test_a_darker_part_called_good_can_be_judged_from_then_on():
    bright = [make_texture(seed, mean=180.0) for seed in range(12)]
    dark = make_texture(99, mean=40.0)
    fitted = fit_image(dark, 64)
    before = limits_of(bright)
    assert fault(measure(fitted), before.image).startswith("too dark")
    assert "darker" in {one.word for one in differences(look_at(dark, fitted), before.usual)}
    after = widened(before, [dark], [fitted])
    assert fault(measure(fitted), after.image) is None
    assert "darker" not in {one.word for one in differences(look_at(dark, fitted), after.usual)}
    assert after.usual.brightness.median == before.usual.brightness.median
    pale = make_texture(98, mean=230.0)
    paler = widened(before, [pale], [fit_image(pale, 64)]).usual.brightness
    assert paler.highest == look_at(pale, fit_image(pale, 64)).brightness
    assert paler.highest > before.usual.brightness.highest
    assert paler.lowest == before.usual.brightness.lowest
    assert after.image.brightness_high >= before.image.brightness_high
    assert widened(before, bright[:2], [fit_image(one, 64) for one in bright[:2]]) == before


def test_an_image_without_its_fitted_one_widens_nothing():
    images = [make_texture(seed) for seed in range(3)]
    with pytest.raises(ValueError, match="shorter"):
        widened(limits_of(images), images, [fit_image(images[0], 64)])


def test_a_part_that_lies_elsewhere_and_is_called_good_has_not_moved():
    def part(column: int, seed: int) -> np.ndarray:
        image = make_texture(seed, mean=60.0, height=224, width=224).astype(np.int16)
        image[70:150, column : column + 80] += 120
        return np.clip(image, 0, 255).astype(np.uint8)

    usual = [part(72, seed) for seed in range(24)]
    placement = learn_placement([small_grey(image) for image in usual])
    limits = limits_of(usual).model_copy(update={"placement": placement})
    elsewhere = part(106, 50)
    assert moved(small_grey(elsewhere), placement)
    after = widened(limits, [elsewhere], [elsewhere]).placement
    assert moved(small_grey(elsewhere), after) is None
    assert widened(limits, usual[:1], usual[:1]).placement == placement
