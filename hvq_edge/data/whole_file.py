"""Is an image file whole? Told from the file's own structure, before any decoder sees it.

Decoders disagree on broken files: some OpenCV releases fill the missing part of a truncated JPEG
with grey and say nothing, others print to standard error. A grey half would pass for a defect, or
worse, teach the model; so a file is walked marker by marker (chunk by chunk, strip by strip)
first. Formats: JPEG (ITU-T T.81 annex B), PNG (ISO 15948 section 5), BMP, TIFF 6.0, WebP (RIFF).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator

_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r")

_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_WITHOUT_LENGTH = {0x01, 0xD8}
# A marker is 0xFF and a byte that is neither stuffing (00), fill (FF) nor a restart (D0 to D7),
# so a search from the start of entropy-coded data jumps to that data's end.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_ANCILLARY = 0x20  # bit 5 of a chunk type's first letter: decoders may ignore the chunk

_TIFF_OFFSETS_AND_COUNTS = ((273, 279), (324, 325))  # strips; tiles
_TIFF_INTEGERS = {3: "H", 4: "I"}


def fault_in_file(data: bytes) -> str | None:
    """Say what is wrong with the bytes of an image file.

    Args:
        data: the whole file.

    Returns:
        The fault as the end of a sentence ("it is ..."), or ``None`` for a file that is whole.
        Damage inside JPEG entropy-coded data is not seen: the format has no checksum.
    """
    if not data:
        return "it is empty"
    for signature, check in _CHECKS:
        if signature.match(data):
            return check(data)
    if all(byte in _TEXT for byte in data[:64]):
        return "it is not an image but text"
    return "it is not a JPEG, PNG, BMP, TIFF or WebP image, whatever its name says"


def _jpeg_fault(data: bytes) -> str | None:
    position, scans = 2, 0
    while marker := _JPEG_MARKER.search(data, position):
        kind, position = marker[1][0], marker.end()
        if kind == _JPEG_END:
            return None if scans else "it is a JPEG without image data"
        if kind in _JPEG_WITHOUT_LENGTH:
            continue
        scans += kind == _JPEG_SCAN
        length = int.from_bytes(data[position : position + 2], "big")
        position += max(length, 2)
    return "it is a truncated JPEG (the end marker is missing)"


def _png_fault(data: bytes) -> str | None:
    view, position = memoryview(data), len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if not kind[0] & _PNG_ANCILLARY:
            (checksum,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(view[position + 4 : end - 4]) != checksum:
                return "it is a damaged PNG (a checksum does not match)"
        if kind == b"IEND":
            return None
        position = end
    return "it is a truncated PNG (the IEND chunk is missing)"


def _bmp_fault(data: bytes) -> str | None:
    truncated = "it is a truncated BMP"
    if len(data) < 18:
        return truncated
    offset, header = struct.unpack_from("<II", data, 10)
    if header < 40:  # the OS/2 header; its decoder checks the length
        return None
    if len(data) < 34:
        return truncated
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in (0, 3):  # run lengths: the size is not known beforehand
        return None
    row = (abs(width) * bits + 31) // 32 * 4
    return truncated if offset + row * abs(height) > len(data) else None


def _tiff_fault(data: bytes) -> str | None:
    order = "<" if data[:2] == b"II" else ">"
    try:
        tags = dict(_tiff_integer_tags(data, order))
    except struct.error:
        return "it is a truncated TIFF (its directory is missing)"
    for offsets, counts in _TIFF_OFFSETS_AND_COUNTS:
        pieces = zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
        if any(offset + count > len(data) for offset, count in pieces):
            return "it is a truncated TIFF (image data is missing)"
    return None


def _tiff_integer_tags(data: bytes, order: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield tag and values of the first directory's strip and tile entries."""
    wanted = {tag for pair in _TIFF_OFFSETS_AND_COUNTS for tag in pair}
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (entries,) = struct.unpack_from(f"{order}H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, entry)
        if tag not in wanted or kind not in _TIFF_INTEGERS:
            continue
        values = f"{order}{count}{_TIFF_INTEGERS[kind]}"
        place = entry + 8
        if struct.calcsize(values) > 4:
            (place,) = struct.unpack_from(f"{order}I", data, place)
        yield tag, struct.unpack_from(values, data, place)


def _webp_fault(data: bytes) -> str | None:
    (size,) = struct.unpack_from("<I", data, 4)
    return "it is a truncated WebP" if 8 + size > len(data) else None


def _nothing_known(_: bytes) -> str | None:
    return None


_CHECKS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], str | None]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg_fault),
    (re.compile(re.escape(_PNG_SIGNATURE)), _png_fault),
    (re.compile(rb"BM"), _bmp_fault),
    (re.compile(rb"II\*\x00|MM\x00\*"), _tiff_fault),
    (re.compile(rb"II\+\x00|MM\x00\+"), _nothing_known),  # BigTIFF: left to the decoder
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp_fault),
)
