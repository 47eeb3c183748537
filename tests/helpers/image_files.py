"""Image files as bytes: of every format, turned by EXIF, and TIFFs put together tag by tag."""

import struct

import cv2
import numpy as np


def encode(suffix, image, *options):
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


def smooth_image(height=40, width=60):
    """RGB, a different slope in each channel: survives lossy formats, shows swapped axes."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = (3 * columns + 20, 5 * rows + 10, 255 - 2 * rows - 2 * columns)
    return np.clip(np.dstack(channels), 0, 255).astype(np.uint8)


IMAGE = smooth_image()
BGR = IMAGE[..., ::-1].copy()
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def exif(orientation):
    """An EXIF segment with a thumbnail-like end-of-image marker inside, as real ones have."""
    directory = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + b"\xff\xd8\xff\xd9"
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def jpeg_with_exif(orientation):
    data = encode(".jpg", BGR)
    return data[:2] + exif(orientation) + data[2:]


def tiff(array, bits, sample_format, *, big=False, order="<"):
    """Grey, one strip, with nothing but the tags that a reader needs."""
    mark = b"II" if order == "<" else b"MM"
    height, width = array.shape
    body = array.astype(array.dtype.newbyteorder(order)).tobytes()
    place, count, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    start = 16 if big else 8
    values = {
        256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: start, 277: 1, 278: height,
        279: len(body), 339: sample_format,
    }  # fmt: skip
    head = mark + struct.pack(order + ("HHH" if big else "H"), *((43, 8, 0) if big else (42,)))
    long = 16 if big else 4
    entries = b"".join(
        struct.pack(order + entry, tag, long, 1, value) for tag, value in sorted(values.items())
    )
    directory = struct.pack(order + count, len(values)) + entries + bytes(8)
    return head + struct.pack(order + place, start + len(body)) + body + directory
