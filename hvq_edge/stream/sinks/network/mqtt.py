"""Decisions to an MQTT broker, one topic a camera."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
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
    library may hold for the old one is not wanted, for the log has it.

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
        timeout_seconds: float = 5.0,
    ) -> None:
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
        self._announced: set[str] = set()

    def deliver(self, events: Sequence[dict[str, Any]]) -> None:
        """Publish a batch and wait for the broker to confirm all of it.

        Raises:
            DeliveryFailed: it did not.
        """
        try:
            client = self._client or self._connect()
            sent: list[MQTTMessageInfo] = []
            for event in events:
                camera = topic_part(str(event.get("camera") or "camera"))
                if self._discovery is not None and camera not in self._announced:
                    sent.append(self._announce(client, self._discovery, camera))
                topic = f"{self._base}/{camera}/decision"
                payload = json.dumps(event, ensure_ascii=False)
                sent.append(client.publish(topic, payload, AT_LEAST_ONCE))
            for message in sent:
                message.wait_for_publish(self._timeout)
                if not message.is_published():
                    raise DeliveryFailed("the broker did not confirm in time")
        except (OSError, ValueError, RuntimeError) as error:
            self._drop()
            raise DeliveryFailed(f"the broker cannot be reached: {error}") from error
        except DeliveryFailed:
            self._drop()
            raise

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
        client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
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
        client.publish(self._availability, "online", AT_LEAST_ONCE, retain=True)
        return client

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

    def _announce(self, client: Client, prefix: str, camera: str) -> MQTTMessageInfo:
        """Describe a camera's verdict as a sensor, retained."""
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
        self._announced.add(camera)
        topic = f"{prefix}/sensor/{name}/config"
        return client.publish(topic, json.dumps(config), AT_LEAST_ONCE, retain=True)


def topic_part(name: str) -> str:
    """Return a name as one level of a topic: without wildcards, separators and spaces."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or "_"
