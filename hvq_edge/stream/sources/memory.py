"""Images from memory: arrays and Pillow images, a list of them or an iterator without end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from hvq_edge.data.images import rgb_from_memory
from hvq_edge.errors import ImageError
from hvq_edge.stream.sources.source import Frame, arrived, lost


class MemoryImages:
    """Images that a program gives, each once, in order.

    One that cannot be used is a lost frame with the reason. The iterable is asked for the next
    image when there is room for it, on the thread that captures; what it raises ends the
    inspection.

    Args:
        images: each as :func:`hvq_edge.data.images.rgb_from_memory` takes it.
    """

    live = False
    name = "images"
    frames_per_second = None

    def __init__(self, images: Iterable[object]) -> None:
        self._images = images
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        """Give one frame an image."""
        for index, image in enumerate(self._images):
            if self._closed.is_set():
                return
            try:
                yield arrived(index, rgb_from_memory(image))
            except ImageError as error:
                yield lost(index, error.cause)

    def close(self) -> None:
        """End the iteration after the image under way."""
        self._closed.set()
