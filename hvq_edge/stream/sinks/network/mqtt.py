"""Decisions to an MQTT broker, one topic a camera."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hvq_edge.stream.sinks.network.delivery import DeliveryFailed

AT_LEAST_ONCE = 1
_KEEPALIVE_SECONDS = 30


class Mqtt:
    """Publishes each decision to ``PREFIX/LINE/CAMERA/decision`` with QoS 1.

    ``PREFIX/LINE/availability`` is retained and says ``online`` or ``offline``; the broker itself
    says the latter when the inspector is gone. A connection that failed is made anew: what the
    library may hold for the old one is not wanted, for the log has it. Each connection says
    ``online`` and announces the cameras again: the broker may have forgotten both.

    Args:
        host: of the broker.
        port: of the broker.
        line: of the factory, a part of the topic.
        prefix: first part of the topic.
        username: for the broker.
        password: for the broker; never logged.
        tls: whether the connection is encrypted; the broker's certificate is verified.
        ca_file: certificates to trust in place of the system's, PEM.
        discovery: prefix under which the cameras are announced in the style of Home Assistant;
            ``None``: they are not.
        cameras: names that decisions will bear; another is announced with its first decision.
        timeout_seconds: for the connection and for the broker's receipt of a batch.
    """

    def __init__(
        self,
        host: str,
        port: int,
        line: str,
        *,
        prefix: str = "hvq-edge",
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        ca_file: str | None = None,
        discovery: str | None = None,
        cameras: Sequence[str] = (),
        timeout_seconds: float = 5.0,
    ) -> None:
        # One name for all connections: the broker ends the one before, so that its last will cannot
        # come after the new one's "online". Brokers need not take more than 23 characters.
        self._id = f"hvq{uuid.uuid4().hex[:20]}"
        self._address = (host, port)
        self._base = f"{prefix}/{topic_part(line)}"
        self._user = (username, password)
        self._tls = tls
        self._ca_file = ca_file
        self._discovery = discovery
        self._timeout = timeout_seconds
        self._client: Client | None = None
        self._connected = threading.Event()
        self._said = ""
        self._cameras = [_camera_part(name) for name in cameras]

    def deliver(self, events: Sequence[dict[str, Any]]) -> None:
        """Publish a batch and wait for the broker to confirm all of it.

        Raises:
            DeliveryFailed: it did not.
        """
        with self._reached():
            client = self._client or self._connect()
            sent: list[MQTTMessageInfo] = []
            for event in events:
                camera = _camera_part(str(event.get("camera") or ""))
                if camera not in self._cameras:
                    self._cameras.append(camera)
                    sent += self._announced(client, [camera])
                topic = f"{self._base}/{camera}/decision"
                payload = json.dumps(event, ensure_ascii=False)
                sent.append(client.publish(topic, payload, AT_LEAST_ONCE))
            self._confirmed(sent)

    def keep_up(self) -> None:
        """Connect where there is no connection: who listens sees the inspector before its events.

        Raises:
            DeliveryFailed: the broker is away, or refuses.
        """
        if self._client is None:
            with self._reached():
                self._connect()

    def close(self) -> None:
        """Say ``offline`` and disconnect."""
        client = self._client
        if client is not None and self._connected.is_set():
            try:
                last = client.publish(self._availability, "offline", AT_LEAST_ONCE, retain=True)
                last.wait_for_publish(1.0)
            except (ValueError, RuntimeError):
                pass  # the broker says it for us
        self._drop()

    @property
    def _availability(self) -> str:
        return f"{self._base}/availability"

    def _connect(self) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, self._id, reconnect_on_failure=False)
        username, password = self._user
        if username is not None:
            client.username_pw_set(username, password)
        if self._tls:
            client.tls_set(ca_certs=self._ca_file)
        client.will_set(self._availability, "offline", AT_LEAST_ONCE, retain=True)
        client.connect_timeout = self._timeout
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        self._connected.clear()
        self._said = ""
        self._client = client
        client.connect(*self._address, keepalive=_KEEPALIVE_SECONDS)
        client.loop_start()
        if not self._connected.wait(self._timeout) or self._said:
            raise DeliveryFailed(f"the broker refused: {self._said or 'no answer'}")
        online = client.publish(self._availability, "online", AT_LEAST_ONCE, retain=True)
        self._confirmed([online, *self._announced(client, self._cameras)])
        return client

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Turn what goes wrong into ``DeliveryFailed``; the next attempt connects anew."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            self._drop()
            raise DeliveryFailed(f"the broker cannot be reached: {error}") from error
        except BaseException:
            self._drop()
            raise

    def _confirmed(self, sent: Sequence[MQTTMessageInfo]) -> None:
        for message in sent:
            message.wait_for_publish(self._timeout)
            if not message.is_published():
                raise DeliveryFailed("the broker did not confirm in time")

    def _on_connect(
        self,
        _client: Client,
        _data: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._said = str(reason) if reason.is_failure else ""
        self._connected.set()

    def _on_disconnect(self, client: Client, *_: object) -> None:
        if client is self._client:
            self._client = None  # the next batch connects anew
            self._connected.clear()

    def _drop(self) -> None:
        client, self._client = self._client, None
        self._connected.clear()
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _announced(self, client: Client, cameras: Sequence[str]) -> list[MQTTMessageInfo]:
        """Describe each camera's verdict as a sensor, retained; nothing where nobody asked."""
        if self._discovery is None:
            return []
        sent = []
        for camera in cameras:
            name = topic_part(f"{self._base}_{camera}".replace("/", "_"))
            config = {
                "name": f"{camera} verdict",
                "unique_id": name,
                "state_topic": f"{self._base}/{camera}/decision",
                "value_template": "{{ value_json.verdict }}",
                "json_attributes_topic": f"{self._base}/{camera}/decision",
                "availability_topic": self._availability,
                "device": {"identifiers": [self._base], "name": f"hvq-edge {self._base}"},
            }
            topic = f"{self._discovery}/sensor/{name}/config"
            sent.append(client.publish(topic, json.dumps(config), AT_LEAST_ONCE, retain=True))
        return sent


def _camera_part(name: str) -> str:
    return topic_part(name or "camera")


def topic_part(name: str) -> str:
    """Return a name as one level of a topic: without wildcards, separators and spaces."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or "_"
