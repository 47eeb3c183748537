"""Settings of ``hvq-edge stream``: a TOML file and flags, checked as a whole.

::

    bundle = "runs/latest/bundle"

    [[cameras]]
    camera = "rtsp://user:word@10.0.0.5/stream"
    name = "left"
    roi = [100, 40, 640, 480]

    [decision]
    hysteresis = 0.1
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hvq_edge.common.records import StrictTypes, faults_of
from hvq_edge.common.redaction import redacted, redacted_table, shown_server
from hvq_edge.common.toml_file import all_wrong, read_toml
from hvq_edge.errors import SettingsError
from hvq_edge.run.latest import DEFAULT_BUNDLE
from hvq_edge.runtime.cpu.onnxruntime_providers import with_provider
from hvq_edge.stream.drift.settings import DriftSettings
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.sinks.sink_settings import SinkSettings
from hvq_edge.verdict.decision_settings import DecisionSettings

Policy = Literal["latest", "all"]
"""``latest``: the newest frame wins, older ones are dropped and counted. ``all``: none is dropped;
the source waits while the engine is busy."""

PartCode = Literal["any", "qr", "data-matrix", "code-128"]
"""A code that holds a part's serial number; ``any``: one of the others."""

Rotation = Literal[0, 90, 180, 270]
Pixels = Annotated[int, Field(le=10**6)]
"""More than any image has; OpenCV counts them in 32 bits."""
Rectangle = tuple[Pixels, Pixels, Pixels, Pixels]
"""Left, top, width, height in pixels."""
Points = tuple[tuple[Pixels, Pixels], ...]
"""x and y in pixels."""


class CameraSettings(StrictTypes):
    """A table ``[[cameras]]``."""

    camera: str | Annotated[int, Field(le=10**6)]
    """Number of a USB camera (0), csi://0, rtsp://..., genicam://SERIAL (genicam:// lists them),
    gst:PIPELINE, a video or image file, a folder of images, watch:FOLDER, or img_%04d.png."""
    name: str | None = Field(None, min_length=1)
    """In decisions, statistics and on the page; default: the address without credentials."""
    resolution: tuple[Pixels, Pixels] | None = None
    """Width and height to ask a USB or CSI camera for, in pixels."""
    fps: int | None = Field(None, ge=1, le=1000)
    """Frames a second to ask such a camera for."""
    play: bool = False
    """Show a file as a camera would: at its own rate, over and over."""
    every: int = Field(1, ge=1, le=10**9)
    """Look at one frame of N, to spare the processor."""
    rotate: Rotation = 0
    """Turn frames clockwise: 90, 180 or 270."""
    roi: Rectangle | None = None
    """Look at this rectangle only: left, top, width and height in pixels of the rotated image."""
    roi_polygon: Points | None = Field(None, min_length=3)
    """Look at the polygon with these corners only; what is outside is filled with a constant."""
    trigger_file: Path | None = None
    """Take a frame when this file appears; the file is removed."""
    trigger_port: int | None = Field(None, ge=0, le=65535)
    """Take a frame at ``POST /trigger`` on this port of 127.0.0.1."""
    trigger_topic: str | None = Field(None, pattern=r"^[^+#\s]+$")
    """Take a frame when a message comes on this topic of the broker of [sinks.mqtt]."""
    trigger_frames: int = Field(1, ge=1, le=1000)
    """Frames for each trigger."""
    trigger_delay: float = Field(0.0, ge=0.0, le=60.0)
    """Seconds from the trigger to the first frame that counts."""
    part_from: str | None = Field(None, min_length=1)
    """Find a part's serial number in the name of its image's file: the group named part of this
    regular expression, else its first group, else all that it matches."""
    part_code: PartCode | None = None
    """Read a part's serial number from a code in the image: qr, data-matrix, code-128 or any."""
    part_code_region: Rectangle | None = None
    """Look for the code in this rectangle only: left, top, width and height in pixels of the
    rotated image, before it is cut."""
    part_opcua_node: str | None = Field(None, min_length=1)
    """Read a part's serial number from this node of the server of [sinks.opcua] at each trigger."""

    @property
    def triggered(self) -> bool:
        """Whether frames are taken at triggers only."""
        return any(getattr(self, way) is not None for way in TRIGGER_WAYS)

    @property
    def names_parts(self) -> bool:
        """Whether each image should show a part with a serial number."""
        return any(getattr(self, way) is not None for way in PART_WAYS)

    @model_validator(mode="after")
    def _fits_together(self) -> CameraSettings:
        from hvq_edge.stream.sources.open_source import triggers_itself

        faults = self._wrong_of_parts()
        ways = [way for way in TRIGGER_WAYS if getattr(self, way) is not None]
        if len(ways) > 1:
            faults.append(f"{' and '.join(ways)} were given together: use one of them")
        if not self.triggered and (self.trigger_frames != 1 or self.trigger_delay):
            faults.append(f"trigger_frames and trigger_delay need {' or '.join(TRIGGER_WAYS)}")
        if self.triggered and self.every != 1:
            faults.append("every skips triggered frames: ask for fewer with trigger_frames")
        if self.triggered and triggers_itself(self.camera):
            faults.append(f"the camera's own trigger and {ways[0]} were given: use one of them")
        if self.play and str(self.camera).startswith("watch:"):
            faults.append("play: a watched folder has no end to begin again at")
        if self.roi is not None and self.roi_polygon is not None:
            faults.append("roi and roi_polygon were both given: use one of them")
        if self.roi is not None and (min(self.roi[:2]) < 0 or min(self.roi[2:]) < SMALLEST_ROI):
            faults.append(f"roi: {_RECTANGLE}")
        if self.roi_polygon is not None and min(min(point) for point in self.roi_polygon) < 0:
            faults.append("roi_polygon: corners must be 0 or more")
        if self.resolution is not None and min(self.resolution) < 1:
            faults.append("resolution: width and height must be 1 or more")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @field_validator("name")
    @classmethod
    def _may_be_shown(cls, name: str | None) -> str | None:
        if name is not None and redacted(name) != name:
            raise ValueError(
                "looks like an address with credentials, and stands in every decision: choose "
                "another name"
            )
        return name

    def _wrong_of_parts(self) -> list[str]:
        from hvq_edge.stream.sources.open_source import has_names

        faults = []
        ways = [name for name in PART_WAYS if getattr(self, name) is not None]
        if len(ways) > 1:
            faults.append(f"{' and '.join(ways)} were given together: use one of them")
        if self.part_from is not None:
            try:
                re.compile(self.part_from)
            except (re.error, RecursionError, OverflowError) as error:
                faults.append(f"part_from: is no regular expression: {error}")
            if not has_names(self.camera):
                faults.append("part_from: the frames of a camera have no file name")
        if self.part_code_region is not None:
            if self.part_code is None:
                faults.append("part_code_region needs part_code")
            if min(self.part_code_region[:2]) < 0 or min(self.part_code_region[2:]) < SMALLEST_ROI:
                faults.append(f"part_code_region: {_RECTANGLE}")
        if self.part_opcua_node is not None and not self.triggered:
            faults.append(f"part_opcua_node needs {' or '.join(TRIGGER_WAYS)}")
        return faults


