"""Reading images and fitting them to the model: the one path from a file to a frame.

Training, evaluation, calibration and streaming all use :func:`fit_image`, so that what the
model learnt is what it sees later, pixel for pixel.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.extras import pip_install
from hvq_edge.data.whole_file import announced, damage_in_jpeg, fault_in_file, is_heif
from hvq_edge.errors import ImageError
from hvq_edge.run.tiling import FrameSize, shape_of

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
"""File name endings of images, in lower case; compare with ``path.suffix.lower()``."""

SMALLEST_SIDE = 16
"""Pixels; below this an image has less than one token of detail and is surely not a product."""

MOST_PIXELS = 2**27
"""Width times height; 400 MB once decoded. A small file can announce far more than memory holds."""

_MOST_BYTES = 8 * MOST_PIXELS  # four channels of 16 bits, not compressed
_LOSSY_SUFFIXES = frozenset({".heic", ".heif", ".jpeg", ".jpg", ".webp"})


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file.

    Grey is repeated over the channels, alpha dropped, EXIF orientation applied, and 16-bit levels
    divided by 257 (65535 becomes 255): never by the image's own range, which would make a
    brighter part look like any other.

    Args:
        path: JPEG, PNG, BMP, TIFF (first page), WebP, or HEIC where pillow-heif is installed; the
            content decides, not the name.

    Returns:
        uint8 ``[height, width, 3]``, RGB, contiguous.

    Raises:
        ImageError: missing, not readable, no plain file, empty, not an image, truncated or damaged,
            of another pixel type, smaller than :data:`SMALLEST_SIDE` on a side, or with more than
            :data:`MOST_PIXELS`.
    """
    return rgb_of(decode_levels(read_file(path), path))


def rgb_from_memory(image: object) -> NDArray[np.uint8]:
    """Take an image that a program has in memory, as :func:`read_image` would read it.

    Args:
        image: an array ``[height, width]``, ``[height, width, 1]``, ``[height, width, 3]`` (RGB)
            or ``[height, width, 4]`` (alpha is dropped) of uint8 or uint16 (65535 is white); or a
            Pillow image of any mode with 8 or 16 bits, which is turned as its EXIF says.

    Returns:
        A copy: uint8 ``[height, width, 3]``, RGB, contiguous.

    Raises:
        ImageError: another type, shape or dtype, or smaller than :data:`SMALLEST_SIDE` on a side.
    """
    pillow = sys.modules.get("PIL.Image")  # whoever has such an image has imported it
    if pillow is not None and isinstance(image, pillow.Image):
        image = _levels_of_pillow(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"an image must be an array or a Pillow image, not {type(image).__name__}.",
            next_step="give uint8 [height, width, 3], RGB",
        )
    levels = image[:, :, np.newaxis] if image.ndim == 2 else image
    if levels.ndim != 3 or levels.shape[2] not in (1, 3, 4):
        raise _no_rgb(image)
    if levels.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"an image cannot be of {levels.dtype}: its levels would be guessed.",
            next_step="give uint8 (0 to 255) or uint16 (0 to 65535)",
        )
    if min(levels.shape[:2]) < SMALLEST_SIDE:
        raise ImageError(
            f"an image of {levels.shape[1]}x{levels.shape[0]} pixels is smaller than "
            f"{SMALLEST_SIDE} on a side.",
            next_step="give the full-size image",
        )
    levels = np.broadcast_to(levels[:, :, :3], (*levels.shape[:2], 3))
    if levels.dtype == np.uint16:
        levels = cv2.convertScaleAbs(np.ascontiguousarray(levels), alpha=1 / 257)
    return np.array(levels, dtype=np.uint8, order="C")


def _levels_of_pillow(image: Any) -> NDArray[Any]:  # noqa: ANN401  # Pillow is optional
    from PIL.ImageOps import exif_transpose

    turned = exif_transpose(image)
    if turned.mode.startswith("I;16"):
        return np.asarray(turned).astype(np.uint16)
    if turned.mode in ("I", "F"):
        raise ImageError(
            f"a Pillow image of mode {turned.mode} has no 8-bit or 16-bit levels.",
            next_step="convert it to mode RGB first, with the same scale for all images",
        )
    return np.asarray(turned.convert("RGB"))


