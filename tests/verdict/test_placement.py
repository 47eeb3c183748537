"""A camera that moved is told from a defect, and only where parts lie alike."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from helpers.images import make_texture, scratch
from helpers.looks import ANYTHING
from pydantic import ValidationError

from hvq_edge.run.record import ImageRecord
from hvq_edge.training.category_limits import FrameLooks, learn_category_limits
from hvq_edge.verdict.frame_quality import measure
from hvq_edge.verdict.image_checks import ImageChecks, SeenFrame
from hvq_edge.verdict.image_limits import CategoryLimits, ImageLimits, Placement
from hvq_edge.verdict.likeness.look import look_at
from hvq_edge.verdict.placement import SIDE, learn_placement, moved, small_grey


def part(seed: int, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """A plate in a fixture: it lies within half a percent, and its surface and light vary."""
    rng = np.random.default_rng(seed)
    image = make_texture(seed, height=224, width=224, mean=60.0) // 2
    centre = 112 + rng.uniform(-1, 1, 2) + [dx * 224, dy * 224]
    left, top = np.rint(centre - [60, 45]).astype(int)
    light = int(rng.integers(150, 200))
    cv2.rectangle(image, (left, top), (left + 120, top + 90), (light,) * 3, -1)
    cv2.circle(image, (left + 30, top + 30), 14, (40, 40, 40), -1)
    return image


@pytest.fixture(scope="module")
def placement():
    learnt = learn_placement([small_grey(part(seed)) for seed in range(40)])
    assert learnt is not None
    return learnt


def test_good_and_defective_parts_have_not_moved(placement):
    for seed in range(100, 140):
        assert moved(small_grey(part(seed)), placement) is None
        assert moved(small_grey(scratch(part(seed))[0]), placement) is None
        holed = part(seed)
        holed[120:160, 110:170] = 20
        assert moved(small_grey(holed), placement) is None


@pytest.mark.parametrize(("dx", "dy"), [(0.12, 0.0), (0.0, -0.12), (-0.1, 0.1)])
def test_a_shift_is_found_and_told_how_far(placement, dx, dy):
    for seed in range(100, 110):
        reason = moved(small_grey(part(seed, dx, dy)), placement)
        assert reason.startswith("moved: the part lies 1")


def test_neither_an_even_image_nor_another_part_has_moved(placement):
    assert moved(np.full((SIDE, SIDE), 90, np.float32), placement) is None
    for seed in range(20):
        texture = small_grey(make_texture(seed, height=224, width=224, grain=4.0))
        assert moved(texture, placement) is None


def test_where_parts_lie_anyhow_there_is_no_check():
    rng = np.random.default_rng(0)
    anyhow = [small_grey(part(seed, *rng.uniform(-0.15, 0.15, 2))) for seed in range(40)]
    assert learn_placement(anyhow) is None
    textures = [small_grey(make_texture(seed, height=224, width=224)) for seed in range(40)]
    assert learn_placement(textures) is None
    assert learn_placement([small_grey(part(seed)) for seed in range(5)]) is None, "too few"
    assert learn_placement([np.zeros((SIDE, SIDE), np.float32)] * 40) is None


def test_it_is_asked_for_the_category_that_the_frame_shows(placement):
    image = ImageLimits(brightness_low=0, brightness_high=255, contrast_low=0, sharpness_low=0)
    checks = ImageChecks(
        image, {"plate": CategoryLimits(image=image, usual=ANYTHING, placement=placement)}
    )
    shifted = part(1, 0.12)
    assert checks.after(SeenFrame(shifted), "plate").startswith("moved")
    assert checks.after(SeenFrame(shifted), "other") is None


def test_limits_of_each_category_from_its_images():
    records, images = [], []
    for number in range(24):
        for category, image in (
            ("plate", part(number)),
            ("stone", make_texture(number, height=224, width=224, mean=200.0)),
        ):
            name = f"{category}/{number}.png"
            record = {"path": name, "category": category, "sha256": "0" * 64, "use": "fit"}
            records.append(ImageRecord.model_validate(record))
            images.append(image)
    greys = np.stack([small_grey(image) for image in images]).astype(np.uint8)
    measured = [measure(image) for image in images]
    looks = FrameLooks(measured, [look_at(image, image) for image in images], greys)
    limits = learn_category_limits(records, looks, {})
    assert list(limits) == ["plate", "stone"]
    assert limits["plate"].placement is not None
    assert limits["stone"].placement is None
    assert limits["plate"].image.brightness_high < limits["stone"].image.brightness_high
    again = CategoryLimits.model_validate_json(limits["plate"].model_dump_json())
    assert again == limits["plate"]


@pytest.mark.parametrize("reference", ["A" * 4184, "A" * 4183 + "=", "A=" * 2092, "====" * 1046])
def test_a_reference_that_is_no_image_is_refused_when_it_is_read(reference):
    with pytest.raises(ValidationError, match="reference"):
        Placement(reference=reference, gain_high=0.1, similarity_low=0.5)
