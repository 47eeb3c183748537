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


class AlwaysTrigger:
    """Comes whenever it is waited for."""

    def wait(self, _seconds):
        return time.monotonic()

    def answer(self, frame):
        pass

    def part(self):
        return ""

    def close(self):
        pass


def forever():
    while True:
        yield flat(10, SIDE)


class FlakyReader:
    """Gives so many images of a camera, then none, as from an unplugged one."""

    frames_per_second = None

    def __init__(self, images: int) -> None:
        self.left = images
        self.released = False

    def read(self):
        if not self.left:
            return None
        self.left -= 1
        return flat(50)

    def release(self):
        self.released = True
