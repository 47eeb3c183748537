"""Cameras of this machine and their modes, asked of the kernel (Video4Linux2) without streaming.

https://docs.kernel.org/userspace-api/media/v4l/user-func.html. Each device is asked in a child
process, because a camera that has died can hang in any call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvq_edge.common.child_process import NoAnswer, run_isolated
from hvq_edge.doctor.finding import CheckResult

DEVICES = Path("/dev")
STABLE_NAMES = "v4l/by-id"
"""Links to devices, by maker, model and serial number, which udev makes."""
TIMEOUT_S = 5.0
"""A device that has not answered by then counts as dead."""

_CAPTURE, _META = 0x1, 0x00800000  # V4L2_CAP_VIDEO_CAPTURE, V4L2_CAP_META_CAPTURE
_PLANES, _OWN_CAPABILITIES = 0x1000, 0x80000000  # ..._MPLANE, V4L2_CAP_DEVICE_CAPS
_DISCRETE = 1
_READ_WRITE, _READ = 3, 2
_MOST = 64
"""Formats and sizes that are asked for."""


@dataclass(frozen=True)
class CameraDevice:
    """What a device offers."""

    name: str
    bus: str
    modes: tuple[str, ...]
    """Such as ``MJPG 640x480 1280x720``; empty: it gives no images."""


def cameras(
    devices: Path = DEVICES, look: Callable[[Path], dict[str, Any]] | None = None
) -> list[CheckResult]:
    """Find cameras.

    Args:
        devices: folder with ``video0`` and so on.
        look: asks one of them; default: in a child process.

    Returns:
        One finding a camera, or one that says there is none.
    """
    look = look or _ask_child
    present = sorted(
        (path for path in devices.glob("video*") if path.name[5:].isdecimal()),
        key=lambda path: int(path.name[5:]),
    )
    links = {link.resolve(): link for link in sorted((devices / STABLE_NAMES).glob("*"))}
    findings = [
        one for path in present if (one := _one(path, look, links.get(path.resolve()))) is not None
    ]
    if findings:
        return findings
    return [
        CheckResult(
            "camera",
            "note",
            "none found",
            "plug one in, or inspect a video or folder: hvq-edge stream --camera FILE",
        )
    ]


def genicam(look: Callable[[], dict[str, Any]] | None = None) -> list[CheckResult]:
    """Find industrial cameras, as ``stream`` does.

    Args:
        look: gives ``devices``, or what is ``lacking`` and the ``remedy``; default: in a child
            process.
    """
    try:
        found = (look or _look_for_genicam)()
    except NoAnswer as error:
        found = {"lacking": str(error), "remedy": "see whether arv-tool-0.8 finds cameras"}
    if "lacking" in found:
        return [CheckResult("genicam", "note", found["lacking"], found["remedy"])]
    if not found["devices"]:
        remedy = "for GigE Vision and USB3 Vision: see to power, cable and network"
        return [CheckResult("genicam", "note", "Aravis is there, and no camera answers", remedy)]
    return [
        CheckResult(
            f"genicam-{one['serial']}",
            "ok",
            f"{one['maker']} {one['model']}, {one['protocol']} at {one['address']}: genicam://"
            f"{one['id']}",
        )
        for one in found["devices"]
    ]


def _look_for_genicam() -> dict[str, Any]:
    code = (
        "from dataclasses import asdict\nfrom hvq_edge.errors import MissingCapability\n"
        "from hvq_edge.stream.sources.cameras.genicam import found_devices\ntry:\n"
        "    answer = {'devices': [asdict(one) for one in found_devices()]}\n"
        "except MissingCapability as error:\n"
        "    answer = {'lacking': error.cause.rstrip('.'), 'remedy': error.next_step}"
    )
    answer: dict[str, Any] = run_isolated(code)
    return answer


def _one(
    path: Path, look: Callable[[Path], dict[str, Any]], link: Path | None = None
) -> CheckResult | None:
    """Return what is said of a device; ``None`` for one that gives no images by design.

    Args:
        path: of the device.
        look: asks it.
        link: its name that stays the same whichever port and order it is plugged in.
    """
    name = f"camera-{path.name[5:]}"
    if not os.access(path, os.R_OK | os.W_OK):
        return CheckResult(
            name,
            "missing",
            f"{path}: no permission",
            "sudo usermod -aG video $USER, then log in again",
        )
    try:
        camera = CameraDevice(**look(path))
    except NoAnswer as error:
        return CheckResult(
            name,
            "missing",
            f"{path}: {error}",
            "unplug the camera and plug it in again, then see dmesg | tail",
        )
    if not camera.modes:
        return None
    shown = "; ".join(camera.modes)
    place = str(path) if link is None else f"{path} or {link}"
    return CheckResult(name, "ok", f"{place}: {camera.name} ({camera.bus}); {shown}")


def _ask_child(path: Path) -> dict[str, Any]:
    code = (
        "from pathlib import Path\nfrom hvq_edge.doctor.cameras import query\n"
        "camera = query(Path(arguments[0]))\n"
        "answer = {'name': camera.name, 'bus': camera.bus, 'modes': camera.modes}"
    )
    answer: dict[str, Any] = run_isolated(code, str(path), timeout=TIMEOUT_S)
    return answer


def query(path: Path, control: Callable[[int, int, bytearray], None] | None = None) -> CameraDevice:
    """Ask a device for its name and modes.

    Args:
        path: such as ``/dev/video0``.
        control: stands in for ``ioctl``: file, request and a buffer that it changes.

    Raises:
        OSError: it cannot be opened or is no video device.
    """
    control = control or _ioctl
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        capability = bytearray(104)  # struct v4l2_capability
        control(descriptor, _request("V", 0, 104, _READ), capability)
        every, own = struct.unpack_from("<II", capability, 84)
        offered = own if every & _OWN_CAPABILITIES else every
        modes: list[str] = []
        if offered & (_CAPTURE | _PLANES) and not offered & _META:
            modes = _modes(descriptor, control, 9 if offered & _PLANES else 1)
        return CameraDevice(_text(capability[16:48]), _text(capability[48:80]), tuple(modes))
    finally:
        os.close(descriptor)


def _modes(
    descriptor: int, control: Callable[[int, int, bytearray], None], buffer_type: int
) -> list[str]:
    modes = []
    for index in range(_MOST):
        form = bytearray(64)  # struct v4l2_fmtdesc
        struct.pack_into("<II", form, 0, index, buffer_type)
        if not _asked(control, descriptor, _request("V", 2, 64, _READ_WRITE), form):
            break
        fourcc = bytes(form[44:48])
        sizes = []
        for place in range(_MOST):
            size = bytearray(44)  # struct v4l2_frmsizeenum
            struct.pack_into("<I4s", size, 0, place, fourcc)
            if not _asked(control, descriptor, _request("V", 74, 44, _READ_WRITE), size):
                break
            kind, width, height = struct.unpack_from("<III", size, 8)
            if kind == _DISCRETE:
                sizes.append(f"{width}x{height}")
                continue
            # Stepwise: least width, greatest width, step, and the same of the height.
            least_w, most_w, _, least_h, most_h, _ = struct.unpack_from("<6I", size, 12)
            sizes.append(f"{least_w}x{least_h} to {most_w}x{most_h}")
            break
        modes.append(" ".join([fourcc.decode("ascii", "replace").strip(), *sizes]))
    return modes


def _asked(
    control: Callable[[int, int, bytearray], None], descriptor: int, request: int, into: bytearray
) -> bool:
    """Ask for an entry of a list; whether there was one."""
    try:
        control(descriptor, request, into)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTTY):  # the list ends, or there is none
            return False
        raise
    return True


def _ioctl(descriptor: int, request: int, into: bytearray) -> None:
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "no Video4Linux2 here")
    import fcntl

    fcntl.ioctl(descriptor, request, into, True)


def _request(group: str, number: int, size: int, direction: int) -> int:
    """``_IOC`` of asm-generic/ioctl.h."""
    return ctypes.c_uint32(direction << 30 | size << 16 | ord(group) << 8 | number).value


def _text(field: bytearray) -> str:
    return bytes(field).split(b"\0")[0].decode(errors="replace")
