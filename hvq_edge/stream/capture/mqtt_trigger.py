"""Triggers that come as messages from an MQTT broker."""

from __future__ import annotations

import json
import logging
import queue
import time
import uuid
from contextlib import suppress

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hvq_edge.errors import SettingsError
from hvq_edge.stream.sinks.sink_settings import MqttSettings, read_secret
from hvq_edge.stream.sources.source import MOST_CHARACTERS, part_number

logger = logging.getLogger(__name__)

_AT_LEAST_ONCE = 1
_MOST_WAITING = 64
"""Triggers that wait for the camera; more are dropped, and that is said."""
_MOST_BYTES = 1024
"""Of a message: a longer one names no part."""
_LONGEST_PAUSE_SECONDS = 30


class MqttTrigger:
    """Triggers when a message comes on a topic; a :class:`hvq_edge.stream.sources.trigger.Trigger`.

    The message is the serial number of the part, or a JSON object with it as ``part``, or empty.
    One that the broker has kept from before (retained) is no trigger. The connection is made in
    the background and anew whenever it ends; what the broker gets while there is none triggers
    nothing.

    Args:
        settings: of the broker.
        topic: without wildcards.

    Raises:
        SettingsError: the password or the certificate file is not there.
    """

    def __init__(self, settings: MqttSettings, topic: str) -> None:
        self._topic = topic
        self._waiting: queue.Queue[tuple[float, str]] = queue.Queue(_MOST_WAITING)
        self._part = ""
        self._told: set[str] = set()
        """What keeps triggers from coming and has been said: that the broker is away or refuses."""
        client = Client(CallbackAPIVersion.VERSION2, f"hvq{uuid.uuid4().hex[:20]}")
        if settings.username is not None:
            password = read_secret("sinks.mqtt.password_file", settings.password_file)
            client.username_pw_set(settings.username, password)
        if settings.tls:
            try:
                client.tls_set(ca_certs=settings.ca_file)
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"the certificates of the MQTT broker cannot be used: {error}.",
                    next_step="check ca_file in [sinks.mqtt]",
                ) from error
        client.reconnect_delay_set(1, _LONGEST_PAUSE_SECONDS)
        client.connect_timeout = settings.timeout_seconds
        client.on_connect = self._on_connect
        client.on_connect_fail = lambda *_: self._say("away", "it cannot be reached")
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.connect_async(settings.host, settings.port)
        client.loop_start()
        self._client = client

    def wait(self, seconds: float) -> float | None:
        """Wait for a message."""
        try:
            came, self._part = self._waiting.get(timeout=seconds)
        except queue.Empty:
            return None
        return came

    def answer(self, frame: int) -> None:
        """The decision is published as all are."""

    def part(self) -> str:
        """Return what the last message said."""
        return self._part

    def close(self) -> None:
        """Disconnect; calling it twice is fine."""
        self._client.disconnect()
        with suppress(RuntimeError):  # called on the library's own thread
            self._client.loop_stop()

    def _on_connect(
        self,
        client: Client,
        _data: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._say("refused", f"the broker refuses: {reason}")
            return
        client.subscribe(self._topic, _AT_LEAST_ONCE)

    def _on_subscribe(
        self,
        _client: Client,
        _data: object,
        _message: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        """Only now is it sure that triggers come: a broker may let in whom it tells nothing."""
        for reason in reasons:
            if reason.is_failure:
                self._say(
                    "refused",
                    f"the broker refuses the subscription to {self._topic}: {reason}",
                    "it is tried again with the next connection",
                )
                return
        self._told.clear()

    def _on_disconnect(
        self,
        _client: Client,
        _data: object,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._say("away", f"the connection ended: {reason}")

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if message.retain:  # from before this line began: that part has gone
            return
        came = time.monotonic()
        try:
            self._waiting.put_nowait((came, self._number(message.payload)))
        except queue.Full:
            logger.warning("triggers on %s: too many wait, and one is dropped", self._topic)

    def _number(self, payload: bytes | bytearray) -> str:
        """Return the serial number in a message; without one, the part is still there."""
        text = payload[: _MOST_BYTES + 1].decode("utf-8", "backslashreplace").strip()
        given: object = text
        if text.startswith("{") and len(payload) <= _MOST_BYTES:
            try:
                given = json.loads(text).get("part", "")
            except (ValueError, RecursionError):
                given = None
        if isinstance(given, bool) or not isinstance(given, (str, int)):
            given = None
        number = part_number(str(given)) if given is not None else ""
        if given is None or (str(given).strip() and not number):
            logger.warning(
                "a trigger on %s names no part: neither a number of at most %d characters nor a "
                "JSON object with it as part",
                self._topic,
                MOST_CHARACTERS,
            )
        return number

    def _say(self, what: str, why: str, again: str = "it is tried again") -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("no triggers come on %s: %s; %s", self._topic, why, again)
