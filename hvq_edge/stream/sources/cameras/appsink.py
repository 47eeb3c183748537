"""Reads a GStreamer pipeline through PyGObject: no OpenCV of PyPI has GStreamer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from hvq_edge.stream.sources.cameras.introspected import system_library
from hvq_edge.stream.sources.source import Image

SILENT_SECONDS = 5.0
"""A pipeline that gives nothing for longer is lost; its first image may take as long."""
HARDWARE_DECODERS = (
    "nvv4l2decoder",
    "nvh264dec",
    "vah264dec",
    "vaapih264dec",
    "v4l2slh264dec",
    "v4l2h264dec",
)
"""Of H.264. GStreamer has those whose device is there; on a Jetson the first."""
_POLL_SECONDS = 0.1
_TO_RGB = {"BGR": cv2.COLOR_BGR2RGB, "GRAY8": cv2.COLOR_GRAY2RGB, "RGB": None}


def gstreamer_library() -> Any:  # noqa: ANN401  # without types
    """Return GStreamer's module, initialised.

    Raises:
        MissingCapability: PyGObject or GStreamer is not there.
    """
    gst = system_library("Gst", "1.0", "gir1.2-gstreamer-1.0")
    gst.init(None)
    return gst


def hardware_decoders(gst: Any) -> list[str]:  # noqa: ANN401
    """Return which of :data:`HARDWARE_DECODERS` this machine has."""
    return [name for name in HARDWARE_DECODERS if gst.ElementFactory.find(name) is not None]


class AppsinkReader:
    """Reads the newest image of a pipeline that runs; see :func:`open_appsink`."""

    def __init__(self, gst: Any, pipeline: Any, sink: Any) -> None:  # noqa: ANN401
        self._gst = gst
        self._pipeline = pipeline
        self._sink = sink
        self._last = time.monotonic()
        self._ended = False
        self.reason = ""
        self.frames_per_second: float | None = None

    def read(self) -> Image | str | None:
        """Return the next image; empty: none has come yet; ``None``: the pipeline has ended."""
        sample = self._sink.emit("try-pull-sample", int(_POLL_SECONDS * self._gst.SECOND))
        self.listen()
        if sample is not None:
            self._last = time.monotonic()
            return self._image(sample)
        if not self._ended and time.monotonic() - self._last <= SILENT_SECONDS:
            return ""
        self.reason = self.reason or f"nothing came for {SILENT_SECONDS:g} s"
        return None

    def listen(self) -> None:
        """Learn whether the pipeline has ended, and the reason that its first error gives."""
        kinds = self._gst.MessageType.ERROR | self._gst.MessageType.EOS
        # Asked at each read: it throws all other messages away, which would pile up for weeks.
        message = self._pipeline.get_bus().pop_filtered(kinds)
        if message is None or self._ended:
            return
        self._ended = True
        self.reason = "it ended by itself"
        if message.type == self._gst.MessageType.ERROR:
            error, details = message.parse_error()
            detail = (details or "").strip().rpartition("\n")[2]  # before it, places in the code
            self.reason = ": ".join(filter(None, (error.message.rstrip("."), detail.rstrip("."))))

    def release(self) -> None:
        """Stop the pipeline; its threads end."""
        self._pipeline.set_state(self._gst.State.NULL)

    def _image(self, sample: Any) -> Image | str:  # noqa: ANN401
        caps = sample.get_caps()
        if caps is None:
            return "the pipeline gives data without saying of what"
        form = caps.get_structure(0)
        name, width, height = (form.get_value(key) for key in ("format", "width", "height"))
        known, above, below = form.get_fraction("framerate")
        self.frames_per_second = above / below if known and above and below else None
        if name not in _TO_RGB:
            return f"the pipeline gives {name} and not one of {', '.join(_TO_RGB)}"
        buffer = sample.get_buffer()
        data = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8)
        depth = 1 if name == "GRAY8" else 3
        if data.size % height or data.size // height < width * depth:
            return f"the pipeline gave {data.size} bytes for {width}x{height} pixels of {name}"
        lines = data.reshape(height, -1)  # each is filled up to a multiple of four bytes
        pixels = lines[:, : width * depth].reshape(height, width, depth)
        code = _TO_RGB[name]
        image: Image = pixels.copy() if code is None else cv2.cvtColor(pixels, code)
        return image


def open_appsink(
    gst: Any,  # noqa: ANN401
    text: str,
    properties: Mapping[str, Mapping[str, object]] | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> AppsinkReader | None:
    """Start a pipeline, and wait for its first image; ``None`` where none comes.

    Args:
        gst: the library.
        text: of the pipeline, which ends with an ``appsink``.
        properties: set besides, by element's name: what needs no quoting so.
        tell: called with why none comes; what is said may hold what the pipeline holds.
    """
    error = system_library("GLib", "2.0", "gir1.2-glib-2.0").Error
    try:
        pipeline = gst.parse_launch(text)
        for element, values in (properties or {}).items():
            for key, value in values.items():
                pipeline.get_by_name(element).set_property(key, value)
    except error as fault:
        tell(getattr(fault, "message", str(fault)).rstrip("."))
        return None
    sink = next(
        (one for one in _elements(gst, pipeline) if one.get_factory().get_name() == "appsink"), None
    )
    if sink is None:
        tell("it has no appsink, or is no whole pipeline")
        return None
    if not sink.get_property("max-buffers"):  # of somebody's own, which would keep all images
        sink.set_property("max-buffers", 1)
        sink.set_property("drop", True)
    reader = AppsinkReader(gst, pipeline, sink)
    first: Image | str | None = None
    try:
        if pipeline.set_state(gst.State.PLAYING) != gst.StateChangeReturn.FAILURE:
            first = ""
        else:
            reader.listen()
        while isinstance(first, str) and not first:
            first = reader.read()
    finally:
        if not isinstance(first, np.ndarray):  # one that runs on ends the whole process
            reader.release()
    if isinstance(first, np.ndarray):
        return reader
    tell(first or reader.reason or "it does not start")
    return None


def _elements(gst: Any, pipeline: Any) -> list[Any]:  # noqa: ANN401
    """Return the elements of a pipeline; none of what is a part of one, such as ``( ... )``."""
    if not isinstance(pipeline, gst.Pipeline):
        return []
    found: list[Any] = []
    pipeline.iterate_elements().foreach(found.append)
    return found
