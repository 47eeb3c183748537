"""A live camera that comes back by itself, whatever reads it. Shared by all cameras."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.source import Frame, Image, arrived, lost

logger = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0


class Reader(Protocol):
    """Reads one connection to a camera; used by one thread."""

    @property
    def frames_per_second(self) -> float | None:
        """The rate that is announced, if any."""
        ...

    def read(self) -> Image | str | None:
        """Return the next image, or ``None``: the camera is lost.

        A text: why there is no image this time, from a camera that is there; an empty one: nothing
        has come yet, and is asked for again.

        A reader that knows when an image would have come, had it not waited in the camera or in
        memory, says so with an attribute ``due``, in monotonic seconds.
        """
        ...

    def release(self) -> None:
        """Free the camera."""
        ...


class LiveCapture:
    """A camera that is read frame by frame, and reopened when a read fails.

    Every failed read, and every failed attempt to reopen, gives one frame without an image, so a
    gap is on record while it lasts. Waits between attempts double from half a second to 30 s, and
    each is shortened by up to half at random: cameras that a switch took down together do not all
    come back to it in the same moment.

    Args:
        reopen: opens the camera; ``None`` when that fails.
        name: what it is, for messages: without credentials.
        reader: opened first.
        first_wait: seconds before the second attempt to reopen; tests shorten it.
        triggered: whether the camera waits for a signal of its own before each frame. Then no
            frame is due while it is connected, and each of them counts.
        transport: what went wrong on the way so far, of a camera that counts its frames.
    """

    is_camera = True

    def __init__(
        self,
        reopen: Callable[[], Reader | None],
        name: str,
        reader: Reader,
        *,
        first_wait: float = FIRST_WAIT_SECONDS,
        triggered: bool = False,
        transport: Callable[[], Transport] = Transport,
    ) -> None:
        self._reopen = reopen
        self._name = name
        self._reader: Reader | None = reader
        self._first_wait = first_wait
        self._triggered = triggered
        self._transport = transport
        self._closed = threading.Event()
        self._frames_per_second = reader.frames_per_second
        self.live = not triggered

    @property
    def on_demand(self) -> bool:
        """Whether no frame is due now."""
        return self._triggered and self._reader is not None

    @property
    def transport(self) -> Transport:
        """What went wrong on the way from the camera so far."""
        return self._transport()

    @property
    def name(self) -> str:
        """Which camera."""
        return self._name

    @property
    def frames_per_second(self) -> float | None:
        """The rate the driver announces, if any."""
        return self._frames_per_second

    def __iter__(self) -> Iterator[Frame]:
        """Give frames until closed."""
        index = 0
        attempt = 0
        try:
            while not self._closed.is_set():
                image = self._reader.read() if self._reader is not None else None
                if isinstance(image, str):
                    if not image:
                        continue
                    yield lost(index, image)
                elif image is not None:
                    if attempt:
                        logger.info("%s is back after %d attempts", self._name, attempt)
                    attempt = 0
                    yield arrived(index, image, due=getattr(self._reader, "due", None))
                else:
                    attempt += 1
                    logger.info("%s; reopening it", self._gap(attempt))
                    yield lost(index, self._gap(attempt))
                    self._try_again(attempt)
                index += 1
        finally:
            self._release()

    def close(self) -> None:
        """End the iteration after the read under way; the iterating thread frees the camera."""
        self._closed.set()

    def _gap(self, attempt: int) -> str:
        if attempt == 1:
            return f"{self._name} gave no image"
        return f"{self._name} gave no image, and {attempt - 1} attempts to reopen it failed"

    def _try_again(self, attempt: int) -> None:
        """Release and reopen the camera; from the second attempt on, wait first."""
        self._release()
        if attempt > 1:
            spread = random.random()  # noqa: S311  # no secret
            self._closed.wait(wait_before(attempt, self._first_wait, spread))
        if not self._closed.is_set():
            self._reader = self._reopen()

    def _release(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.release()


def wait_before(attempt: int, first_wait: float, chance: float) -> float:
    """Return the seconds to wait before an attempt to reopen.

    Args:
        attempt: 2 or more; the first attempt is at once.
        first_wait: before the second attempt, at most.
        chance: 0 to 1: 0 waits half as long as 1.
    """
    longest = min(first_wait * 2.0 ** min(attempt - 2, 16), LONGEST_WAIT_SECONDS)
    return longest * (0.5 + 0.5 * chance)
