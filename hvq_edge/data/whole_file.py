"""Is an image file whole? Told from the file's own structure, before any decoder sees it.

Decoders disagree on broken files: some OpenCV releases fill the missing part of a truncated JPEG
with grey and say nothing, others print to standard error. A grey half would pass for a defect, or
worse, teach the model; so a file is walked marker by marker (chunk by chunk, strip by strip)
first. Formats: JPEG (ITU-T T.81 annex B), PNG (ISO 15948 section 5), BMP, TIFF 6.0 and BigTIFF,
WebP (RIFF), HEIC (HEIF, ISO 23008-12). JPEG has no checksums: libjpeg-turbo's own warnings tell of
damage inside its data.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import simplejpeg

_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r")

_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_WITHOUT_LENGTH = {0x01, 0xD8}
# A marker is 0xFF and a byte that is neither stuffing (00), fill (FF) nor a restart (D0 to D7),
# so a search from the start of entropy-coded data jumps to that data's end.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Some cameras pad the data before the end marker: the image is whole, whatever libjpeg says.
_JPEG_PADDED = re.compile(r"extraneous bytes before marker 0xd9")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_ANCILLARY = 0x20  # bit 5 of a chunk type's first letter: decoders may ignore the chunk

_TIFF_OFFSETS_AND_COUNTS = ((273, 279), (324, 325))  # strips; tiles
_TIFF_INTEGERS = {
    1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
"""Field types that hold whole numbers, as decoders take them for a size whichever it is."""
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_SAMPLE_FORMAT = 256, 257, 258, 339
_TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 322, 323
_TIFF_SIDES = (_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT)
_TIFF_SAMPLES = {2: "int", 3: "float", 5: "complex int", 6: "complex"}
_TIFF_MOST_BITS = 16

_HEIF_AROUND_SIZES = ((b"meta", 4), (b"iprp", 0), (b"ipco", 0))
"""Boxes that lead to the sizes, each in the one before, with the bytes before the boxes in them."""


class Announced(NamedTuple):
    """What a file's header says of the pixels, known before anything is decoded."""

    width: int
    height: int
    samples: str = ""
    """The pixel type where it is none of 8-bit or 16-bit levels: ``float32``, ``12-bit JPEG``."""


_BEYOND = (struct.error, OverflowError, MemoryError)
"""What a place, or a number of values, raises that no file can have."""


def fault_in_file(data: bytes) -> str | None:
    """Say what is wrong with the bytes of an image file.

    Args:
        data: the whole file.

    Returns:
        The fault as the end of a sentence ("it is ..."), or ``None`` for a file that is whole.
    """
    if not data:
        return "it is empty"
    found = _format_of(data)
    if found is not None:
        return _READERS[found][0](data)
    if all(byte in _TEXT for byte in data[:64]):
        return "it is not an image but text"
    return "it is not a JPEG, PNG, BMP, TIFF, WebP or HEIC image, whatever its name says"


def damage_in_jpeg(data: bytes) -> str | None:
    """Say what libjpeg-turbo finds damaged inside the data of a JPEG.

    It decodes all of it, so ask for what the header announces first.

    Args:
        data: the whole file, of any format.

    Returns:
        The fault as the end of a sentence, or ``None``: none, or no JPEG.
    """
    if _format_of(data) != "jpeg":
        return None
    try:
        simplejpeg.decode_jpeg(data, "GRAY", strict=True)
    except ValueError as error:
        # What it does not decode at all is left to the decoder; only damage is told from here.
        if "orrupt" in str(error) and not _JPEG_PADDED.search(str(error)):
            return f"it is a damaged JPEG ({str(error).partition(': ')[2] or error})"
    return None


def announced(data: bytes) -> Announced | None:
    """Return what the header of a whole file says; ``None`` where it does not say it."""
    found = _format_of(data)
    try:
        return _READERS[found][1](data) if found else None
    except _BEYOND:
        return None


def _format_of(data: bytes) -> _Format | None:
    return next((name for name, mark in _SIGNATURES.items() if mark.match(data)), None)


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
    try:
        tags = _tiff_tags(data)
    except _BEYOND:
        return "it is a truncated TIFF (its directory is missing)"
    if not {_TIFF_WIDTH, _TIFF_HEIGHT} <= tags.keys() or not all(map(_is_plausible, tags.items())):
        return "it is a damaged TIFF (its directory does not say its size in whole numbers)"
    for offsets, counts in _TIFF_OFFSETS_AND_COUNTS:
        pieces = zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
        if any(offset + count > len(data) for offset, count in pieces):
            return "it is a truncated TIFF (image data is missing)"
    return None


def _tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Return the values of the tags of the first directory that this module asks for.

    Of a tag that holds no integers there are none.

    Raises:
        struct.error, OverflowError, MemoryError: they lie beyond the end of the file.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    place_of, count_of, entry_of, length, inline = (
        ("Q", "Q", "HHQ", 20, 8) if big else ("I", "H", "HHI", 12, 4)
    )
    wanted = {tag for pair in _TIFF_OFFSETS_AND_COUNTS for tag in pair}
    wanted |= {*_TIFF_SIDES, _TIFF_BITS, _TIFF_SAMPLE_FORMAT}
    (directory,) = struct.unpack_from(order + place_of, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count_of, data, directory)
    first = directory + struct.calcsize(order + count_of)
    tags: dict[int, tuple[int, ...]] = {}
    for number in range(entries):
        entry = first + length * number
        tag, kind, count = struct.unpack_from(order + entry_of, data, entry)
        if tag not in wanted or tag in tags:
            continue  # of a tag that comes twice, the first counts, as for its decoder
        if kind not in _TIFF_INTEGERS:
            tags[tag] = ()
            continue
        values = f"{order}{count}{_TIFF_INTEGERS[kind]}"
        place = entry + length - inline
        if struct.calcsize(values) > inline:
            (place,) = struct.unpack_from(order + place_of, data, place)
        tags[tag] = struct.unpack_from(values, data, place)
    return tags


