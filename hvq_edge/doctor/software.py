"""Python, OpenCV and the libraries that run a bundle on the processor."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hvq_edge.common.child_process import NoAnswer, run_isolated
from hvq_edge.common.extras import missing_library, pip_install
from hvq_edge.doctor.finding import CheckResult, State

OLDEST, NEWEST = (3, 10), (3, 13)
"""Versions of Python that hvq-edge is made for."""

_PARTS = {
    "V4L2": ("v4l/v4l2", "V4L/V4L2", "v4l2"),
    "GStreamer": ("GStreamer",),
    "FFmpeg": ("FFMPEG",),
}
_REMEDY = {
    "V4L2": "USB cameras need it: pip install opencv-python, or apt install python3-opencv",
    "GStreamer": "not needed where PyGObject reads pipelines (see gstreamer); else the system's "
    "OpenCV (apt install python3-opencv) in a virtual environment made with "
    "--system-site-packages",
    "FFmpeg": "RTSP cameras and videos need it: pip install opencv-python",
}


def python(found: Sequence[int] = sys.version_info[:3]) -> list[CheckResult]:
    """Look at Python's version, and say which hvq-edge this is."""
    said = f"{'.'.join(map(str, found))} ({sys.executable}), {platform.platform()}"
    own = CheckResult(
        "hvq-edge", "ok", _version("hvq-edge") or "not installed, run from its folder"
    )
    if OLDEST <= tuple(found[:2]) <= NEWEST:
        return [own, CheckResult("python", "ok", said)]
    old = tuple(found[:2]) < OLDEST
    return [
        own,
        CheckResult(
            "python",
            "missing" if old else "note",
            said,
            f"use Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}",
        ),
    ]


def opencv(build: str | None = None) -> list[CheckResult]:
    """Look at what OpenCV was built with.

    Args:
        build: what ``cv2.getBuildInformation()`` gives; default: this machine's.
    """
    if build is None:
        try:
            build = str(run_isolated("import cv2\nanswer = cv2.getBuildInformation()"))
        except NoAnswer as error:
            return [_not_imported("opencv", error, "pip install opencv-python")]
    number = re.search(r"OpenCV\s+(\d+\.\d+\.\d+\S*)", build)
    findings = [CheckResult("opencv", "ok", number[1] if number else "unknown version")]
    for name, labels in _PARTS.items():
        has, what = _part(build, labels)
        findings.append(
            CheckResult(
                f"opencv-{name.lower()}",
                # What reads pipelines is a line of its own.
                "ok" if has else ("note" if name == "GStreamer" else "missing"),
                what,
                "" if has else _REMEDY[name],
            )
        )
    return findings


def gstreamer(look: Callable[[], dict[str, Any]] | None = None) -> list[CheckResult]:
    """Say what reads GStreamer pipelines and CSI cameras.

    Args:
        look: gives ``opencv`` (whether it can), and ``version`` and ``decoders`` of PyGObject's, or
            what is ``lacking`` and the ``remedy``; default: in a child process.
    """
    try:
        found = (look or _look_for_gstreamer)()
    except NoAnswer as error:
        return [_not_imported("gstreamer", error, "see whether gst-inspect-1.0 runs")]
    if "version" in found:
        decoders = ", ".join(found["decoders"])
        rtsp = f"decodes network cameras with {decoders}" if decoders else "no decoder in hardware"
        said = f"{found['version']}, read through PyGObject; {rtsp}"
        return [CheckResult("gstreamer", "ok", said)]
    if found["opencv"]:
        return [CheckResult("gstreamer", "ok", "read through OpenCV; decodes in software")]
    # For CSI cameras, which only boards have.
    state: State = "missing" if _is_arm() else "note"
    said = f"CSI cameras and gst: need it: {found['lacking']}"
    return [CheckResult("gstreamer", state, said, found["remedy"])]


def _look_for_gstreamer() -> dict[str, Any]:
    code = (
        "import cv2\nfrom hvq_edge.errors import MissingCapability\n"
        "from hvq_edge.stream.sources.cameras.appsink import gstreamer_library, hardware_decoders\n"
        "from hvq_edge.stream.sources.cameras.gstreamer import has_gstreamer\n"
        "answer = {'opencv': has_gstreamer(cv2.getBuildInformation())}\ntry:\n"
        "    gst = gstreamer_library()\n"
        "    answer['version'] = gst.version_string().removeprefix('GStreamer ')\n"
        "    answer['decoders'] = hardware_decoders(gst)\n"
        "except MissingCapability as error:\n"
        "    answer |= {'lacking': error.cause.rstrip('.'), 'remedy': error.next_step}"
    )
    answer: dict[str, Any] = run_isolated(code)
    return answer


