"""Images are read from files and arrays, and brought to the size of the net."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.image_files import BGR, IMAGE, encode, jpeg_with_exif, smooth_image, tiff
from helpers.images import flat
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.data.images import fit_image, read_frame, read_image, read_mask, rgb_from_memory
from hvq_edge.errors import ImageError


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".jpg", ".webp"])
def test_every_format_gives_rgb_as_saved(tmp_path, suffix):
    path = tmp_path / f"part{suffix}"
    path.write_bytes(encode(suffix, BGR))
    read = read_image(path)
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    tolerance = 6 if suffix in (".jpg", ".webp") else 0
    assert np.abs(read.astype(int) - IMAGE).mean() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
def test_grey_is_repeated_over_the_channels(tmp_path, suffix):
    path = tmp_path / f"grey{suffix}"
    path.write_bytes(encode(suffix, IMAGE[..., 0]))
    read = read_image(path)
    assert read.shape == IMAGE.shape
    assert (read == read[..., :1]).all()


def test_alpha_is_dropped_not_blended(tmp_path):
    path = tmp_path / "rgba.png"
    path.write_bytes(encode(".png", np.dstack([BGR, np.full(BGR.shape[:2], 7, np.uint8)])))
    assert np.array_equal(read_image(path), IMAGE)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_by_a_fixed_rule(tmp_path, suffix, channels):
    levels = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    bright, dark = levels, levels // 8  # the same scene at an eighth of the light
    for name, scene in (("bright", bright), ("dark", dark)):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(encode(suffix, scene if channels == 1 else np.dstack([scene] * 3)))
        expected = np.rint(scene / 257)
        assert np.abs(read_image(path)[..., 0] - expected).max() <= 0.5, name


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda p: p),
        (3, lambda p: np.rot90(p, 2)),
        (6, lambda p: np.rot90(p, -1)),
        (8, lambda p: np.rot90(p, 1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, turned):
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg_with_exif(orientation))
    expected = turned(IMAGE)
    read = read_image(path)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).mean() < 6


def test_unicode_and_spaces_in_the_path(tmp_path):
    path = tmp_path / "Schöne Teile 部品" / "Teil № 1.png"
    path.parent.mkdir()
    path.write_bytes(encode(".png", BGR))
    assert np.array_equal(read_image(path), IMAGE)


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "really-a-bmp.jpg"
    path.write_bytes(encode(".bmp", BGR))
    assert np.array_equal(read_image(path), IMAGE)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiff_is_read_whatever_its_byte_order(tmp_path, order):
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff(IMAGE[..., 0].astype(np.uint16) * 257, 16, 1, order=order))
    assert np.array_equal(read_image(path)[..., 0], IMAGE[..., 0])


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"null (byte|character)"):
        read_image(tmp_path / "a\0b.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="a pipe or a device, not a plain file"):
        read_image(tmp_path / "pipe.png")


@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    side=st.sampled_from([16, 64, 96]),
    level=st.integers(0, 255),
)
def test_fit_gives_the_square_and_keeps_a_flat_level(height, width, side, level):
    fitted = fit_image(np.full((height, width, 3), level, np.uint8), side)
    assert fitted.shape == (side, side, 3)
    assert fitted.dtype == np.uint8
    assert fitted.flags.c_contiguous
    assert (fitted == level).all()


def test_fit_averages_when_shrinking():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::4] = 200
    assert (fit_image(stripes, 32) == 50).all()
    # An axis that grows must not switch off the averaging along the other.
    assert (fit_image(stripes[:8], 32) == 50).all()


def test_fit_interpolates_when_enlarging():
    step = np.zeros((16, 16, 3), np.uint8)
    step[:, 8:] = 200
    row = fit_image(step, 64)[0, :, 0]
    assert (np.diff(row.astype(int)) >= 0).all()
    assert len(np.unique(row)) > 2


def test_fit_leaves_a_fitting_image_alone_and_makes_views_contiguous():
    square = smooth_image(64, 64)
    assert np.array_equal(fit_image(square, 64), square)
    flipped = fit_image(square[:, ::-1], 64)
    assert flipped.flags.c_contiguous
    assert np.array_equal(flipped, square[:, ::-1])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((20, 20), np.uint8),
        np.zeros((20, 20, 4), np.uint8),
        np.zeros((20, 20, 3), np.float32),
        np.zeros((0, 20, 3), np.uint8),
    ],
)
def test_fit_refuses_other_arrays(image):
    with pytest.raises(ImageError, match="uint8"):
        fit_image(image, 32)


def test_read_frame_is_read_then_fit(tmp_path):
    path = tmp_path / "part.png"
    path.write_bytes(encode(".png", BGR))
    assert np.array_equal(read_frame(path, 32), fit_image(IMAGE, 32))


@pytest.mark.parametrize("level", [1, 255])
def test_mask_is_true_where_not_zero(tmp_path, level):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:60] = level
    path = tmp_path / "000_mask.png"
    path.write_bytes(encode(".png", mask))
    read = read_mask(path, 20, 30)
    assert read.dtype == np.bool_
    assert read.shape == (20, 30)
    assert read[5:10, 15:].all()
    assert read.sum() == 5 * 15


def test_noise_of_a_lossy_mask_is_not_a_defect(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[13:29, 13:29] = 255
    path = Path(tmp_path / "000_mask.jpg")
    path.write_bytes(encode(".jpg", mask, cv2.IMWRITE_JPEG_QUALITY, 60))
    assert abs(int(read_mask(path, 64, 64).sum()) - 16 * 16) <= 16


def test_arrays_of_each_kind_are_the_same_image():
    grey = flat(50)[:, :, 0]
    white = np.full((20, 30), 65535, np.uint16)
    for value in (grey, grey[:, :, None], np.dstack([grey] * 3), np.dstack([grey] * 4)):
        np.testing.assert_array_equal(rgb_from_memory(value), flat(50))
    assert rgb_from_memory(white).min() == 255


@given(
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32, np.int64, np.bool_]),
    shape=st.lists(st.sampled_from([0, 1, 3, 4, 16, 20]), max_size=4),
)
def test_any_array_is_an_image_or_a_clear_error(dtype, shape):
    try:
        image = rgb_from_memory(np.ones(shape, dtype))
    except ImageError as error:
        assert error.next_step  # noqa: PT017  # either is right
    else:
        assert image.dtype == np.uint8
        assert image.shape == (*shape[:2], 3)