def _is_plausible(tag: tuple[int, tuple[int, ...]]) -> bool:
    """Whether a tag's values are what a decoder could go by: a side is one number above 0."""
    number, values = tag
    if number in _TIFF_SIDES:
        return len(values) == 1 and values[0] > 0
    return bool(values) and min(values) >= 0


def _webp_fault(data: bytes) -> str | None:
    (size,) = struct.unpack_from("<I", data, 4)
    return "it is a truncated WebP" if 8 + size > len(data) else None


def _jpeg_header(data: bytes) -> Announced | None:
    position = 2
    while marker := _JPEG_MARKER.search(data, position):
        kind, position = marker[1][0], marker.end()
        if kind in _JPEG_WITHOUT_LENGTH:
            continue
        length, bits, height, width = struct.unpack_from(">HBHH", data, position)
        if kind in _JPEG_FRAMES:
            return Announced(width, height, "" if bits == 8 else f"those of a {bits}-bit JPEG")
        position += max(length, 2)
    return None


def _png_header(data: bytes) -> Announced:
    return Announced(*struct.unpack_from(">II", data, len(_PNG_SIGNATURE) + 8))


def _bmp_header(data: bytes) -> Announced:
    os2 = struct.unpack_from("<I", data, 14) == (12,)
    width, height = struct.unpack_from("<HH" if os2 else "<ii", data, 18)
    return Announced(abs(width), abs(height))


def _tiff_header(data: bytes) -> Announced | None:
    tags = _tiff_tags(data)
    if not tags.get(_TIFF_WIDTH) or not tags.get(_TIFF_HEIGHT):
        return None
    # A decoder unpacks a whole tile, however little of it the image covers.
    width, height = (
        max((tags[side][0], *tags.get(of_tile, ())))
        for side, of_tile in ((_TIFF_WIDTH, _TIFF_TILE_WIDTH), (_TIFF_HEIGHT, _TIFF_TILE_HEIGHT))
    )
    bits = max(tags.get(_TIFF_BITS) or (1,))
    (kind, *_) = tags.get(_TIFF_SAMPLE_FORMAT) or (1,)
    name = _TIFF_SAMPLES.get(kind, "uint" if bits > _TIFF_MOST_BITS else "")
    return Announced(width, height, f"{name}{bits}" if name else "")


def _webp_header(data: bytes) -> Announced | None:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return Announced(
            1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        )
    if chunk == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return Announced(1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF))
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Announced(width & 0x3FFF, height & 0x3FFF)
    return None


def _heif_fault(data: bytes) -> str | None:
    try:
        found = {kind for kind, _, _ in _heif_boxes(data, 0, len(data))}
    except _BEYOND:
        return "it is a truncated HEIC (image data is missing)"
    return None if {b"meta", b"mdat"} <= found else "it is a truncated HEIC (a part is missing)"


def _heif_header(data: bytes) -> Announced | None:
    places = [(0, len(data))]
    for wanted, skipped in _HEIF_AROUND_SIZES:
        places = [
            (begin + skipped, end)
            for place in places
            for kind, begin, end in _heif_boxes(data, *place)
            if kind == wanted
        ]
    sizes = [
        struct.unpack_from(">II", data, begin + 4)
        for place in places
        for kind, begin, _ in _heif_boxes(data, *place)
        if kind == b"ispe"
    ]
    # An image made of tiles announces theirs too.
    return Announced(*max(sizes, key=math.prod)) if sizes else None


def _heif_boxes(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield each box's kind, and where its content begins and ends; zeros at the end are padding.

    Raises:
        struct.error: one goes beyond the end.
    """
    while position < end and (end - position > 64 or any(data[position:end])):
        size, kind = struct.unpack_from(">I4s", data, position)
        begin = position + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin)
            begin += 8
        following = position + size if size else end
        if not begin <= following <= end:
            raise struct.error("a box goes beyond the end")
        yield kind, begin, following
        position = following


def is_heif(data: bytes) -> bool:
    """Tell whether the bytes begin as a HEIC image, which OpenCV does not read."""
    return _format_of(data) == "heif"


_Format = Literal["jpeg", "png", "bmp", "tiff", "webp", "heif"]
_SIGNATURES: dict[_Format, re.Pattern[bytes]] = {
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "png": re.compile(re.escape(_PNG_SIGNATURE)),
    "bmp": re.compile(rb"BM"),
    "tiff": re.compile(rb"II[*+]\x00|MM\x00[*+]"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "heif": re.compile(rb"....ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL),
}
_READERS: dict[
    _Format, tuple[Callable[[bytes], str | None], Callable[[bytes], Announced | None]]
] = {
    "jpeg": (_jpeg_fault, _jpeg_header),
    "png": (_png_fault, _png_header),
    "bmp": (_bmp_fault, _bmp_header),
    "tiff": (_tiff_fault, _tiff_header),
    "webp": (_webp_fault, _webp_header),
    "heif": (_heif_fault, _heif_header),
}
