"""Sources of frames without a camera, and a camera that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from helpers.graphs import SIDE
from helpers.images import flat

from hvq_edge.stream.sources.source import Frame, arrived, lost


class ListSource:
    """Images from memory at a pace; ``None`` is a lost frame, an exception is raised."""

    name = "a list"

    def __init__(
        self,
        images,
        *,
        live: bool = False,
        pause: float = 0.0,
        frames_per_second: float | None = None,
    ) -> None:
        self.images = images
        self.live = live
        self.pause = pause
        self.frames_per_second = frames_per_second
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self.images):
            if self.closed.is_set():
                return
            time.sleep(self.pause)
            if isinstance(image, BaseException):
                raise image
            yield lost(index, "cable") if image is None else arrived(index, image)

    def close(self) -> None:
        self.closed.set()


def forever():
    while True:
        yield flat(10, SIDE)


class FlakyCapture:
    """A capture device that gives so many images, then fails, as an unplugged camera does."""

    def __init__(self, images: int) -> None:
        self.left = images
        self.released = False

    def read(self):
        if not self.left:
            return False, None
        self.left -= 1
        return True, flat(50)

    def get(self, _property):
        return 0.0

    def release(self):
        self.released = True
