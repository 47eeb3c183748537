"""Opens the source that the user named with ``--camera``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvq_edge.common.redaction import HIDDEN, redacted
from hvq_edge.data.images import IMAGE_SUFFIXES
from hvq_edge.errors import InputError, SettingsError
from hvq_edge.stream.sources.cameras.camera import open_camera
from hvq_edge.stream.sources.cameras.csi_camera import open_csi_camera
from hvq_edge.stream.sources.cameras.genicam import SCHEME, open_genicam, parse_genicam
from hvq_edge.stream.sources.cameras.gstreamer import open_gstreamer, shown_pipeline
from hvq_edge.stream.sources.cameras.opencv_capture import ANY_FORMAT, CaptureFormat
from hvq_edge.stream.sources.cameras.rtsp_camera import open_rtsp_camera, shown_url
from hvq_edge.stream.sources.folder import ImageFiles, open_folder
from hvq_edge.stream.sources.sequence import is_sequence, open_sequence
from hvq_edge.stream.sources.source import Source
from hvq_edge.stream.sources.video_file import VideoFile
from hvq_edge.stream.sources.watched_folder import WatchedFolder

ACCEPTED = (
    "a camera number (0), /dev/video0, csi://0, rtsp://host/path, genicam://SERIAL, gst:PIPELINE, "
    "a video or image file, a folder of images, watch:FOLDER, or a series of images (img_%04d.png, "
    "img_*.png)"
)

_MISTYPED = re.compile(r"[A-Za-z]\w*:|(?:rtsps?|https?|gst|csi|genicam)\b|.*@", re.DOTALL)
"""Begins what was meant as a URL or a pipeline and is none, as ``rtsp//user:word@host`` is: it is
taken for a path, and may hold credentials as well."""


@dataclass(frozen=True)
class Address:
    """What kind of source an address names."""

    kind: Literal["camera", "csi", "rtsp", "genicam", "gst", "watch", "path"]
    number: int = 0
    """Number of the camera or CSI sensor."""
    text: str = ""
    """The URL, pipeline or path, also that of a link to a camera; may hold credentials, so it
    never goes into a message for a URL or a pipeline."""


def parse_address(camera: int | str | Path) -> Address:
    """Tell what kind of source an address names, without opening anything.

    Args:
        camera: a camera number, ``/dev/videoN``, ``/dev/v4l/by-id/NAME``, ``csi://N``, an
            ``rtsp://`` URL, ``genicam://SERIAL``, ``gst:PIPELINE``, ``watch:FOLDER``, or a path,
            which may hold a pattern. A file whose name is a number is given as ``./0``, and one
            that begins with ``gst:`` as ``./gst:``.

    Raises:
        InputError: none of these.
    """
    if isinstance(camera, bool) or (isinstance(camera, int) and camera < 0):
        raise _not_accepted(f"camera {camera}")
    if isinstance(camera, int):
        return Address("camera", camera)
    if isinstance(camera, Path):
        return Address("path", text=str(camera))
    text = camera.strip()
    if match := re.fullmatch(r"(?:/dev/video)?([0-9]{1,4})", text):
        return Address("camera", int(match[1]))
    if text.startswith("/dev/v4l/") and "\0" not in text:
        return Address("camera", text=text)
    for kind in ("gst", "watch"):
        if text.startswith(f"{kind}:"):
            rest = text.partition(":")[2].strip()
            if not rest or "\0" in rest:
                raise _not_accepted(f"{kind}: with nothing after it")
            return Address(kind, text=rest)
    if match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        scheme = match[1].lower()
        if scheme in {"rtsp", "rtsps"}:
            shown_url(text)
            return Address("rtsp", text=text)
        if f"{scheme}://" == SCHEME:
            rest = text[match.end() :]
            parse_genicam(rest)
            return Address("genicam", text=rest)
        if scheme != "csi":
            raise _not_accepted(f"an address that starts with {scheme}://")
        if not re.fullmatch(r"[0-9]{1,3}", sensor := text[match.end() :]):
            raise _not_accepted("a csi:// address without a sensor number")
        return Address("csi", int(sensor))
    if not text or "\0" in text:
        raise _not_accepted("an empty address" if not text else "a path with a NUL character")
    return Address("path", text=camera)


def has_names(camera: int | str) -> bool:
    """Tell whether the frames of an address have file names, without opening it."""
    try:
        return parse_address(camera).kind in ("path", "watch")
    except InputError:
        return True  # what it is shows when it is opened


def triggers_itself(camera: int | str) -> bool:
    """Tell whether an address names a camera with a trigger line, likewise."""
    try:
        address = parse_address(camera)
    except InputError:
        return False
    return address.kind == "genicam" and parse_genicam(address.text)[1].trigger is not None


def open_source(camera: int | str | Path, wanted: CaptureFormat = ANY_FORMAT) -> Source:
    """Open a source.

    Args:
        camera: see :func:`parse_address`.
        wanted: resolution and rate, for cameras that can be asked: V4L2, CSI and GenICam.

    Raises:
        InputError: the address is none that is understood, does not exist, or holds no frames.
        SettingsError: a format is wanted of a source that cannot be asked.
        MissingCapability: the camera, or what OpenCV needs for it, is not there.
    """
    address = parse_address(camera)
    if address.kind == "camera":
        return open_camera(Path(address.text) if address.text else address.number, wanted)
    if address.kind == "csi":
        return open_csi_camera(address.number, wanted)
    if address.kind == "genicam":
        return open_genicam(address.text, wanted)
    if wanted.given():
        raise SettingsError(
            "resolution and rate can be asked of V4L2, CSI and GenICam cameras only.",
            next_step="set them in the camera or the pipeline itself; --every skips frames",
        )
    if address.kind == "rtsp":
        return open_rtsp_camera(address.text)
    if address.kind == "gst":
        return open_gstreamer(address.text)
    path = Path(os.path.expanduser(address.text))  # noqa: PTH111  # Path's raises for no such user
    if address.kind == "watch":
        return WatchedFolder(path)
    try:
        if path.is_dir():
            return open_folder(path)
        found = path.exists()
    except OSError as error:
        raise InputError(f"cannot look at {redacted(str(path))}: {error.strerror}.") from error
    if found:
        if is_image_file(path):
            return ImageFiles(path.parent, [path.name], str(path))
        return VideoFile(path)
    if is_sequence(path.name):
        return open_sequence(path)
    hidden = _MISTYPED.match(address.text) or redacted(address.text) != address.text
    shown = "this address" if hidden else str(path)
    raise InputError(f"{shown} does not exist.", next_step=f"give {ACCEPTED} with --camera")


def is_image_file(path: Path) -> bool:
    """Tell one image file, by its name, from a video or a series of images."""
    is_file = os.path.isfile(path)  # noqa: PTH113  # Path.is_file raises where it may not look
    return is_file and path.suffix.lower() in IMAGE_SUFFIXES


def shown_address(camera: int | str) -> int | str:
    """Return what may be shown of an address: of a URL or a pipeline, nothing with credentials."""
    try:
        address = parse_address(camera)
    except InputError:
        return HIDDEN
    if address.kind == "rtsp":
        return shown_url(address.text)
    if address.kind == "gst":
        return shown_pipeline(address.text)
    if address.kind == "genicam":
        return str(camera).strip()  # every setting in it is known, and none is a secret
    there = address.kind == "path" and os.path.lexists(address.text)
    if address.kind == "path" and not there and _MISTYPED.match(address.text):
        return HIDDEN
    return camera if there or isinstance(camera, int) else redacted(camera)


def shown_receiver(url: str) -> str:
    """Return what may be shown of the URL that decisions are sent to.

    Its path goes too: that of a webhook is often what its receiver knows the sender by.
    """
    try:
        shown = shown_url(url)
    except InputError:
        return HIDDEN
    return shown if shown == url else f"{shown.removesuffix('/...')}/..."


def _not_accepted(what: str) -> InputError:
    return InputError(f"{what} is not a source.", next_step=f"give {ACCEPTED} with --camera")
