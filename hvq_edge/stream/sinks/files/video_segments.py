"""Annotated video in pieces: for a camera that is watched for weeks."""

from __future__ import annotations

import time
from pathlib import Path

from hvq_edge.stream.sinks.files.reject_images import time_stamp
from hvq_edge.stream.sinks.files.video import AnnotatedVideo
from hvq_edge.stream.sinks.sink import Draw
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision


class VideoSegments:
    """Writes ``STAMP.mp4`` files, each named after the arrival of its first frame.

    A kill loses the piece in hand and no other.

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