TRIGGER_WAYS = ("trigger_file", "trigger_port", "trigger_topic")
"""Settings that say what triggers a camera."""
PART_WAYS = ("part_from", "part_code", "part_opcua_node")
"""Settings that say where serial numbers are found."""

SMALLEST_ROI = 16
"""Pixels: less than one cell of the map."""
_RECTANGLE = (
    f"left, top, width and height must be at least {SMALLEST_ROI} pixels a side, and corners of 0 "
    "or more"
)


class StreamSettings(StrictTypes):
    """All settings of a stream."""

    bundle: Path = DEFAULT_BUNDLE
    """Bundle folder that hvq-edge export wrote, or the run's folder around it."""
    require_signature: Path | None = None
    """File of public keys: use the bundle only if one of them signed it."""
    precision: str = "auto"
    """auto, fp32, int8, or for GPUs fp16 or int8-fp16."""
    backend: str = "auto"
    """auto, openvino, onnxruntime, or an engine that hvq-edge build made: tensorrt or
    tensorrt-rtx."""
    provider: str | None = None
    """With backend onnxruntime: cpu (default), or for GPUs cuda, tensorrt or tensorrt-rtx."""
    server: str | None = None
    """HOST:PORT of a Triton server that runs the model (hvq-edge export --triton)."""
    category: str | None = None
    """Judge every frame as this category."""
    policy: Policy | None = None
    """latest: the newest frame wins, older ones are dropped and counted; all: every frame is
    decided. Default: latest for cameras, all for files and triggers."""
    max_frames: int | None = Field(None, ge=1, le=10**15)
    """Stop each camera after N frames."""
    out: Path | None = None
    """Folder for the decision log, rejects/ and annotated.mp4 (of several cameras:
    annotated-0-NAME.mp4 and so on). Default: nothing is written."""
    video: bool | None = None
    """Whether --out gets annotated video. Default: for files, and cameras with --max-frames."""
    display: bool | None = None
    """Show the frames in a window; q quits. Default: where there is a screen."""
    cameras: tuple[CameraSettings, ...] = Field(min_length=1)
    decision: DecisionSettings = DecisionSettings()
    drift: DriftSettings = DriftSettings()
    sinks: SinkSettings = SinkSettings()
    page: LivePageSettings | None = None
    """Serve the live page; its address is printed."""

    @model_validator(mode="after")
    def _fits_together(self) -> StreamSettings:
        names = [camera.name for camera in self.cameras if camera.name is not None]
        if len(set(names)) < len(names):
            raise ValueError("two cameras have the same name")
        self._triggers_differ()
        try:
            with_provider(self.backend, self.provider)
        except SettingsError as error:
            raise ValueError(error.cause.rstrip(".")) from error
        if self.server is not None and self.backend != "auto":
            raise ValueError("server and backend were both given: use one of them")
        rule = self.decision.k_of_n
        for camera in self.cameras:
            if camera.part_opcua_node is not None and self.sinks.opcua is None:
                raise ValueError(
                    "part_opcua_node is a node of the server of [sinks.opcua], and there is no "
                    "such table"
                )
            if camera.trigger_topic is not None and self.sinks.mqtt is None:
                raise ValueError(
                    "trigger_topic is a topic of the broker of [sinks.mqtt], and there is no such "
                    "table"
                )
            if rule is not None and camera.triggered and camera.trigger_frames != rule.n:
                raise ValueError(
                    f"a part has {rule.n} frames by k_of_n, but a trigger takes "
                    f"{camera.trigger_frames}: make trigger_frames the same"
                )
        return self

    def _triggers_differ(self) -> None:
        """Check that no two cameras wait for one trigger that only one of them would get."""
        waits: list[tuple[str, str]] = []
        for camera in self.cameras:
            if camera.trigger_file is not None:
                path = os.path.abspath(camera.trigger_file)  # noqa: PTH100  # follows no link
                waits.append(("trigger_file", path))
            if camera.trigger_port:  # 0 takes a free one
                waits.append(("trigger_port", str(camera.trigger_port)))
        for (way, given), count in Counter(waits).items():
            if count > 1:
                raise ValueError(
                    f"two cameras have the {way} {given}, and each trigger would reach one of them "
                    f"only: give each camera a {way} of its own, or one trigger_topic to all"
                )

    @model_validator(mode="after")
    def _receivers_have_a_log(self, info: ValidationInfo) -> StreamSettings:
        inspects = (info.context or {}).get("inspects", True)
        wanted = [name for name in ("webhook", "mqtt") if getattr(self.sinks, name) is not None]
        if inspects and wanted and self.out is None:
            names = " and ".join(f"sinks.{name}" for name in wanted)
            raise ValueError(
                f"{names}: the decision log is what is sent, and there is none: name a folder for "
                "it with --out, or out in the settings file"
            )
        return self

    def to_toml(self) -> str:
        """Return the settings as a file, without credentials.

        Addresses of cameras and receivers stand there up to host and port; of any other value, what
        looks like credentials is taken out.
        """
        from hvq_edge.stream.sources.open_source import shown_address, shown_receiver

        given = json.loads(self.model_dump_json(exclude_none=True))
        table = redacted_table(given)
        for camera, its in zip(table["cameras"], given["cameras"], strict=True):
            camera["camera"] = shown_address(its["camera"])
        for name, receiver in given["sinks"].items():
            if "url" in receiver:
                table["sinks"][name]["url"] = shown_receiver(receiver["url"])
        if "server" in table:
            table["server"] = shown_server(given["server"])
        return tomli_w.dumps(table)


