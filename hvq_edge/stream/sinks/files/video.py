"""Annotated frames as MP4 videos: whole, in pieces, and one a camera."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from hvq_edge.common.atomic import output_error, temporary_file
from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks.files.retention import time_stamp
from hvq_edge.stream.sinks.sink import Draw, Sink
from hvq_edge.stream.sources.cameras.opencv_capture import open_capture, quiet_opencv
from hvq_edge.stream.sources.source import Frame, Image
from hvq_edge.verdict.decision import Decision

_LOG = logging.getLogger(__name__)
KEY_FRAME_SECONDS = 2.0
"""As much is lost at most when the process is killed, and seeking is so fine."""
_CONTAINER = {"movflags": "hybrid_fragmented+frag_keyframe", "flush_packets": "1"}
# The engine needs the processor more than the video needs the last per cent of its size.
_ENCODER = {"preset": "ultrafast", "tune": "zerolatency", "crf": "23"}
_BT709 = _LIMITED_RANGE = 1
"""As FFmpeg numbers them."""


class AnnotatedVideo:
    """Writes every decided frame, drawn, into a video that appears when it is complete.

    H.264 in MP4, which browsers play; where PyAV is missing MPEG-4 Part 2, which every OpenCV can
    write. All frames have the size of the first; others are fitted into it with bars at the sides.

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
        self._writer: _Writer | None = None
        self._size = (0, 0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary: Path | None = temporary_file(path, f".part{path.suffix}")
        except OSError as error:
            raise output_error(path, error) from error

    @property
    def unfinished(self) -> Path | None:
        """The file that is being written, before it has its name."""
        return self._temporary

    def write(self, decision: Decision, frame: Frame) -> None:
        """Add one frame.

        Raises:
            OutputError: such a video cannot be written.
        """
        if self._temporary is None:
            return
        drawn = self._draw(decision, frame)
        try:
            if self._writer is None:
                self._size = drawn.shape[:2]
                self._writer = _open_writer(self._temporary, self._rate, *self._size)
            self._writer.write(letterbox(drawn, *self._size))
        except OSError as error:
            raise output_error(self._path, error) from error

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
            self._writer.close()
            # OpenCV's writer reports no errors: a video that cannot be opened was cut short.
            written = open_capture(str(temporary), cv2.CAP_ANY)
            if written is None:
                raise OutputError(
                    f"cannot write {self._path}: the video could not be finished.",
                    next_step="free some space, then run the same command again",
                )
            written.release()
            temporary.replace(self._path)
        except OSError as error:
            raise output_error(self._path, error) from error
        finally:
            temporary.unlink(missing_ok=True)


class _Writer(Protocol):
    """Encodes uint8 ``[height, width, 3]`` RGB images of one even size into a file."""

    def write(self, image: Image) -> None:
        """Add an image."""

    def close(self) -> None:
        """Finish the file."""


class _H264Writer:
    """H.264 through PyAV; what FFmpeg complains of is an ``OSError``.

    While it is written the file is fragmented: what a kill leaves plays up to its last key frame.
    Closing makes an ordinary MP4 of it, without a second pass over the file.
    """

    def __init__(self, path: Path, frames_per_second: float, height: int, width: int) -> None:
        import av

        self._frame_of = av.VideoFrame.from_ndarray
        with _ffmpeg_errors():
            self._container = av.open(str(path), "w", format="mp4", options=_CONTAINER)
        rate = Fraction(frames_per_second).limit_denominator(1000)
        self._stream = self._container.add_stream("h264", rate=rate, options=_ENCODER)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"  # browsers decode no other
        encoder = self._stream.codec_context
        encoder.gop_size = max(round(KEY_FRAME_SECONDS * frames_per_second), 1)
        encoder.thread_count = 1
        # Without these a browser guesses the colours from the size.
        encoder.colorspace = encoder.color_primaries = encoder.color_trc = _BT709
        encoder.color_range = _LIMITED_RANGE

    def write(self, image: Image) -> None:
        frame = self._frame_of(image, format="rgb24")
        coded = frame.reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE
        )
        with _ffmpeg_errors():
            self._container.mux(self._stream.encode(coded))

    def close(self) -> None:
        with _ffmpeg_errors():
            self._container.mux(self._stream.encode(None))
            self._container.close()


@contextmanager
def _ffmpeg_errors() -> Iterator[None]:
    """Not all of FFmpeg's errors have an ``errno`` that PyAV knows."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error


class _OpenCvWriter:
    """MPEG-4 Part 2 through OpenCV."""

    def __init__(self, path: Path, frames_per_second: float, height: int, width: int) -> None:
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        with quiet_opencv():
            self._writer = cv2.VideoWriter(str(path), codec, frames_per_second, (width, height))
        if not self._writer.isOpened():
            raise OutputError(
                f"cannot write {path}: this OpenCV {cv2.__version__} has no MPEG-4 encoder.",
                next_step="run again with --no-video, or pip install opencv-python",
            )

    def write(self, image: Image) -> None:
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        self._writer.release()


def _open_writer(path: Path, frames_per_second: float, height: int, width: int) -> _Writer:
    known = _H264Writer if _has_h264() else _OpenCvWriter
    return known(path, frames_per_second, height, width)


@lru_cache(maxsize=1)  # said once, however many pieces are written
def _has_h264() -> bool:
    try:
        import av

        av.codec.Codec("h264", "w")
    except (ImportError, ValueError) as error:
        _LOG.warning(
            "annotated videos are written as MPEG-4 Part 2, which browsers do not play: PyAV has "
            "no H.264 encoder here (%s). Next: pip install av",
            error,
        )
        return False
    return True


class VideoSegments:
    """Video for a camera that is watched for weeks, in pieces.

    Each piece is ``STAMP.mp4``, named after the arrival of its first frame. A kill leaves the piece
    in hand under its hidden name, playable but for its last two seconds.

    Args:
        folder: where to; it is made.
        draw: draws a frame.
        frames_per_second: at which they play.
        seconds: length of a piece, by the clock.
        tail: added to the names, to tell cameras apart.
        in_hand: holds the file of the piece in hand; cameras may share one.
    """

    def __init__(
        self,
        folder: Path,
        draw: Draw,
        frames_per_second: float,
        seconds: float,
        tail: str = "",
        in_hand: set[Path] | None = None,
    ) -> None:
        self._in_hand = set() if in_hand is None else in_hand
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
            if self._video.unfinished is not None:
                self._in_hand.add(self._video.unfinished)
            self._end = time.monotonic() + self._seconds
        self._video.write(decision, frame)

    def close(self) -> None:
        """Finish the piece in hand.

        Raises:
            OutputError: it cannot be finished.
        """
        video, self._video = self._video, None
        if video is None:
            return
        unfinished = video.unfinished
        try:
            video.close()
        finally:
            if unfinished is not None:
                self._in_hand.discard(unfinished)


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
