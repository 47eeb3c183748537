"""Settings of the sinks: the tables ``[sinks.*]`` of a settings file, checked as a whole."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hvq_edge.common.records import StrictTypes
from hvq_edge.errors import SettingsError

VerdictName = Literal["pass", "reject", "no_decision"]
HOST = r"^[^/@\s]+$"
MEGABYTE = 10**6
DAY_SECONDS = 86_400.0

# Bounds that nobody meets: beyond them, sizes in bytes and times in nanoseconds overflow.
MOST_MEGABYTES = 1e9
MOST_DAYS = 36_500.0


class _Kept(StrictTypes):
    """What stays on the disk: everything, unless a limit is set. The oldest go first."""

    keep_megabytes: float | None = Field(None, gt=0.0, le=MOST_MEGABYTES)
    """Size of all together."""
    keep_days: float | None = Field(None, gt=0.0, le=MOST_DAYS)


class LogSettings(_Kept):
    """``[sinks.log]``: the decision log. The limits of what is kept take whole files."""

    commit_ms: float = Field(50.0, ge=0.0, le=10_000.0)
    """A decision is on the disk this long after it was made, at the latest; larger values write
    less to a flash disk."""
    file_megabytes: float | None = Field(256.0, gt=0.0, le=MOST_MEGABYTES)
    """A file of this size is followed by a new one."""
    file_days: float | None = Field(None, gt=0.0, le=MOST_DAYS)
    """A file of this age is followed by a new one."""
    head: str | None = Field(None, min_length=1)
    """File for the last hash; default: beside the log. On another machine's disk it also proves
    that nobody wrote the log anew."""
    head_seconds: float = Field(10.0, gt=0.0, le=DAY_SECONDS)
    json_lines: bool | None = None
    """Whether decisions.jsonl is written as well; default: for files, not for cameras, because it
    grows without end."""


class RejectSettings(_Kept):
    """``[sinks.rejects]``: images of rejects."""

    context_frames: int = Field(0, ge=0, le=50)
    """Frames before and after each reject."""


class ImageSettings(_Kept):
    """``[sinks.images]``: images that people judge, besides rejects."""

    sample: float = Field(0.01, ge=0.0, le=1.0)
    """Share of passes that are kept, drawn by chance."""
    near: float = Field(0.1, ge=0.0, le=1.0)
    """Passes are kept that are below the threshold by less than this share of it."""
    no_decision_seconds: float = Field(60.0, ge=0.0, le=DAY_SECONDS)
    """Between two images of a camera that led to no decision."""


class VideoSettings(_Kept):
    """``[sinks.video]``: annotated video."""

    segment_minutes: float | None = Field(None, gt=0.0, le=MOST_DAYS)
    """Length of a piece in videos/; default: all in annotated.mp4."""

    @model_validator(mode="after")
    def _only_pieces_make_room(self) -> VideoSettings:
        limited = self.keep_megabytes is not None or self.keep_days is not None
        if limited and self.segment_minutes is None:
            raise ValueError("keep_megabytes and keep_days need segment_minutes")
        return self


class WebhookSettings(StrictTypes):
    """``[sinks.webhook]``: JSON to an HTTP address."""

    url: str = Field(pattern=r"^https?://[^/\s]+")
    source: str = Field("hvq-edge", min_length=1)
    """Names this inspector to the receiver."""
    verdicts: list[VerdictName] = Field(["reject"], min_length=1)
    batch: int = Field(50, ge=1, le=1000)
    timeout_seconds: float = Field(5.0, gt=0.0, le=60.0)
    token_file: str | None = None
    """File with a bearer token."""
    token_env: str | None = None
    """Environment variable with one, in place of the file."""
    ca_file: str | None = None

    @model_validator(mode="after")
    def _one_token(self) -> WebhookSettings:
        if self.token_file is not None and self.token_env is not None:
            raise ValueError("give token_file or token_env, not both")
        return self


class MqttSettings(StrictTypes):
    """``[sinks.mqtt]``: a broker."""

    host: str = Field(pattern=HOST)
    port: int = Field(1883, ge=1, le=65535)
    line: str = Field("line", min_length=1)
    prefix: str = Field("hvq-edge", pattern=r"^[^+#\s]+$")
    verdicts: list[VerdictName] = Field(["pass", "reject", "no_decision"], min_length=1)
    username: str | None = None
    password_file: str | None = None
    tls: bool = False
    ca_file: str | None = None
    discovery: bool = False
    """Announce the cameras in the style of Home Assistant."""
    discovery_prefix: str = Field("homeassistant", pattern=r"^[^+#\s]+$")
    timeout_seconds: float = Field(5.0, gt=0.0, le=60.0)


class _Signal(StrictTypes):
    hold_ms: float | None = Field(None, gt=0.0, le=1000.0 * DAY_SECONDS)
    """How long a reject keeps the signal on; default: until the next pass."""
    no_decision_rejects: bool = False
    """Whether a frame without a decision counts as a reject; else it changes nothing."""


class ModbusSettings(_Signal):
    """``[sinks.modbus]``: coils of a controller; addresses from 0."""

    host: str = Field(pattern=HOST)
    port: int = Field(502, ge=1, le=65535)
    unit: int = Field(1, ge=0, le=255)
    reject_coil: int = Field(0, ge=0, le=65535)
    heartbeat_coil: int | None = Field(None, ge=0, le=65535)
    heartbeat_seconds: float = Field(1.0, gt=0.0, le=DAY_SECONDS)
    timeout_seconds: float = Field(1.0, gt=0.0, le=60.0)

    @model_validator(mode="after")
    def _coils_differ(self) -> ModbusSettings:
        if self.reject_coil == self.heartbeat_coil:
            raise ValueError("reject_coil and heartbeat_coil must differ")
        return self


class OpcUaSettings(_Signal):
    """``[sinks.opcua]``: nodes of a server."""

    url: str = Field(pattern=r"^opc\.tcp://[^/\s]+")
    reject_node: str = Field(min_length=1)
    verdict_node: str | None = None
    score_node: str | None = None
    image_node: str | None = None
    part_node: str | None = None
    """Of the part's serial number, which is written; a camera's part_opcua_node is read."""
    heartbeat_node: str | None = None
    heartbeat_seconds: float = Field(1.0, gt=0.0, le=DAY_SECONDS)
    username: str | None = None
    password_file: str | None = None
    security: str | None = None
    """Policy, mode, certificate and key: ``Basic256Sha256,SignAndEncrypt,cert.der,key.pem``."""
    timeout_seconds: float = Field(2.0, gt=0.0, le=60.0)


class GpioSettings(StrictTypes):
    """``[sinks.gpio]``: a line of the board."""

    chip: str = Field("/dev/gpiochip0", min_length=1)
    line: Annotated[int, Field(ge=0, le=2**32 - 1)] | str
    active_low: bool = False
    pulse_ms: float = Field(100.0, gt=0.0, le=1000.0 * DAY_SECONDS)
    no_decision_rejects: bool = False


class SinkSettings(StrictTypes):
    """All tables; a receiver without a table is not used."""

    log: LogSettings = LogSettings()
    rejects: RejectSettings = RejectSettings()
    images: ImageSettings | None = None
    video: VideoSettings = VideoSettings()
    webhook: WebhookSettings | None = None
    mqtt: MqttSettings | None = None
    modbus: ModbusSettings | None = None
    opcua: OpcUaSettings | None = None
    gpio: GpioSettings | None = None


def read_secret(
    key: str,
    file: str | None,
    variable: str | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    for_header: bool = False,
) -> str | None:
    """Return a token or password from a file or the environment; ``None`` where neither is named.

    Args:
        key: of the setting, for the message.
        file: holds nothing else; white space around it does not count.
        variable: name of an environment variable.
        environment: by default the process's.
        for_header: it is sent in a header of HTTP, which holds printable ASCII alone.

    Raises:
        SettingsError: it is not there or empty, or cannot be sent.
    """
    if file is not None:
        try:
            secret = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"cannot read {file}, the file named by {key}.", next_step="check path and rights"
            ) from error
        place = f"the file {file}"
    elif variable is not None:
        secret = (os.environ if environment is None else environment).get(variable, "").strip()
        place = f"the environment variable {variable}"
    else:
        return None
    if not secret:
        raise SettingsError(
            f"{place}, named by {key}, is empty or not there.", next_step="put the secret there"
        )
    if for_header and re.fullmatch(r"[!-~]+", secret) is None:
        raise SettingsError(
            f"{place}, named by {key}, holds no token: one is a single word of ASCII characters.",
            next_step="put the token there and nothing else",
        )
    return secret
