import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.errors import DatasetError
from hvq_edge.verdict.frame_quality import FrameQuality, fault, learn_limits, measure

levels = st.floats(0, 255, allow_nan=False)
qualities = st.builds(
    FrameQuality,
    brightness=levels,
    contrast=st.floats(0, 127.5),
    sharpness=st.floats(0, 1e6),
)


def test_what_the_model_has_learnt_to_bear_is_usable():
    seen, softer = FrameQuality(100.0, 40.0, 400.0), FrameQuality(95.0, 30.0, 20.0)
    assert fault(softer, learn_limits([seen])).startswith("blurred")
    limits = learn_limits([seen], [softer, FrameQuality(240.0, 12.0, 900.0)])
    for borne in (softer, seen, FrameQuality(240.0, 12.0, 900.0)):
        assert fault(borne, limits) is None
    assert fault(FrameQuality(100.0, 40.0, 19.0), limits).startswith("blurred")


@given(st.lists(qualities, min_size=1, max_size=20))
def test_every_training_image_is_inside_its_limits(seen):
    limits = learn_limits(seen)
    assert [fault(quality, limits) for quality in seen] == [None] * len(seen)


def test_light_may_go_half_of_the_way_that_is_left_to_black_and_white():
    """Where training images are nearer to them than what is black or white elsewhere."""
    bright = learn_limits([FrameQuality(253.0, 9.0, 9.0), FrameQuality(250.0, 9.0, 9.0)])
    assert bright.brightness_high == 254.0
    dark = learn_limits([FrameQuality(1.0, 9.0, 9.0), FrameQuality(3.0, 9.0, 9.0)])
    assert dark.brightness_low == 0.5


@given(
    st.lists(
        st.builds(
            FrameQuality,
            brightness=st.floats(0.5, 254.5),
            contrast=st.floats(0.5, 127.5),
            sharpness=st.floats(0.5, 1e6),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_black_white_and_flat_frames_are_outside(seen):
    limits = learn_limits(seen)
    flat = {"contrast": 0.0, "sharpness": 0.0}
    assert fault(FrameQuality(brightness=0.0, **flat), limits).startswith("black:")
    assert fault(FrameQuality(brightness=255.0, **flat), limits).startswith("saturated:")
    assert fault(FrameQuality(brightness=seen[0].brightness, **flat), limits).startswith(
        "no contrast:"
    )


def test_measures_are_those_of_the_definition(texture):
    frame = texture(1, height=64, width=64)
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float64)
    padded = np.pad(grey, 1, mode="reflect")
    laplacian = (
        padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
    )
    quality = measure(frame)
    assert quality.brightness == pytest.approx(grey.mean())
    assert quality.contrast == pytest.approx(grey.std())
    assert quality.sharpness == pytest.approx(laplacian.var())


def test_grey_weighs_red_green_and_blue_as_rgb():
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[..., 0] = 255  # red weighs 0.299, blue 0.114
    assert measure(frame).brightness == pytest.approx(76, abs=0.5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda frame: frame, None),
        (lambda frame: np.zeros_like(frame), "black"),
        (lambda frame: frame // 4, "too dark"),
        (lambda frame: np.full_like(frame, 255), "saturated"),
        (lambda frame: np.clip(frame.astype(int) + 90, 0, 249).astype(np.uint8), "too bright"),
        (lambda frame: np.full_like(frame, 128), "no contrast"),
        (lambda frame: cv2.GaussianBlur(frame, (0, 0), 2), "blurred"),
        (lambda frame: np.clip(frame.astype(int) + 5, 0, 255).astype(np.uint8), None),
    ],
)
def test_spoilt_frames_are_told_by_their_fault(texture, spoil, reason):
    limits = learn_limits(measure(texture(seed)) for seed in range(10))
    found = fault(measure(spoil(texture(99))), limits)
    assert (found.split(":")[0] if found else None) == reason


def test_a_reason_gives_value_and_limit(texture):
    limits = learn_limits([FrameQuality(100.0, 40.0, 300.0)])
    assert fault(FrameQuality(20.0, 40.0, 300.0), limits) == (
        "too dark: brightness 20.0, at least 75.0"
    )


def test_limits_need_images():
    with pytest.raises(DatasetError, match="no training images"):
        learn_limits([])
