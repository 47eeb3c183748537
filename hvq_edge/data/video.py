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

_QUALITY = 98


def write_video(
    path: Path,
    images: Iterable[NDArray[np.uint8]],
    frames_per_second: float,
    count: int,
    on_progress: ProgressCallback = silent,
) -> None:
    """Write a Motion JPEG video, in which every frame keeps its own detail.

    Args:
        path: an ``.avi`` file.
        images: uint8 ``[h, w, 3]``, RGB; all shown at the first one's size.
        frames_per_second: of the video.
        count: how many images, for the progress.
        on_progress: called after each.

    Raises:
        MissingCapability: this OpenCV writes no Motion JPEG.
        OutputError: nothing could be written.
    """
    with atomic_file(path) as temporary:
        named = temporary.with_suffix(".avi")  # OpenCV goes by the suffix
        writer = None
        try:
            for done, image in enumerate(images, start=1):
                if writer is None:
                    size = (image.shape[1], image.shape[0])
                    code = cv2.VideoWriter.fourcc(*"MJPG")
                    writer = cv2.VideoWriter(str(named), code, frames_per_second, size)
                    if not writer.isOpened():
                        raise MissingCapability(
                            "this OpenCV cannot write Motion JPEG video.",
                            next_step="pip install opencv-python, or stream a folder of images",
                        )
                    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, _QUALITY)
                if image.shape[1::-1] != size:
                    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                on_progress("video", done, count)
            if writer is None:
                raise OutputError(f"there is no image to write to {path}.")
            writer.release()
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)
