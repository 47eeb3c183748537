"""HEIC, as phones write it: read where pillow-heif is, else the message says what to do."""

from __future__ import annotations

import io
import struct
import sys
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pillow_heif")
import pillow_heif
from PIL import Image

from hvq_edge.data.days import day_in_exif
from hvq_edge.data.images import read_image, read_mask
from hvq_edge.data.layouts.folders import list_images
from hvq_edge.data.whole_file import announced, fault_in_file
from hvq_edge.errors import ImageError

ORIENTATION, EXIF, TAKEN = 0x0112, 0x8769, 0x9003


def picture(mode: str = "RGB") -> Image.Image:
    """60x40 pixels, a different slope in each channel: shows swapped axes and channels."""
    rows, columns = np.mgrid[0:40, 0:60]
    channels = (3 * columns + 20, 5 * rows + 10, 255 - 2 * rows - 2 * columns)
    return Image.fromarray(np.clip(np.dstack(channels), 0, 255).astype(np.uint8)).convert(mode)


def heic(image: Image.Image | None = None, orientation: int = 1) -> bytes:
    said = Image.Exif()
    said[ORIENTATION] = orientation
    said.get_ifd(EXIF)[TAKEN] = "2024:05:31 10:00:00"
    file = io.BytesIO()
    encoded = pillow_heif.from_pillow(image or picture())
    encoded.save(file, quality=-1, chroma=444, exif=said.tobytes())
    return file.getvalue()


WHOLE = heic()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "IMG 0001.HEIC"


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_it_is_read_as_rgb_and_turned_as_it_says(path, orientation, turns):
    path.write_bytes(heic(orientation=orientation))
    expected = np.rot90(np.asarray(picture()), turns)
    read = read_image(path)
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_is_repeated_and_alpha_dropped(path, mode):
    image = picture(mode)
    if mode == "RGBA":
        image.putalpha(7)
    path.write_bytes(heic(image))
    expected = np.asarray(picture(mode).convert("RGB"))
    assert np.abs(read_image(path).astype(int) - expected).mean() < 6


def test_it_is_an_image_of_a_folder_with_its_day(path):
    path.write_bytes(WHOLE)
    assert list_images(path.parent).images == (path,)
    assert day_in_exif(path) == date(2024, 5, 31)


def test_without_the_package_it_says_what_to_do(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path.write_bytes(WHOLE)
    with pytest.raises(ImageError, match="HEIC image, and pillow-heif") as caught:
        read_image(path)
    assert "hvq-edge[heic]" in caught.value.next_step
    assert "save the image as JPEG or PNG" in caught.value.next_step


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (WHOLE[:-9], "truncated HEIC"),
        (WHOLE.replace(b"hvcC", b"free"), "cannot be decoded"),
    ],
)
def test_a_damaged_one_is_refused(path, data, cause, capfd):
    path.write_bytes(data)
    with pytest.raises(ImageError, match=cause):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_a_small_file_that_announces_a_huge_image_is_not_decoded(path, monkeypatch):
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("memory would be filled")

    monkeypatch.setattr(pillow_heif, "open_heif", decode)
    size = WHOLE.index(b"ispe") + 8
    path.write_bytes(WHOLE[:size] + struct.pack(">II", 40000, 30000) + WHOLE[size + 8 :])
    for read in (read_image, lambda path: read_mask(path, 16, 16)):
        with pytest.raises(ImageError, match="40000x30000 pixels, more than 134 million in all"):
            read(path)


def test_whole_files_have_no_fault_and_say_their_size():
    assert fault_in_file(WHOLE) is None
    assert fault_in_file(WHOLE + bytes(7)) is None  # padding after the end is harmless
    said = announced(WHOLE)  # as it is encoded, in whole blocks of up to 64 pixels
    assert 60 <= said.width <= 64
    assert 40 <= said.height <= 64


@given(cut=st.integers(0, len(WHOLE) - 1))
def test_every_truncation_is_seen(cut):
    assert fault_in_file(WHOLE[:cut]) is not None


@given(data=st.binary(max_size=300), kept=st.integers(12, len(WHOLE)))
def test_any_bytes_can_be_walked_through(data, kept):
    fault = fault_in_file(WHOLE[:kept] + data)
    assert fault is None or fault.startswith("it is ")
    found = announced(WHOLE[:kept] + data)
    assert found is None or (found.width >= 0 and found.height >= 0)