def read_file(path: Path) -> bytes:
    """Read a plain file of a size that an image can have.

    A pipe or a device is refused, not waited for.

    Raises:
        ImageError: missing, not readable, no plain file, or too large.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123  # it is open already
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(
                    f"{path} cannot be read: it is a pipe or a device, not a plain file.",
                    next_step="name an image file, or take it out of the folder",
                )
            if status.st_size > _MOST_BYTES:
                raise ImageError(
                    f"{path} cannot be used: it has more than {_MOST_BYTES >> 20} MiB.",
                    next_step="cut or shrink the image, or take it out of the folder",
                )
            return file.read()
    except FileNotFoundError:
        raise ImageError(
            f"{path} does not exist.", next_step="check the path of the image"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        why = error.strerror if isinstance(error, OSError) else error
        raise ImageError(
            f"{path} cannot be read: {why}.",
            next_step="check that it is an image file that you may read",
        ) from error


def decode_levels(data: bytes, path: Path | str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode the bytes of an image file to the levels it holds.

    Args:
        data: the whole file.
        path: where they are from, for messages alone.

    Returns:
        uint8 or uint16 ``[height, width, 3]``, BGR.

    Raises:
        ImageError: as :func:`read_image`.
    """
    # ANYDEPTH keeps 16 bits, so that the scaling is ours; COLOR drops alpha and applies EXIF.
    decoded = _decode(data, path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if decoded.dtype not in (np.uint8, np.uint16):
        raise _other_samples(path, str(decoded.dtype))
    height, width = decoded.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise ImageError(
            f"{path} cannot be used: it is {width}x{height} pixels, smaller than "
            f"{SMALLEST_SIDE} on a side.",
            next_step="take it out of the folder, or put the full-size image there",
        )
    return decoded  # type: ignore[return-value]  # the dtype was checked


def rgb_of(levels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Turn what :func:`decode_levels` gives into 8-bit RGB."""
    if levels.dtype == np.uint16:
        levels = cv2.convertScaleAbs(levels, alpha=1 / 257)
    rgb: NDArray[np.uint8] = cv2.cvtColor(levels, cv2.COLOR_BGR2RGB)
    return rgb


def fit_image(image: NDArray[np.uint8], size: FrameSize) -> NDArray[np.uint8]:
    """Stretch an image to the model's input.

    Each axis that shrinks is averaged over the area it covers (no aliasing); each axis that grows
    is interpolated linearly.

    Args:
        image: uint8 ``[height, width, 3]``.
        size: of the input in pixels.

    Returns:
        uint8 ``[height, width, 3]`` of that size, contiguous; the image itself where nothing is to
        be done.

    Raises:
        ImageError: ``image`` has another shape or dtype, or no pixels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise _no_rgb(image)
    height, width = image.shape[:2]
    rows, columns = shape_of(size)
    fitted = image
    # INTER_AREA averages only where no axis grows, hence first down, then up.
    if height > rows or width > columns:
        smaller = (min(width, columns), min(height, rows))
        fitted = cv2.resize(fitted, smaller, interpolation=cv2.INTER_AREA)
    if height < rows or width < columns:
        fitted = cv2.resize(fitted, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(fitted)


def read_frame(path: Path, size: FrameSize) -> NDArray[np.uint8]:
    """Read an image file as the model's input: :func:`read_image`, then :func:`fit_image`.

    Returns:
        uint8 ``[height, width, 3]`` of that size, RGB, contiguous.

    Raises:
        ImageError: as :func:`read_image`.
    """
    return fit_image(read_image(path), size)


def read_mask(path: Path, height: int, width: int) -> NDArray[np.bool_]:
    """Read a ground-truth mask at a given size: true where the part is defective.

    Resized to the nearest pixel, as published evaluations do.

    Args:
        path: the mask file.
        height: of the result, in pixels.
        width: of the result, in pixels; the mask is stretched to both.

    Returns:
        bool ``[height, width]``.

    Raises:
        ImageError: as :func:`read_full_mask`.
    """
    defective = read_full_mask(path).astype(np.uint8)
    resized = cv2.resize(defective, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, dtype=np.bool_)


def read_full_mask(path: Path) -> NDArray[np.bool_]:
    """Read a ground-truth mask at its own size: true where the part is defective.

    A pixel is defective where any channel is not 0: MVTec AD uses 0 and 255, VisA the number of
    the kind of defect (1, 2, ...), and some tools write 16 bits or colours. In lossy formats, where
    0 does not stay 0, it is defective from 128 on.

    Args:
        path: the mask file; alpha is ignored.

    Returns:
        bool ``[height, width]``.

    Raises:
        ImageError: missing, not an image or truncated.
    """
    levels = read_any_levels(path)
    smallest = 128 if path.suffix.lower() in _LOSSY_SUFFIXES else 1
    defective = np.asarray(levels) >= smallest
    return np.asarray(defective.any(axis=2) if defective.ndim == 3 else defective, dtype=np.bool_)


def read_any_levels(path: Path) -> NDArray[np.generic]:
    """Read the levels of an image as its file holds them: grey ``[h, w]`` or BGR ``[h, w, 3]``.

    Raises:
        ImageError: as :func:`read_full_mask`.
    """
    # Converted to 8-bit grey, level 1 of 16 bits and a dark blue would become 0.
    return _decode(read_file(path), path, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)


def _decode(data: bytes, path: Path | str, flags: int) -> NDArray[np.generic]:
    """Decode a file after checking that it is whole, so that no decoder guesses or prints."""
    fault = fault_in_file(data)
    header = announced(data) if fault is None else None
    if fault is None and header is None:
        fault = "its header does not say its size"  # then nothing says what it would unpack to
    if header is not None and header.width * header.height > MOST_PIXELS:
        raise ImageError(
            f"{path} cannot be used: it is {header.width}x{header.height} pixels, "
            f"more than {MOST_PIXELS / 1e6:.0f} million in all.",
            next_step="cut or shrink the image, or take it out of the folder",
        )
    if header is not None and header.samples:
        raise _other_samples(path, header.samples)
    fault = fault or damage_in_jpeg(data)
    if fault is None:
        try:
            decoded: NDArray[np.generic] | None = (
                _decode_heif(data, path)
                if is_heif(data)
                else cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
            )
        except cv2.error:
            decoded = None
        if decoded is not None:
            return decoded
        fault = "its content cannot be decoded"
    raise ImageError(
        f"{path} cannot be used: {fault}.",
        next_step="copy or save the image again, or take it out of the folder",
    )


def _decode_heif(data: bytes, path: Path | str) -> NDArray[np.generic] | None:
    """Decode a HEIC image, turned as it says; ``None``: it cannot be decoded."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            f"{path} cannot be used: it is a HEIC image, and pillow-heif, which reads them, is "
            "not installed.",
            next_step=f"{pip_install('heic')}, or save the image as JPEG or PNG",
        ) from None
    try:
        decoded = np.asarray(pillow_heif.open_heif(io.BytesIO(data), bgr_mode=True))
    except Exception:  # noqa: BLE001  # a damaged file raises almost anything
        return None
    if decoded.ndim == 2:
        decoded = np.dstack([decoded] * 3)
    return np.ascontiguousarray(decoded[..., :3])  # without alpha


def _no_rgb(image: NDArray[np.generic]) -> ImageError:
    return ImageError(
        f"an image must be uint8 [height, width, 3]; this is {image.dtype} {list(image.shape)}.",
        next_step="convert it to 8-bit RGB first",
    )


def _other_samples(path: Path | str, samples: str) -> ImageError:
    return ImageError(
        f"{path} cannot be used: its pixels are {samples}, not 8-bit or 16-bit levels.",
        next_step="save it as 8-bit or 16-bit PNG, with the same scale for all images",
    )
