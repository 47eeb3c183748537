"""Annotated frames as MP4 videos: whole, in pieces, and one a camera."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from hvq_edge.common.atomic import output_error
from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks.files.reject_images import time_stamp
from hvq_edge.stream.sinks.sink import Draw, Sink
from hvq_edge.stream.sources.opencv_capture import open_capture, quiet_opencv
from hvq_edge.stream.sources.source import Frame, Image
from hvq_edge.verdict.decision import Decision


class AnnotatedVideo:
    """Writes every decided frame, drawn, into a video that appears when it is complete.

    MPEG-4 Part 2 in MP4, which every OpenCV can write. All frames have the size of the first;
    others are fitted into it with bars at the sides.

    Args:
        path: the ``.mp4`` file; one that is there is replaced.
        draw: draws a frame.
        frames_per_second: at which it plays.

    Raises:
        OutputError: the folder cannot be made or written to.
    """

    def __init__(self, path: Path, draw: Draw, frames_per_second: float) -> None:
        self._path = path
        self._draw = draw
        self._rate = frames_per_second
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(f".part{path.suffix}", f".{path.stem}.", path.parent)
            os.close(handle)
        except OSError as error:
            raise output_error(path, error) from error
        self._temporary: Path | None = Path(name)

    def write(self, decision: Decision, frame: Frame) -> None:
        """Add one frame.

        Raises:
            OutputError: OpenCV cannot write such a video.
        """
        if self._temporary is None:
            return
        drawn = self._draw(decision, frame)
        if self._writer is None:
            self._writer = self._open(self._temporary, drawn)
        fitted = letterbox(drawn, *self._size)
        self._writer.write(cv2.cvtColor(fitted, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the video and give it its name; without frames there is none.

        Raises:
            OutputError: it cannot be finished.
        """
        if self._temporary is None:
            return
        temporary, self._temporary = self._temporary, None
        try:
            if self._writer is None:
                return
            self._writer.release()
            # OpenCV's writer reports no errors: a video that cannot be opened was cut short.
            written = open_capture(str(temporary), cv2.CAP_ANY)
            if written is None:
                raise OutputError(
                    f"cannot write {self._path}: the video could not be finished.",
                    next_step="free some space, then run the same command again",
                )
            written.release()
            temporary.chmod(0o644)
            temporary.replace(self._path)
        except OSError as error:
            raise output_error(self._path, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _open(self, path: Path, first: Image) -> cv2.VideoWriter:
        height, width = first.shape[:2]
        self._size = (height, width)
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        with quiet_opencv():
            writer = cv2.VideoWriter(str(path), codec, self._rate, (width, height))
        if not writer.isOpened():
            raise OutputError(
                f"cannot write {self._path}: this OpenCV {cv2.__version__} has no MPEG-4 encoder.",
                next_step="run again with --no-video, or pip install opencv-python",
            )
        return writer


class VideoSegments:
    """Video for a camera that is watched for weeks, in pieces.

    Each piece is ``STAMP.mp4``, named after the arrival of its first frame. A kill loses the piece
    in hand and no other.

    Args:
        folder: where to; it is made.
        draw: draws a frame.
        frames_per_second: at which they play.
        seconds: length of a piece, by the clock.
        tail: added to the names, to tell cameras apart.
    """

    def __init__(
        self,
        folder: Path,
        draw: Draw,
        frames_per_second: float,
        seconds: float,
        tail: str = "",
    ) -> None:
        self._folder = folder
        self._draw = draw
        self._rate = frames_per_second
        self._seconds = seconds
        self._tail = tail
        self._video: AnnotatedVideo | None = None
        self._end = 0.0

    def write(self, decision: Decision, frame: Frame) -> None:
        """Add one frame.

        Raises:
            OutputError: the video cannot be written; the next frame begins a new piece.
        """
        if self._video is not None and time.monotonic() >= self._end:
            self.close()
        if self._video is None:
            path = self._folder / f"{time_stamp(decision.time)}{self._tail}.mp4"
            self._video = AnnotatedVideo(path, self._draw, self._rate)
            self._end = time.monotonic() + self._seconds
        self._video.write(decision, frame)

    def close(self) -> None:
        """Finish the piece in hand.

        Raises:
            OutputError: it cannot be finished.
        """
        video, self._video = self._video, None
        if video is not None:
            video.close()


class ByCamera:
    """A sink for each camera, made with its first decision: frames of two make no video.

    Args:
        make: given the camera's name, makes its sink.
    """

    def __init__(self, make: Callable[[str], Sink]) -> None:
        self._make = make
        self._sinks: dict[str, Sink] = {}

    def write(self, decision: Decision, frame: Frame) -> None:
        """Hand a decision to its camera's sink.

        Raises:
            OutputError: of that sink.
        """
        camera = decision.camera
        if camera not in self._sinks:
            self._sinks[camera] = self._make(camera)
        self._sinks[camera].write(decision, frame)

    def close(self) -> None:
        """Close all, whatever becomes of the others.

        Raises:
            OutputError: the first that went wrong.
        """
        errors = []
        for sink in self._sinks.values():
            try:
                sink.close()
            except OutputError as error:
                errors.append(error)
        if errors:
            raise errors[0]


def letterbox(image: Image, height: int, width: int) -> Image:
    """Fit an image into a size, keeping its proportions, with dark bars where it does not fill it.

    Args:
        image: uint8 ``[h, w, 3]``.
        height: of the result, in pixels.
        width: of the result, in pixels.
    """
    if image.shape[:2] == (height, width):
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    rows = min(max(round(image.shape[0] * scale), 1), height)
    columns = min(max(round(image.shape[1] * scale), 1), width)
    resized = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    fitted = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    fitted[top : top + rows, left : left + columns] = resized
    return fitted
