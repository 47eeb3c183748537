"""Industrial cameras, GigE Vision and USB3 Vision: ``genicam://SERIAL``, through Aravis.

https://aravisproject.github.io/aravis/ (LGPL 2.1) speaks to them; tests do so with its own
cameras, which are programs.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hvq_edge.common.records import faults_of
from hvq_edge.errors import HvqEdgeError, InputError, MissingCapability, SettingsError
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.cameras.genicam_reader import GenicamReader
from hvq_edge.stream.sources.cameras.introspected import system_library
from hvq_edge.stream.sources.cameras.live_capture import LiveCapture
from hvq_edge.stream.sources.cameras.opencv_capture import ANY_FORMAT, CaptureFormat
from hvq_edge.stream.sources.cameras.pixel_formats import CODES

logger = logging.getLogger(__name__)

SCHEME = "genicam://"
_LOOKING = threading.Lock()
"""Aravis's list of cameras is one for the whole process."""


class GenicamOptions(BaseModel):
    """What stands behind the ``?`` of an address: ``genicam://SERIAL?exposure=5000&gain=3``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pixel_format: str | None = None
    """Name of the pixel format, such as Mono12p or BayerRG8; default: the one it is set to."""
    exposure: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    """Microseconds; its automatic exposure is switched off."""
    gain: float | None = Field(None, allow_inf_nan=False)
    """In the camera's unit, mostly decibel; its automatic gain is switched off."""
    trigger: str | None = Field(None, min_length=1)
    """Line that triggers a frame at its rising edge, such as Line0."""
    packet_size: int | None = Field(None, ge=220, le=16384)
    """Bytes of a GigE Vision packet; default: as set, and less where that does not come through."""
    buffers: int = Field(8, ge=2, le=512)
    """Images that may wait in memory."""
    silence: float = Field(5.0, gt=0.0, le=3600.0)
    """Seconds without a frame after which a camera that runs by itself is lost."""


@dataclass(frozen=True)
class GenicamDevice:
    """A camera that answers."""

    id: str
    """Aravis's name of it, with the serial number at its end."""
    maker: str
    model: str
    serial: str
    protocol: str
    address: str
    """On its network or bus."""


def parse_genicam(text: str) -> tuple[str, GenicamOptions]:
    """Return what an address says behind ``genicam://``: a part of an id, and the settings.

    Raises:
        InputError: a setting that there is none of, or a value that cannot be.
    """
    wanted, _, query = text.partition("?")
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        twice = [name for name, times in Counter(name for name, _ in given).items() if times > 1]
        options = GenicamOptions.model_validate(dict(given))
    except ValidationError as error:
        faults = "; ".join(faults_of(error, GenicamOptions))
    except ValueError:
        faults = "what stands behind ? is not of the form NAME=VALUE&NAME=VALUE"
    else:
        if not twice:
            return wanted.strip("/ "), options
        faults = f"{', '.join(twice)} is given more than once"
    raise InputError(
        f"a {SCHEME} address is wrong: {faults}.",
        next_step=f"{SCHEME}SERIAL takes {', '.join(GenicamOptions.model_fields)}",
    )


def found_devices() -> list[GenicamDevice]:
    """Look for cameras, which takes a second.

    Raises:
        MissingCapability: Aravis is not there.
    """
    aravis = _aravis()
    with _LOOKING:
        aravis.update_device_list()
        devices = [
            GenicamDevice(
                id=aravis.get_device_id(index) or "",
                maker=aravis.get_device_vendor(index) or "",
                model=aravis.get_device_model(index) or "",
                serial=aravis.get_device_serial_nbr(index) or "",
                protocol=aravis.get_device_protocol(index) or "",
                address=aravis.get_device_address(index) or "",
            )
            for index in range(aravis.get_n_devices())
        ]
    return list({device.id: device for device in devices}.values())  # one may have two ways here


def open_genicam(text: str, wanted: CaptureFormat = ANY_FORMAT) -> LiveCapture:
    """Open an industrial camera.

    With a trigger line each frame is one of a part: none is dropped, and silence is no fault.

    Args:
        text: what stands behind ``genicam://``.
        wanted: size of the region of the sensor, from the corner that it is set to, and rate.

    Raises:
        InputError: no camera or several are meant.
        SettingsError: the camera does not take what is asked of it.
        MissingCapability: Aravis or the camera is not there, or another program has it.
    """
    part, options = parse_genicam(text)
    device = _meant(part, found_devices())
    link = _Link(device.id, options, wanted)
    return LiveCapture(
        link.reopen,
        f"{SCHEME}{device.id}",
        link.open(),
        triggered=options.trigger is not None,
        transport=lambda: link.transport,
    )


