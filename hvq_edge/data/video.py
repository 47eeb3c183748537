"""Images as a video file, to try the inspector without a camera."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.atomic import atomic_file
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.errors import MissingCapability, OutputError


def write_video(
    path: Path,
    images: Iterable[NDArray[np.uint8]],
    frames_per_second: float,
    count: int,
    on_progress: ProgressCallback = silent,
) -> None:
    """Write a lossless video: a camera that plays it gives the images as they are.

    FFV1, and not Motion JPEG: at the quality that OpenCV's FFmpeg writer takes for that, whatever
    it is asked for, two of three defects of the demo's cells were lost.

    Args:
        path: an ``.avi`` file.
        images: uint8 ``[h, w, 3]``, RGB; all shown at the first one's size.
        frames_per_second: of the video.
        count: how many images, for the progress.
        on_progress: called after each.

    Raises:
        MissingCapability: this OpenCV writes no FFV1.
        OutputError: it could not be written, or not whole.
    """
    with atomic_file(path) as temporary:
        named = temporary.with_suffix(".avi")  # OpenCV goes by the suffix
        writer = None
        try:
            for done, image in enumerate(images, start=1):
                if writer is None:
                    size = (image.shape[1], image.shape[0])
                    code = cv2.VideoWriter.fourcc(*"FFV1")
                    writer = cv2.VideoWriter(
                        str(named), cv2.CAP_FFMPEG, code, frames_per_second, size
                    )
                    if not writer.isOpened():
                        raise MissingCapability(
                            "this OpenCV cannot write lossless video (FFV1).",
                            next_step="pip install opencv-python, or stream a folder of images",
                        )
                if image.shape[1::-1] != size:
                    fitted = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                else:
                    fitted = image
                writer.write(cv2.cvtColor(fitted, cv2.COLOR_RGB2BGR))
                on_progress("video", done, count)
            if writer is None:
                raise OutputError(f"there is no image to write to {path}.")
            writer.release()
            kept = _frames_in(named)
            if kept != done:  # of a full disk OpenCV says nothing
                raise OutputError(
                    f"{path} cannot be written: it has {kept} of {done} images.",
                    next_step="see whether the disk is full",
                )
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def _frames_in(path: Path) -> int:
    reader = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        return sum(1 for _ in iter(reader.grab, False))
    finally:
        reader.release()
