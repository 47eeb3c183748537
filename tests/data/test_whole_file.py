"""Files that are no whole image: damaged ones, and those whose header announces too much."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from helpers.image_files import BGR, IMAGE, PROGRESSIVE, encode, jpeg_with_exif, tiff
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.data.images import read_image, read_mask
from hvq_edge.data.whole_file import announced, fault_in_file
from hvq_edge.errors import ImageError

BAD_FILES = {
    "empty": (b"", "it is empty"),
    "text": (b"name,score\r\nbolt,0.3\r\n" * 9, "not an image but text"),
    "other": (b"\x00\x01\x02\x03" * 50, "not a JPEG, PNG"),
    "jpeg": (encode(".jpg", BGR)[:-200], "truncated JPEG"),
    "jpeg-end": (encode(".jpg", BGR)[:-2], "truncated JPEG"),
    "jpeg-exif": (jpeg_with_exif(6)[:-2], "truncated JPEG"),
    "jpeg-no-scan": (b"\xff\xd8\xff\xe0\x00\x04ab\xff\xd9", "without image data"),
    "png": (encode(".png", BGR)[:-12], "truncated PNG"),
    "bmp": (encode(".bmp", BGR)[:-1], "truncated BMP"),
    "tiff": (encode(".tiff", BGR)[:-400], "truncated TIFF"),
    "webp": (encode(".webp", BGR)[:-9], "truncated WebP"),
    "1x1": (encode(".png", BGR[:1, :1]), "1x1 pixels, smaller than 16"),
    "thin": (encode(".png", BGR[:15]), "60x15 pixels"),
    "float": (
        encode(".tiff", BGR.astype(np.float32)),
        "pixels are float32" if cv2.__version__ >= "5" else "pixels are ",  # 4.8 reads int16
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_with_path_cause_and_next_step(tmp_path, name, capfd):
    data, cause = BAD_FILES[name]
    path = tmp_path / f"{name}.png"
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(path) in caught.value.cause
    assert cause in caught.value.cause
    assert caught.value.next_step
    assert capfd.readouterr().err == ""  # decoders must not print over a progress bar


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "sample_format", "name"),
    [
        (np.float32, 3, "float32"),
        (np.float64, 3, "float64"),
        (np.int32, 2, "int32"),
        (np.int16, 2, "int16"),
        (np.uint32, 1, "uint32"),
    ],
)
def test_other_pixel_types_are_named(tmp_path, capfd, dtype, sample_format, name, order, big):
    path = tmp_path / "other.tif"
    levels = IMAGE[..., 0].astype(dtype)
    path.write_bytes(tiff(levels, 8 * levels.itemsize, sample_format, big=big, order=order))
    with pytest.raises(ImageError, match=rf"its pixels are {name}, not 8-bit or 16-bit levels"):
        read_image(path)
    assert capfd.readouterr().err == ""


def enlarged(name):
    """A whole small file whose header announces 40000x30000 pixels."""
    wide, high = 40000, 30000
    if name == "png":
        header = b"IHDR" + struct.pack(">II", wide, high) + WHOLE["png"][24:29]
        return (
            WHOLE["png"][:12] + header + struct.pack(">I", zlib.crc32(header)) + WHOLE["png"][33:]
        )
    if name == "tiff":
        return tiff(np.broadcast_to(np.uint8(0), (high, 1)), 8, 1).replace(
            struct.pack("<HHII", 256, 4, 1, 1), struct.pack("<HHII", 256, 4, 1, wide)
        )
    data = bytearray(WHOLE[name])
    if name == "jpeg":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", high, wide)
    elif name == "bmp":
        data[18:26] = struct.pack("<ii", wide, high)
        data[30:34] = struct.pack("<I", 1)  # run lengths: the size of the data says nothing
    else:
        extended = bytes(4) + (wide - 1).to_bytes(3, "little") + (high - 1).to_bytes(3, "little")
        chunk = b"VP8X" + struct.pack("<I", 10) + extended
        data[12:12] = chunk
        data[4:8] = struct.pack("<I", len(data) - 8)
    return bytes(data)


@pytest.mark.parametrize("name", ["png", "tiff", "jpeg", "bmp", "webp"])
def test_a_small_file_that_announces_a_huge_image_is_not_decoded(tmp_path, monkeypatch, name):
    def decode(*_):
        raise AssertionError("memory would be filled")

    monkeypatch.setattr(cv2, "imdecode", decode)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode)
    path = tmp_path / "bomb.png"
    path.write_bytes(enlarged(name))
    assert path.stat().st_size < 100_000
    for read in (read_image, lambda path: read_mask(path, 16, 16)):
        with pytest.raises(ImageError, match="40000x30000 pixels, more than 134 million in all"):
            read(path)


def side_of_type(tag, kind, value, *, big=False, order="<"):
    """A TIFF one of whose sides is a number of another field type."""
    entry = "HHQ8s" if big else "HHI4s"
    whole = tiff(IMAGE[..., 0], 8, 1, big=big, order=order)
    form = dict(zip((1, 3, 4, 16, 6, 8, 9, 17, 5, 11, 12), "BHIQbhiqQfd", strict=True))[kind]
    said = struct.pack(order + form, value)
    start = whole.index(struct.pack(order + "HH", tag, 16 if big else 4))
    changed = struct.pack(order + entry, tag, kind, 1, said)
    return whole[:start] + changed + whole[start + len(changed) :]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "big"), [(9, False), (9, True), (16, True), (17, True), (4, False)]
)
def test_a_size_is_read_from_a_field_of_any_integer_type(tmp_path, monkeypatch, kind, big, order):
    """A decoder takes a signed number as well as an unsigned one."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("memory would be filled"))
    path = tmp_path / "bomb.tif"
    path.write_bytes(side_of_type(257, kind, 2**30, big=big, order=order))
    with pytest.raises(ImageError, match="60x1073741824 pixels, more than 134 million in all"):
        read_image(path)


