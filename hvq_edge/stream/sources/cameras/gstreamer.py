"""Any GStreamer pipeline: ``gst:videotestsrc ! videoconvert``."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from functools import partial

import cv2

from hvq_edge.common.redaction import HIDDEN, redacted_message
from hvq_edge.errors import MissingCapability
from hvq_edge.stream.sources.cameras.appsink import gstreamer_library, open_appsink
from hvq_edge.stream.sources.cameras.live_capture import LiveCapture, Reader
from hvq_edge.stream.sources.cameras.opencv_capture import open_reader

_ELEMENT = re.compile(r"\s*([A-Za-z][A-Za-z0-9_-]*)(?=\s|!|$)")
_CAPS = re.compile(r"\s*(?:video|audio|image|application)/[\w.+-]+\s*(?:[,;(]|$)")
_PLACE = re.compile(r"(?<!\w)(?:[A-Za-z][\w+.-]*:/)?/[^\s\"']+")
"""A path or an address."""
_NEWEST_AS_BGR = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"


def open_gstreamer(pipeline: str) -> LiveCapture:
    """Open a pipeline as a live camera.

    Args:
        pipeline: as after ``gst-launch-1.0``. Where it has no ``appsink``, one that keeps the
            newest image is added, with the conversion to BGR that both readers take.

    Raises:
        MissingCapability: nothing here reads pipelines, or this one does not run.
    """
    shown = shown_pipeline(pipeline)
    told: deque[str] = deque(maxlen=1)
    reopen = pipeline_opener(whole_pipeline(pipeline), shown, told.append)
    reader = reopen()
    if reader is None:
        because = "".join(f": {without_values(reason, pipeline)}" for reason in told)
        raise MissingCapability(
            f"the pipeline {shown} does not give images{because}.",
            next_step="test it alone: gst-launch-1.0 PIPELINE ! fakesink; an appsink of its "
            "own must get BGR or GRAY8",
        )
    return LiveCapture(reopen, shown, reader)


def shown_pipeline(pipeline: str) -> str:
    """Return what may be shown of a pipeline: its first element.

    Properties go: ``location=`` often holds user and password.
    """
    element = _ELEMENT.match(pipeline)
    return f"gst:{element[1]}" if element else "gst:..."


def without_values(reason: str, pipeline: str) -> str:
    """Return a reason that GStreamer gives, without what may not be shown of a pipeline.

    What stays of the pipeline: its elements, the names of their properties, and its caps.
    """
    hidden = redacted_message(_PLACE.sub(HIDDEN, reason))
    shown, pieces = set(), set()
    for part in re.split(r"(?:^|\s)!", pipeline):
        if _CAPS.match(part):
            continue
        element = _ELEMENT.match(part)
        shown |= {element[1]} if element else set()
        shown |= set(re.findall(r"(?<=\s)[\w:.-]+(?=\s*=)", part))
        pieces |= set(re.findall(r"[^\s\"'=\\]+", part))
        pieces |= {found.strip("\"'") for found in re.findall(r"=\s*(\".*?\"|'.*?'|\S+)", part)}
    for piece in sorted(pieces - shown - {""}, key=len, reverse=True):
        hidden = re.sub(rf"(?<!\w){re.escape(piece)}(?!\w)", HIDDEN, hidden)
    return hidden


def whole_pipeline(pipeline: str) -> str:
    """Return the pipeline with an ``appsink`` at its end, which is read."""
    if re.search(r"(?:^|[\s!])appsink(?:\s|$)", pipeline):
        return pipeline
    return f"{pipeline.rstrip(' !')} ! {_NEWEST_AS_BGR}"


def has_gstreamer(build_information: str) -> bool:
    """Tell from ``cv2.getBuildInformation()`` whether OpenCV was built with GStreamer."""
    return re.search(r"^\s*GStreamer:\s+YES\b", build_information, re.MULTILINE) is not None


def pipeline_opener(
    whole: str, shown: str, tell: Callable[[str], object] = lambda _: None
) -> Callable[[], Reader | None]:
    """Return the function that opens a pipeline: through PyGObject where it is, else OpenCV.

    Args:
        whole: the pipeline, with its ``appsink``.
        shown: what may be shown of it.
        tell: called with why it gives no images, each time; OpenCV says nothing.

    Raises:
        MissingCapability: neither is there.
    """
    try:
        gst = gstreamer_library()
    except MissingCapability as error:
        if not has_gstreamer(cv2.getBuildInformation()):
            raise MissingCapability(
                f"{shown} needs GStreamer: {error.cause.rstrip('.')}, and this OpenCV "
                f"{cv2.__version__} has none (the opencv-python wheels on PyPI never do).",
                next_step=error.next_step,
            ) from error
        return partial(open_reader, whole, cv2.CAP_GSTREAMER)
    return partial(open_appsink, gst, whole, tell=tell)
