"""A video file, every frame of it once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2

from hvq_edge.errors import InputError
from hvq_edge.stream.sources.cameras.opencv_capture import open_capture, read_rgb
from hvq_edge.stream.sources.source import Frame, Image, arrived, lost

_LET_PASS = 0.02  # of a length: announced ones are rounded

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
                yield arrived(index, image, self._name_of(index))
                index += 1
                following, damaged = self._following(index)
                if following is None:
                    break
                for _ in range(damaged):
                    fault = "the frame cannot be decoded: the video is damaged here"
                    yield lost(index, fault, self._name_of(index))
                    index += 1
                image = following
            if not self._closed.is_set() and index < self._announced:
                fault = _missing_end(self._path, index, self._announced)
                if fault:
                    yield lost(index, fault, self._name_of(index))
        finally:
            self._capture.release()

    def close(self) -> None:
        """End the iteration after the frame under way."""
        self._closed.set()

    def _name_of(self, index: int) -> str:
        return f"{self._path.name}#{index}"

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


def _missing_end(path: Path, read: int, announced: int) -> str:
    """Say what is missing at the end of a video, or nothing.

    OpenCV's count is an estimate where the file holds none: its length times its rate, which is far
    too many where the rate varies. So what lies in the file is compared with what it announces.

    Args:
        path: the file.
        read: frames that were decoded, and those that could not be.
        announced: OpenCV's count.
    """
    import av

    try:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            starts: list[float] = []
            shown, end = 0, 0.0
            for packet in container.demux():
                if packet.pts is None or packet.time_base is None:
                    continue
                start = float(packet.pts * packet.time_base)
                end = max(end, start + float((packet.duration or 0) * packet.time_base))
                if packet.stream is video:
                    starts.append(start)
                    shown += not packet.is_discard
            rate = float(video.average_rate or 0)
            beginning = (container.start_time or 0) / av.time_base
            length = (container.duration or 0) / av.time_base
            counted = video.frames
            if container.format.name == "avi" and rate:
                # FFmpeg takes the length of the file there is; other formats keep what was written.
                length = max(length, counted / rate)
    except (av.FFmpegError, IndexError):
        return f"the video ends after {read} of about {announced} frames: it is damaged"
    gap = max((after - before for before, after in pairwise(sorted(starts))), default=0.0)
    if end - beginning < length - max(_LET_PASS * length, gap):
        if counted:
            return f"the video ends after {read} of {counted} frames: it is damaged"
        return (
            f"the video ends after {end - beginning:.1f} of {length:.1f} s, with {read} frames: it "
            "is damaged"
        )
    if read < shown - max(2, _LET_PASS * shown):
        return f"the last {shown - read} of {shown} frames cannot be decoded: the video is damaged"
    return ""