@pytest.mark.parametrize("kind", [1, 6, 3, 8, 4, 9])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_small_image_is_read_whatever_the_type_of_its_size(tmp_path, kind, order):
    path = tmp_path / "plain.tif"
    path.write_bytes(side_of_type(256, kind, 60, order=order))
    assert np.array_equal(read_image(path)[..., 0], IMAGE[..., 0])


@pytest.mark.parametrize("tag", [256, 257])
@pytest.mark.parametrize(("kind", "value"), [(6, -1), (8, -60), (9, -60), (9, 0), (11, 60.0)])
def test_a_size_that_is_no_whole_number_is_not_given_to_a_decoder(
    tmp_path, monkeypatch, tag, kind, value
):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it would guess"))
    path = tmp_path / "odd.tif"
    path.write_bytes(side_of_type(tag, kind, value))
    with pytest.raises(ImageError, match="a damaged TIFF"):
        read_image(path)


def test_a_small_tiff_of_a_huge_tile_is_not_decoded(tmp_path, monkeypatch):
    """A decoder makes room for the whole tile."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("memory would be filled"))
    image = tiff(IMAGE[..., 0], 8, 1)
    for old, new, value in ((277, 322, 2**16), (278, 323, 2**15)):
        place = image.index(struct.pack("<HHI", old, 4, 1))
        image = image[:place] + struct.pack("<HHII", new, 4, 1, value) + image[place + 12 :]
    path = tmp_path / "tile.tif"
    path.write_bytes(image)
    with pytest.raises(ImageError, match="65536x32768 pixels, more than 134 million in all"):
        read_image(path)


def test_what_does_not_say_its_size_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it would guess"))
    path = tmp_path / "odd.webp"
    path.write_bytes(WHOLE["webp"].replace(b"VP8 ", b"VP9 ", 1).replace(b"VP8L", b"VP9L", 1))
    with pytest.raises(ImageError, match="does not say its size"):
        read_image(path)


@pytest.mark.parametrize("name", sorted({"jpeg", "png", "bmp", "tiff", "webp"}))
def test_the_size_that_a_header_announces(name):
    found = announced(WHOLE[name])
    assert (found.width, found.height, found.samples) == (60, 40, "")


@given(data=st.binary(max_size=200), name=st.sampled_from(["jpeg", "png", "bmp", "tiff", "webp"]))
def test_the_header_of_any_bytes_can_be_asked_for(data, name):
    found = announced(WHOLE[name][:12] + data)
    assert found is None or (found.width >= 0 and found.height >= 0)


@pytest.mark.parametrize("options", [(), PROGRESSIVE, (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_jpeg_that_was_cut_and_closed_is_damaged(tmp_path, capfd, options, share):
    """Its end marker is there: decoders fill the rest with grey and print a warning."""
    whole = encode(
        ".jpg", np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8), *options
    )
    scan = whole.index(b"\xff\xda")
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[: scan + int(share * (len(whole) - scan))] + b"\xff\xd9")
    with pytest.raises(ImageError, match=r"it is a damaged JPEG \(.+\)"):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_a_jpeg_that_a_camera_has_padded_is_whole(tmp_path, capfd):
    path = tmp_path / "padded.jpg"
    path.write_bytes(WHOLE["jpeg"][:-2] + bytes(7) + WHOLE["jpeg"][-2:] + bytes(512))
    assert np.abs(read_image(path).astype(int) - IMAGE).mean() <= 6
    capfd.readouterr()  # OpenCV's decoder says so on standard error


WHOLE = {
    "jpeg": encode(".jpg", BGR),
    "progressive jpeg": encode(".jpg", BGR, *PROGRESSIVE),
    "jpeg with exif": jpeg_with_exif(6),
    "png": encode(".png", BGR),
    "bmp": encode(".bmp", BGR),
    "tiff": encode(".tiff", BGR),
    "webp": encode(".webp", BGR),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_have_no_fault(name):
    assert fault_in_file(WHOLE[name]) is None
    assert fault_in_file(WHOLE[name] + b"\0" * 7) is None  # padding after the end is harmless


@given(name=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_every_truncation_is_seen(name, data):
    whole = WHOLE[name]
    # TIFF may end in a value that nothing needs, so ask only for what lies before the directory.
    needed = int.from_bytes(whole[4:8], "little") if name == "tiff" else len(whole)
    cut = data.draw(st.integers(0, needed - 1))
    assert fault_in_file(whole[:cut]) is not None


@given(data=st.data())
def test_a_changed_byte_in_a_png_never_gives_another_image(data, tmp_path_factory):
    whole = bytearray(WHOLE["png"])
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.png"
    path.write_bytes(whole)
    try:
        read = read_image(path)
    except ImageError:
        return
    assert np.array_equal(read, IMAGE)


@settings(max_examples=300)
@given(
    start=st.sampled_from(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP"]
    ),
    rest=st.binary(max_size=300),
)
def test_the_walk_through_a_file_survives_any_bytes(start, rest):
    fault = fault_in_file(start + rest)
    assert fault is None or fault.startswith("it is ")


def test_a_jpeg_of_fill_bytes_is_walked_in_linear_time():
    assert fault_in_file(b"\xff\xd8" + b"\xff" * 5_000_000) is not None


def test_a_wrong_checksum_in_an_ancillary_chunk_is_harmless(tmp_path):
    png = WHOLE["png"]
    text = b"tEXtComment\0hello"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text) ^ 1)
    path = tmp_path / "commented.png"
    path.write_bytes(png[:33] + chunk + png[33:])
    assert np.array_equal(read_image(path), IMAGE)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("directory", "entry"),
    [
        (2**64 - 1, b""),
        (16, (256, 4, 2**63, 2**64 - 1)),  # as many widths as no file can hold
        (16, (273, 16, 1, 2**64 - 1)),
    ],
)
def test_a_bigtiff_that_points_beyond_any_file_is_said_to_be_no_image(
    tmp_path, order, directory, entry
):
    path = tmp_path / "beyond.tif"
    mark = b"II+\0" if order == "<" else b"MM\0+"
    content = mark + struct.pack(order + "HHQ", 8, 0, directory)
    if entry:
        content += struct.pack(order + "QHHQQ", 1, *entry)
    path.write_bytes(content + bytes(64))
    with pytest.raises(ImageError, match=r"beyond\.tif cannot be"):
        read_image(path)
