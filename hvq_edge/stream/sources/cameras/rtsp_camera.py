"""Network cameras: ``rtsp://[user:password@]host[:port]/path``, over TCP."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit

import cv2

from hvq_edge.errors import InputError, MissingCapability
from hvq_edge.stream.sources.cameras.appsink import (
    gstreamer_library,
    hardware_decoders,
    open_appsink,
)
from hvq_edge.stream.sources.cameras.live_capture import LiveCapture, Reader
from hvq_edge.stream.sources.cameras.opencv_capture import open_reader

TIMEOUT_MILLISECONDS = 5000
"""Time for opening, and for one read: a camera that is silent for longer is lost."""

_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_TCP_LOW_LATENCY = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|analyzeduration;500000"
"""FFmpeg looks at a stream for 5 s before it gives the first frame, by default; half a second is
enough for one that has video alone (measured with an RTSP server: open after 0.6 s, not 2.8 s)."""

_lock = threading.Lock()
_opening: set[int] = set()
"""Threads that open a stream with options of ours now; the last one takes them away again."""


def shown_url(url: str) -> str:
    """Return what may be shown of a stream's URL: scheme, host and port.

    User and password go, and so do path and query, where many cameras take credentials as well.
    With an ``@`` after the host, what looks like host and port may be user and password, written
    with a bare ``/``: then they go too.

    Raises:
        InputError: there is no host in it, or the port is not a number.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text could quote the URL: it is not passed on
        host, port = None, None
    if not host:
        raise InputError(
            "the camera's address is not of the form rtsp://host[:port]/path.",
            next_step="check it; write special characters of a password in percent form (@ is %40)",
        )
    if "@" in url.rpartition(parts.netloc)[2]:
        return f"{parts.scheme}://..."
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def open_rtsp_camera(url: str) -> LiveCapture:
    """Open a network camera.

    Where GStreamer is read through PyGObject and this machine decodes H.264 in hardware, frames
    come that way; else, or where it does not work, through OpenCV's FFmpeg, with its buffering off,
    unless the environment variable ``OPENCV_FFMPEG_CAPTURE_OPTIONS`` is set, which then decides
    alone.

    Raises:
        InputError: not a URL with a host.
        MissingCapability: OpenCV lacks FFmpeg, or the camera does not answer.
    """
    shown = shown_url(url)
    ways = [way for way in (_in_hardware(url), _through_ffmpeg(url)) if way is not None]
    if not ways:
        raise MissingCapability(
            f"{shown} needs OpenCV with FFmpeg, and this OpenCV {cv2.__version__} has none.",
            next_step="install the wheel: pip install opencv-python",
        )
    for reopen in ways:
        reader = reopen()
        if reader is not None:
            return LiveCapture(reopen, shown, reader)
    raise MissingCapability(
        f"the camera at {shown} cannot be opened (no answer, wrong user or password, or no "
        "such stream; neither is shown here).",
        next_step="test the same address with: ffplay -rtsp_transport tcp ADDRESS",
    )


def rtsp_pipeline(decoder: str) -> str:
    """Return the pipeline from a network camera, newest image only.

    Args:
        decoder: that ``decodebin`` will take; that of a Jetson gives images in device memory.
    """
    own_memory = "! nvvidconv ! video/x-raw,format=BGRx " if decoder == "nvv4l2decoder" else ""
    return (
        f"rtspsrc name=camera protocols=tcp latency=0 tcp-timeout={TIMEOUT_MILLISECONDS * 1000} "
        f"! application/x-rtp,media=video ! decodebin {own_memory}"
        "! videoconvert ! video/x-raw,format=BGR "
        "! appsink drop=true max-buffers=1 sync=false"
    )


def _in_hardware(url: str) -> Callable[[], Reader | None] | None:
    """Return the function that opens a camera so; ``None``: this machine cannot."""
    try:
        gst = gstreamer_library()
    except MissingCapability:
        return None
    decoders = hardware_decoders(gst)
    if not decoders:
        return None
    place = {"camera": {"location": url}}  # not in the text: a password may hold anything
    return partial(open_appsink, gst, rtsp_pipeline(decoders[0]), place)


def _through_ffmpeg(url: str) -> Callable[[], Reader | None] | None:
    if not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        return None

    def reopen() -> Reader | None:
        timeouts = (
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MILLISECONDS),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MILLISECONDS),
        )
        with _ffmpeg_options(_TCP_LOW_LATENCY):
            return open_reader(url, cv2.CAP_FFMPEG, timeouts)

    return reopen


@contextmanager
def _ffmpeg_options(options: str) -> Iterator[None]:
    """Set OpenCV's FFmpeg options while a stream is opened, unless the user has set them.

    They must not outlast it: with ``nobuffer``, a video file loses its last frame.
    """
    thread = threading.get_ident()
    with _lock:  # not while a stream opens: that takes seconds, and cameras come back together
        ours = bool(_opening) or _FFMPEG_OPTIONS not in os.environ
        if ours:
            os.environ[_FFMPEG_OPTIONS] = options
            _opening.add(thread)
    try:
        yield
    finally:
        with _lock:
            _opening.discard(thread)
            if ours and not _opening:
                os.environ.pop(_FFMPEG_OPTIONS, None)
