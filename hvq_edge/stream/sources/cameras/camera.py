"""USB and other V4L2 cameras: ``0``, ``1``, ``/dev/video0``."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from hvq_edge.errors import MissingCapability
from hvq_edge.stream.sources.cameras.live_capture import LiveCapture
from hvq_edge.stream.sources.cameras.opencv_capture import (
    ANY_FORMAT,
    CaptureFormat,
    OpenCvReader,
    open_reader,
)

DEVICES = Path("/dev")
_PROPERTIES = {
    "width": cv2.CAP_PROP_FRAME_WIDTH,
    "height": cv2.CAP_PROP_FRAME_HEIGHT,
    "rate": cv2.CAP_PROP_FPS,
}


def open_camera(index: int, wanted: CaptureFormat = ANY_FORMAT) -> LiveCapture:
    """Open ``/dev/video<index>`` through V4L2.

    Args:
        index: of the device.
        wanted: resolution and rate that it is asked for, again whenever it is reopened.

    Raises:
        MissingCapability: there is no such camera, or it may not or cannot be opened.
    """

    def reopen() -> OpenCvReader | None:
        # One buffer: what is read is the newest image, not one that has waited in the driver.
        reader = open_reader(index, cv2.CAP_V4L2, (cv2.CAP_PROP_BUFFERSIZE, 1)) or open_reader(
            index, cv2.CAP_V4L2
        )
        # Set afterwards: given to open(), a size that the camera lacks would keep it closed.
        for name, value in wanted.given().items():
            if reader is not None:
                reader.capture.set(_PROPERTIES[name], value)
        return reader

    reader = reopen()
    if reader is None:
        raise _cannot_open(index, DEVICES)
    return LiveCapture(reopen, f"camera {index}", reader)


def _cannot_open(index: int, devices: Path) -> MissingCapability:
    """Say why a camera does not open, from what stands in ``/dev``."""
    device = devices / f"video{index}"
    present = sorted(
        (path for path in devices.glob("video*") if path.name[5:].isdecimal()),
        key=lambda path: int(path.name[5:]),
    )
    listed = ", ".join(str(path) for path in present) or "none"
    instead = "or give a video file or a folder of images: --camera FILE"
    if device not in present:
        return MissingCapability(
            f"there is no camera {index}: {device} does not exist (cameras here: {listed}).",
            next_step=f"plug the camera in and list it with: v4l2-ctl --list-devices; {instead}",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return MissingCapability(
            f"camera {index} may not be opened: no permission to read {device}.",
            next_step="join the video group: sudo usermod -aG video $USER, then log in again; "
            + instead,
        )
    return MissingCapability(
        f"camera {index} cannot be opened: {device} exists but gives no video "
        f"(in use by another program, or not a capture device; cameras here: {listed}).",
        next_step=f"see what it offers: v4l2-ctl -d {device} --all; try another number; {instead}",
    )