class _Link:
    """A camera's address and settings, and the counts that outlive a connection."""

    def __init__(self, device_id: str, options: GenicamOptions, wanted: CaptureFormat) -> None:
        self._id = device_id
        self._options = options
        self._wanted = wanted
        self.transport = Transport()

    def reopen(self) -> GenicamReader | None:
        try:
            with _LOOKING:  # it may have another address now
                _aravis().update_device_list()
            return self.open()
        except HvqEdgeError as error:
            logger.info("%s", error.cause)
            return None

    def open(self) -> GenicamReader:
        aravis, refused = _aravis(), system_library("GLib", "2.0", "gir1.2-glib-2.0").Error
        try:
            camera = aravis.Camera.new(self._id)
            if camera.is_gv_device() and not camera.get_device().is_controller():
                raise MissingCapability(
                    f"the camera {self._id} is controlled by another program.",
                    next_step="close that program: one at a time may set a camera up",
                )
            self._set_up(camera, refused)
            triggered = self._options.trigger is not None
            return GenicamReader(
                aravis,
                camera,
                refused,
                buffers=self._options.buffers,
                silence=None if triggered else self._options.silence,
                link=self,
            )
        except refused as error:
            raise MissingCapability(
                f"the camera {self._id} cannot be opened: {getattr(error, 'message', error)}.",
                next_step="see that this machine's address is in its network, and test it alone: "
                f"arv-tool-0.8 -n '{self._id}' features",
            ) from error

    def _set_up(self, camera: Any, refused: type[Exception]) -> None:  # noqa: ANN401
        options, wanted = self._options, self._wanted
        off = 0  # Aravis.Auto.OFF

        def asked(what: str, value: object, *steps: Callable[[], object]) -> None:
            if value is None:
                return
            try:
                for step in steps:
                    step()
            except refused as error:
                raise SettingsError(
                    f"{self._id} takes no {what} of {value}: {getattr(error, 'message', error)}.",
                    next_step=f"see what it offers: arv-tool-0.8 -n '{self._id}' features",
                ) from error

        def within(what: str, value: Any, bounds: Callable[[], Any]) -> None:  # noqa: ANN401
            low, high = bounds()
            if not low <= value <= high:
                raise SettingsError(
                    f"{self._id} takes {low:g} to {high:g} as {what}, and {value:g} was asked.",
                    next_step="give one of these",
                )

        form = options.pixel_format
        asked("pixel format", form, lambda: camera.set_pixel_format_from_string(form))
        self._check_format(camera)
        if wanted.width is not None and wanted.height is not None:
            size = (wanted.width, wanted.height)
            asked("region", size, lambda: camera.set_region(-1, -1, *size))
        asked(
            "exposure",
            options.exposure,
            lambda: camera.is_exposure_auto_available() and camera.set_exposure_time_auto(off),
            lambda: within("exposure in µs", options.exposure, camera.get_exposure_time_bounds),
            lambda: camera.set_exposure_time(options.exposure),
        )
        asked(
            "gain",
            options.gain,
            lambda: camera.is_gain_auto_available() and camera.set_gain_auto(off),
            lambda: within("gain", options.gain, camera.get_gain_bounds),
            lambda: camera.set_gain(options.gain),
        )
        if options.trigger is None:
            with suppress(refused):  # it has no trigger
                camera.clear_triggers()
        asked("trigger", options.trigger, lambda: camera.set_trigger(options.trigger))
        asked("frame rate", wanted.rate, lambda: camera.set_frame_rate(float(wanted.rate or 0)))
        if camera.is_gv_device():
            size_of = options.packet_size
            asked("packet size", size_of, lambda: camera.gv_set_packet_size(size_of))
        elif options.packet_size is not None:
            raise SettingsError(
                f"{self._id} is no GigE Vision camera: its packets have no size to set.",
                next_step="leave out packet_size",
            )

    def _check_format(self, camera: Any) -> None:  # noqa: ANN401
        form = camera.get_pixel_format_as_string()
        if camera.get_pixel_format() not in CODES.values():
            offered = camera.dup_available_pixel_formats_as_strings()
            known = [name for name in offered if name in CODES]
            raise MissingCapability(
                f"{self._id} is set to the pixel format {form}, which is not read.",
                next_step=f"ask it for another: {SCHEME}{self._id}?pixel_format=NAME; of its own "
                f"these are read: {', '.join(known) or 'none'}",
            )


def _meant(part: str, devices: list[GenicamDevice]) -> GenicamDevice:
    """Return the one camera with this serial number or id, else with this in its id."""
    exact = [one for one in devices if part in (one.serial, one.id)]
    meant = exact or [one for one in devices if part.lower() in one.id.lower()]
    if len(meant) == 1 and part:
        return meant[0]
    here = ", ".join(one.id for one in devices) or "none"
    if not part or meant:
        what = f"{SCHEME}{part} names {'several cameras' if meant and part else 'no camera'}"
        raise InputError(
            f"{what} (cameras here: {here}).",
            next_step=f"give a serial number or a part of an id: {SCHEME}SERIAL",
        )
    raise MissingCapability(
        f"there is no camera {SCHEME}{part} (cameras here: {here}).",
        next_step=f"see to its power, cable and network, and list all: --camera {SCHEME}",
    )


def _aravis() -> Any:  # noqa: ANN401  # without types
    return system_library("Aravis", "0.8", "gir1.2-aravis-0.8")