def load_stream_settings(
    file: Path | None = None,
    *,
    cameras: Sequence[str | int] = (),
    each_camera: Mapping[str, Any] | None = None,
    decision: Mapping[str, Any] | None = None,
    page: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    inspects: bool = True,
) -> StreamSettings:
    """Merge a settings file and flags, the flags winning, and check the whole.

    Args:
        file: TOML.
        cameras: addresses given as flags; they take the place of the file's cameras, but one that
            is in the file keeps its settings there.
        each_camera: settings of every camera, given as flags; ``None`` values are ignored.
        decision: settings of the table ``[decision]``, likewise.
        page: settings of the table ``[page]``, likewise; ``None``: the page is as in the file.
        flags: settings of the top level, likewise.
        inspects: whether decisions will be made, which receivers need a log of.

    Raises:
        SettingsError: lists every fault with its key.
    """
    faults: list[str] = []
    merged = read_toml(file, "--config") if file is not None else {}
    listed = merged.get("cameras", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        faults.append("cameras: must be tables [[cameras]]")
        listed = []
    if cameras:
        in_file = {str(one.get("camera")): one for one in listed}
        listed = [in_file.get(str(address), {"camera": address}) for address in cameras]
    merged["cameras"] = [{**one, **_given(each_camera)} for one in listed]
    if not listed and not faults:
        faults.append("cameras: none is given (--camera 0, or a table [[cameras]])")
        merged["cameras"] = [{"camera": 0}]  # so that the other faults are found as well
    table = merged.get("decision", {})
    if isinstance(table, dict):
        merged["decision"] = {**table, **_given(decision)}
    if page is not None:
        table = merged.get("page", {})
        merged["page"] = {**table, **_given(page)} if isinstance(table, dict) else table
    merged.update(_given(flags))
    settings: StreamSettings | None = None
    try:
        # As JSON: there a list may stand for a tuple though nothing else is converted.
        settings = StreamSettings.model_validate_json(
            json.dumps(merged, default=str), context={"inspects": inspects}
        )
    except ValidationError as error:
        faults += faults_of(error, StreamSettings)
    if faults or settings is None:
        source = f" in {file} or the flags" if file else ""
        raise all_wrong(
            faults,
            source,
            "correct them; hvq-edge stream --help and docs/reference/line-settings.md name all",
        )
    return settings


def _given(flags: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (flags or {}).items() if value is not None}
