"""A video file, every frame of it once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2

from hvq_edge.errors import InputError
from hvq_edge.stream.sources.opencv_capture import open_capture, read_rgb
from hvq_edge.stream.sources.source import Frame, Image, arrived, lost

MOST_DAMAGED = 250
"""Frames in a row: after more, the file counts as ended."""


class VideoFile:
    """A video file.

    Frames are read as fast as they are taken, not at the video's own pace.

    Args:
        path: any file that OpenCV can decode.

    Raises:
        InputError: it is not a video, or has no frame that can be decoded.
    """

    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = threading.Event()
        # FFmpeg where it is present: OpenCV's other readers take "a%02d.avi" for a numbered series.
        found = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
        capture = open_capture(str(path), cv2.CAP_FFMPEG if found else cv2.CAP_ANY)
        first = read_rgb(capture) if capture is not None else None
        if capture is None or first is None:
            if capture is not None:
                capture.release()
            raise InputError(
                f"{path} is not a video that can be read, or has no frames.",
                next_step="give a video (.mp4, .avi, .mkv), a folder of images, or a camera "
                "number with --camera",
            )
        self._capture: cv2.VideoCapture = capture
        self._first = first
        self._announced = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        rate = capture.get(cv2.CAP_PROP_FPS)
        self._frames_per_second = float(rate) if 0.0 < rate < 1000.0 else None

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self._path)

    @property
    def frames_per_second(self) -> float | None:
        """The rate the file announces."""
        return self._frames_per_second

    def __iter__(self) -> Iterator[Frame]:
        """Give frames to the end of the file.

        A damaged frame is a lost one; so is all that is missing if the file ends before it should.
        """
        index = 0
        image = self._first
        try:
            while not self._closed.is_set():
                yield arrived(index, image)
                index += 1
                following, damaged = self._following(index)
                if following is None:
                    break
                for _ in range(damaged):
                    yield lost(index, "the frame cannot be decoded: the video is damaged here")
                    index += 1
                image = following
            if not self._closed.is_set() and _ends_early(index, self._announced):
                fault = f"the video ends after {index} of {self._announced} frames: it is damaged"
                yield lost(index, fault)
        finally:
            self._capture.release()

    def close(self) -> None:
        """End the iteration after the frame under way."""
        self._closed.set()

    def _following(self, index: int) -> tuple[Image | None, int]:
        """Return the next frame that can be decoded, and how many before it cannot.

        OpenCV says the same of a damaged frame and of the end of the file: what the file announces
        tells how far to look.
        """
        furthest = min(max(self._announced - index, 0), MOST_DAMAGED)
        for damaged in range(furthest + 1):
            image = read_rgb(self._capture)
            if image is not None or self._closed.is_set():
                return image, damaged
        return None, 0


def _ends_early(read: int, announced: int) -> bool:
    """Tell a truncated video. Announced counts are estimates in some formats: 2 % are let pass."""
    return read < announced - max(2, announced // 50)
