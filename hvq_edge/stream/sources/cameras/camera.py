"""USB and other V4L2 cameras: ``0``, ``/dev/video0``, ``/dev/v4l/by-id/usb-...``."""

from __future__ import annotations

import os
import re
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


def open_camera(device: int | Path, wanted: CaptureFormat = ANY_FORMAT) -> LiveCapture:
    """Open ``/dev/video<index>`` through V4L2.

    Args:
        device: its index, or a link to it such as ``/dev/v4l/by-id/usb-...-video-index0``, which is
            followed again whenever it is reopened: it may have another index then.
        wanted: resolution and rate that it is asked for, again whenever it is reopened.

    Raises:
        MissingCapability: there is no such camera, or it may not or cannot be opened.
    """

    def reopen() -> OpenCvReader | None:
        index = device if isinstance(device, int) else _index_of(device)
        if index is None:
            return None
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
        raise _cannot_open(device, DEVICES)
    name = f"camera {device}" if isinstance(device, int) else device.name
    return LiveCapture(reopen, name, reader)


def _index_of(link: Path) -> int | None:
    """Return the index of the device that a link leads to; ``None``: it leads to none."""
    match = re.fullmatch(r"video([0-9]+)", link.resolve().name)
    return int(match[1]) if match and link.exists() else None


def _cannot_open(camera: int | Path, devices: Path) -> MissingCapability:
    """Say why a camera does not open, from what stands in ``/dev``."""
    from hvq_edge.doctor.cameras import cameras

    device = camera if isinstance(camera, Path) else devices / f"video{camera}"
    shown = f"camera {camera}" if isinstance(camera, int) else f"camera {camera.name}"
    instead = "or give a video file or a folder of images: --camera FILE"
    if device.exists() and not os.access(device, os.R_OK | os.W_OK):
        return MissingCapability(
            f"{shown} may not be opened: no permission to read {device}.",
            next_step="join the video group: sudo usermod -aG video $USER, then log in again; "
            + instead,
        )
    found = [one.found for one in cameras(devices) if one.name != "camera"]
    listed = " | ".join(found) or "none"
    if not device.exists():
        return MissingCapability(
            f"there is no {shown}: {device} does not exist (cameras here: {listed}).",
            next_step=f"plug the camera in and list it with: v4l2-ctl --list-devices; {instead}",
        )
    return MissingCapability(
        f"{shown} cannot be opened: {device} exists but gives no video "
        f"(in use by another program, or not a capture device; cameras here: {listed}).",
        next_step=f"see what it offers: v4l2-ctl -d {device} --all; try another number; {instead}",
    )
