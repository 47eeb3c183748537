"""Any GStreamer pipeline: ``gst:videotestsrc ! videoconvert``."""

from __future__ import annotations

import re

import cv2

from hvq_edge.errors import MissingCapability
from hvq_edge.stream.sources.cameras.live_capture import LiveCapture
from hvq_edge.stream.sources.cameras.opencv_capture import OpenCvReader, open_reader

_NEWEST_AS_BGR = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"


def open_gstreamer(pipeline: str) -> LiveCapture:
    """Open a pipeline as a live camera.

    Args:
        pipeline: as after ``gst-launch-1.0``. Where it has no ``appsink``, one that keeps the
            newest image is added, with the conversion to BGR that OpenCV needs.

    Raises:
        MissingCapability: OpenCV lacks GStreamer, or the pipeline does not run.
    """
    shown = shown_pipeline(pipeline)
    need_gstreamer(shown)
    whole = whole_pipeline(pipeline)

    def reopen() -> OpenCvReader | None:
        return open_reader(whole, cv2.CAP_GSTREAMER)

    reader = reopen()
    if reader is None:
        raise MissingCapability(
            f"the pipeline {shown} does not give images.",
            next_step="test it alone: gst-launch-1.0 PIPELINE ! fakesink",
        )
    return LiveCapture(reopen, shown, reader)


def shown_pipeline(pipeline: str) -> str:
    """Return what may be shown of a pipeline: its first element.

    Properties go: ``location=`` often holds user and password.
    """
    element = re.match(r"\s*([A-Za-z][A-Za-z0-9_-]*)(?=\s|!|$)", pipeline)
    return f"gst:{element[1]}" if element else "gst:..."


def whole_pipeline(pipeline: str) -> str:
    """Return the pipeline with an ``appsink`` at its end, from which OpenCV reads."""
    if re.search(r"(?:^|[\s!])appsink(?:\s|$)", pipeline):
        return pipeline
    return f"{pipeline.rstrip(' !')} ! {_NEWEST_AS_BGR}"


def has_gstreamer(build_information: str) -> bool:
    """Tell from ``cv2.getBuildInformation()`` whether OpenCV was built with GStreamer."""
    return re.search(r"^\s*GStreamer:\s+YES\b", build_information, re.MULTILINE) is not None


def need_gstreamer(what: str) -> None:
    """Check that OpenCV has GStreamer.

    Args:
        what: needs it.

    Raises:
        MissingCapability: it has not.
    """
    if not has_gstreamer(cv2.getBuildInformation()):
        raise MissingCapability(
            f"{what} needs OpenCV with GStreamer, and this OpenCV {cv2.__version__} "
            "has none (the opencv-python wheels on PyPI never do).",
            next_step="use the system's OpenCV: sudo apt install python3-opencv, then "
            "python3 -m venv --system-site-packages, without opencv-python in it",
        )