def images() -> list[CheckResult]:
    """Look at whether image files can be read, and say how large a file may unpack to."""
    code = (
        "from hvq_edge.data.images import MOST_PIXELS\n"
        "from hvq_edge.runtime.known_answers import MOST_UNPACKED\n"
        "answer = [MOST_PIXELS, MOST_UNPACKED]"
    )
    try:
        pixels, unpacked = run_isolated(code)
    except NoAnswer as error:
        return [_not_imported("images", error, "pip install simplejpeg")]
    said = f"files of up to {pixels / 1e6:.0f} million pixels are read; "
    said += f"a bundle's known answers may unpack to {unpacked >> 20} MiB"
    return [CheckResult("images", "ok", said)]


def _not_imported(name: str, error: NoAnswer, install: str) -> CheckResult:
    lacking = missing_library(str(error))
    return CheckResult(name, "missing", str(error), lacking.next_step if lacking else install)


def _part(build: str, labels: Sequence[str]) -> tuple[bool, str]:
    for label in labels:
        line = re.search(rf"^\s*{re.escape(label)}:\s*(\S.*)$", build, re.MULTILINE)
        if line:
            return line[1].startswith("YES"), line[1].strip()
    return False, "not in this build"


def _is_arm() -> bool:
    return platform.machine() in ("aarch64", "arm64")


def onnxruntime() -> list[CheckResult]:
    """Look at ONNX Runtime and its providers."""
    try:
        number = run_isolated("import onnxruntime as o\nanswer = o.__version__")
    except NoAnswer as error:
        return [_not_imported("onnxruntime", error, "pip install onnxruntime")]
    code = (
        "from hvq_edge.runtime.cpu.onnxruntime_providers import providers_found\n"
        "answer = providers_found()"
    )
    try:
        found: dict[str, str] = run_isolated(code)
    except NoAnswer as error:
        found = {"onnxruntime-providers": str(error)}
    here = ["cpu", *(one.removeprefix("onnxruntime-") for one, why in found.items() if not why)]
    return [
        CheckResult("onnxruntime", "ok", f"{number}; providers: {', '.join(here)}"),
        *(
            CheckResult(backend, "note", why, "only for NVIDIA GPUs: see gpu")
            for backend, why in found.items()
            if why
        ),
    ]


def openvino() -> list[CheckResult]:
    """Look at OpenVINO and its devices."""
    code = (  # hvq_edge first: then OpenVINO reports nothing to its makers
        "import hvq_edge, openvino as o\ncore = o.Core()\n"
        "answer = [o.__version__.split('-')[0], {d: core.get_property(d, 'FULL_DEVICE_NAME')"
        " for d in core.available_devices}]"
    )
    try:
        number, devices = run_isolated(code)
    except NoAnswer as error:
        if _is_arm():  # ONNX Runtime and TensorRT do there
            return [CheckResult("openvino", "note", f"{error}; not needed on this board")]
        return [_not_imported("openvino", error, "pip install openvino")]
    named = ", ".join(f"{name} ({str(full).strip()})" for name, full in devices.items())
    return [CheckResult("openvino", "ok", f"{number}; devices: {named}")]


def training() -> list[CheckResult]:
    """Say whether this machine can train: a device needs not."""
    packages = {name: _version(name) for name in ("torch", "onnx", "polygraphy")}
    return [_optional("training", packages, "to train or export here", "train")]


def factory() -> list[CheckResult]:
    """Say whether the live page and the plant's protocols are installed."""
    names = ("fastapi", "uvicorn", "paho-mqtt", "pymodbus", "asyncua")
    packages = {name: _version(name) for name in names}
    return [_optional("factory", packages, "for the live page, MQTT, OPC UA and Modbus", "factory")]


def _optional(
    name: str, packages: Mapping[str, str | None], purpose: str, extra: str
) -> CheckResult:
    absent = [package for package, number in packages.items() if number is None]
    if not absent:
        return CheckResult(
            name, "ok", ", ".join(f"{one} {number}" for one, number in packages.items())
        )
    return CheckResult(
        name,
        "note",
        f"not installed: {', '.join(absent)}",
        f"only {purpose}: {pip_install(extra)}",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
