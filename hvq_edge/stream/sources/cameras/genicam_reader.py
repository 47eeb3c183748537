"""Reads one connection to an industrial camera: buffers, their numbers, their pixels."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, Protocol

from hvq_edge.stream.sources.cameras.camera_clock import CameraClock
from hvq_edge.stream.sources.cameras.frame_counter import FrameCounter, Transport, added
from hvq_edge.stream.sources.cameras.pixel_formats import NAMES, rgb_of
from hvq_edge.stream.sources.source import Image

logger = logging.getLogger(__name__)

MOST_LOST = 100
"""Frames missing in a row of which each is a frame without an image."""
_POLL_SECONDS = 0.1


class Counted(Protocol):
    """Keeps the counts."""

    transport: Transport


class GenicamReader:
    """Streams from the first :meth:`read` on until :meth:`release`; used by one thread.

    What the camera saw before is no frame of the run.

    Args:
        aravis: the library.
        camera: set up.
        refused: what the library raises.
        buffers: images that may wait.
        silence: seconds after which a camera that gives nothing is lost; ``None``: it is triggered,
            and each frame one of a part, so that one that never came is a lost frame.
        link: whose counts go on.

    Raises:
        Exception: of the type ``refused``.
    """

    def __init__(
        self,
        aravis: Any,  # noqa: ANN401  # without types
        camera: Any,  # noqa: ANN401
        refused: type[Exception],
        *,
        buffers: int,
        silence: float | None,
        link: Counted,
    ) -> None:
        self._aravis = aravis
        self._camera = camera
        self._refused = refused
        self._silence = silence
        self._link = link
        self._waiting: deque[Image | str] = deque()
        self._clock = CameraClock()
        self._chunks: Any = None
        self._ticks_per_second = 1_000_000_000
        self.due: float | None = None
        self._counter = FrameCounter(wraps=not camera.is_uv_device())
        self._gone = threading.Event()
        rate = None
        if silence is not None and camera.is_frame_rate_available():
            rate = float(camera.get_frame_rate()) or None
        self.frames_per_second: float | None = rate
        gone = self._gone
        self._handler = camera.get_device().connect("control-lost", lambda _: gone.set())
        self._stream: Any = None
        try:
            self._stream = camera.create_stream(None, None)
            self._chunks = self._timed_chunks()
            payload = camera.get_payload()  # chunks are a part of it
            for _ in range(buffers):
                self._stream.push_buffer(aravis.Buffer.new_allocate(payload))
        except BaseException:
            self.release()
            raise
        self._last: float | None = None

    def read(self) -> Image | str | None:
        """Return the next image, why there is none, or ``None`` where the camera is lost."""
        if self._last is None:
            try:
                self._camera.start_acquisition()
            except self._refused:
                return None
            self._last = time.monotonic()
        if not self._waiting:
            buffer = self._stream.timeout_pop_buffer(int(_POLL_SECONDS * 1e6))
            since = time.monotonic() - self._last
            if buffer is None:
                silent = self._silence is not None and since > self._silence
                return None if silent or self._gone.is_set() else ""
            self._last = time.monotonic()
            try:
                self._take(buffer, self._last)
            finally:
                self._stream.push_buffer(buffer)
        return self._waiting.popleft() if self._waiting else ""

    def release(self) -> None:
        """End the stream, and the connection: some 12 s where the camera is silent.

        Aravis asks five times, half a second or more apart, for each of: stop, end the stream, give
        back control. It has no setting for that; other threads run meanwhile.
        """
        if self._camera is None:
            return
        self._camera.get_device().disconnect(self._handler)
        if not self._gone.is_set():
            with suppress(self._refused):
                self._camera.stop_acquisition()
        self._stream = self._camera = None  # ends its threads and closes its sockets

    def _take(self, buffer: Any, came: float) -> None:  # noqa: ANN401
        """Put what a buffer leads to into the queue."""
        status = buffer.get_status()
        if status == self._aravis.BufferStatus.ABORTED:
            return
        number = buffer.get_frame_id()
        self.due = None
        # The number and time of one without its first packet are those that the memory had before.
        if status == self._aravis.BufferStatus.SUCCESS:
            moment = self._time_of(buffer)
            step = self._counter.step(number, moment)
            self.due = self._clock.due(moment, came)
        else:
            step = self._counter.without_number()
        found = self._image(buffer, status, number)
        self._link.transport = added(
            self._link.transport, step, found if isinstance(found, str) else ""
        )
        if self._silence is None:
            each = min(step.missed, MOST_LOST)
            self._waiting += [f"a frame never came: {step.said}"] * each
        if not step.resent:
            self._waiting.append(found)

    def _timed_chunks(self) -> Any:  # noqa: ANN401
        """Have the time of exposure written behind each image; ``None``: it is not offered."""
        camera = self._camera
        if not hasattr(self._aravis.Buffer, "get_image_data"):  # which leaves out what is behind it
            return None
        try:
            if not camera.are_chunks_available():
                return None
            if camera.is_gv_device():  # Aravis makes nanoseconds of the leader's time alone
                own = camera.get_device().get_timestamp_tick_frequency()
                self._ticks_per_second = int(own) or self._ticks_per_second
            camera.set_chunk_mode(True)  # first: without it some cameras refuse the rest
            try:
                camera.set_chunk_state("Timestamp", True)
                return camera.create_chunk_parser()
            except self._refused:
                camera.set_chunk_mode(False)
                raise
        except self._refused as error:
            logger.info("no time is read from chunks: %s", getattr(error, "message", error))
            return None

    def _time_of(self, buffer: Any) -> int:  # noqa: ANN401
        """Return a frame's time by the camera's clock in nanoseconds; 0: it has none."""
        if self._chunks is not None and buffer.has_chunks():
            with suppress(self._refused):
                ticks = int(self._chunks.get_integer_value(buffer, "ChunkTimestamp"))
                return ticks * 1_000_000_000 // self._ticks_per_second
        self._chunks = None  # for good: the leader's time may have another zero
        return int(buffer.get_timestamp())

    def _image(self, buffer: Any, status: Any, number: int) -> Image | str:  # noqa: ANN401
        if status != self._aravis.BufferStatus.SUCCESS:
            return f"a frame of the camera is incomplete ({status.value_nick})"
        name = NAMES.get(buffer.get_image_pixel_format())
        if name is None:
            return f"frame {number} has a pixel format that is not read"
        try:
            size = (buffer.get_image_width(), buffer.get_image_height())
            if not hasattr(buffer, "get_image_padding"):  # Aravis before 0.8.23
                return rgb_of(name, buffer.get_data(), *size)
            data = getattr(buffer, "get_image_data", buffer.get_data)()  # the first since 0.8.25
            return rgb_of(name, data or b"", *size, buffer.get_image_padding().x_padding)
        except ValueError as error:
            return f"frame {number} of the camera is incomplete: {error}"
