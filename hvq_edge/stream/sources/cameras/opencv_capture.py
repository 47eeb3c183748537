"""Opening an OpenCV capture quietly, and reading RGB from it. Shared by all OpenCV sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2

from hvq_edge.stream.sources.source import Image


@dataclass(frozen=True)
class CaptureFormat:
    """The resolution and rate that a camera is asked for; ``None`` leaves it to the camera.

    Drivers take the nearest they have.
    """

    width: int | None = None
    """Pixels."""
    height: int | None = None
    rate: int | None = None
    """Frames a second."""

    def given(self) -> dict[str, int]:
        """Return what is asked for, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


ANY_FORMAT = CaptureFormat()

SILENT = 0
"""``cv2.utils.logging.LOG_LEVEL_SILENT``."""


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from writing to standard error meanwhile: its warnings can quote whole URLs."""
    # OpenCV 4.8, which JetPack 6 brings, has it at the top level, later versions here.
    set_level = getattr(cv2.utils, "logging", cv2).setLogLevel
    former = set_level(SILENT)
    try:
        yield
    finally:
        set_level(former)


def open_capture(
    address: int | str, backend: int, options: Sequence[int] = ()
) -> cv2.VideoCapture | None:
    """Open a capture, or return ``None`` where that fails.

    Args:
        address: a V4L2 index, a path, a URL or a GStreamer pipeline.
        backend: one of ``cv2.CAP_*``.
        options: pairs of ``cv2.CAP_PROP_*`` and value.
    """
    with quiet_opencv():
        capture = cv2.VideoCapture(address, backend, list(options))
        if capture.isOpened():
            return capture
        capture.release()
        return None


class OpenCvReader:
    """Reads a camera through OpenCV, as ``Reader`` in ``live_capture.py`` says.

    Args:
        capture: open.
    """

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self.capture = capture
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.frames_per_second = float(rate) if rate and rate > 0 else None

    def read(self) -> Image | None:
        """Return the next image; ``None``: the camera is lost."""
        return read_rgb(self.capture)

    def release(self) -> None:
        """Free the camera."""
        self.capture.release()


def open_reader(
    address: int | str, backend: int, options: Sequence[int] = ()
) -> OpenCvReader | None:
    """Open a capture as a camera's reader, or return ``None``; see :func:`open_capture`."""
    capture = open_capture(address, backend, options)
    return None if capture is None else OpenCvReader(capture)


def read_rgb(capture: cv2.VideoCapture) -> Image | None:
    """Return the next frame, uint8 ``[height, width, 3]`` RGB, or ``None`` where there is none."""
    try:
        found, bgr = capture.read()
    except cv2.error:  # some backends raise on a damaged frame
        return None
    if not found or bgr is None or bgr.size == 0:
        return None
    image: Image = cv2.cvtColor(
        bgr, cv2.COLOR_GRAY2RGB if bgr.ndim == 2 or bgr.shape[2] == 1 else cv2.COLOR_BGR2RGB
    )
    return image
