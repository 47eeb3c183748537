"""Triggers whose parts' serial numbers a controller holds in a node of its OPC UA server."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from asyncua.sync import Client

from hvq_edge.stream.sinks.plant.opcua import OpcUaServer, end
from hvq_edge.stream.sinks.sink_settings import OpcUaSettings
from hvq_edge.stream.sources.source import part_number
from hvq_edge.stream.sources.trigger import Trigger

logger = logging.getLogger(__name__)

REST_SECONDS = 5.0
"""After a fault the node is not asked for so long: a dead server must not hold up every part."""


class PartNode:
    """A trigger, and the node that holds the serial number of the part that it comes for.

    The node is read from the moment of the trigger on, while the camera takes its frame. Where the
    trigger itself names the part, that counts.

    Args:
        trigger: closed with this one.
        settings: of the server.
        node: its id; a text or a whole number.

    Raises:
        SettingsError: the password is not there.
    """

    def __init__(self, trigger: Trigger, settings: OpcUaSettings, node: str) -> None:
        self._trigger = trigger
        self._server = OpcUaServer.of(settings)
        self._node = node
        self._client: Client | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"part {node}")
        self._reading: Future[str] | None = None
        self._rests_until = 0.0
        self._fault = ""

    def wait(self, seconds: float) -> float | None:
        """Wait for the next trigger, and begin to read."""
        came = self._trigger.wait(seconds)
        if came is None:
            return None
        try:
            self._reading = self._thread.submit(self._read)
        except RuntimeError:  # closed meanwhile: nobody takes the frame
            return None
        return came

    def answer(self, frame: int) -> None:
        """Hand it to the trigger."""
        self._trigger.answer(frame)

    def part(self) -> str:
        """Return what the trigger said, else what the node held; empty: nothing, or no answer."""
        reading, self._reading = self._reading, None
        read = reading.result() if reading is not None else ""
        return self._trigger.part() or read

    def close(self) -> None:
        """Close the trigger; the connection ends when a read under way has ended."""
        self._trigger.close()
        try:
            self._thread.submit(self._disconnect)
        except RuntimeError:  # it was closed before
            return
        self._thread.shutdown(wait=False)

    def _read(self) -> str:
        if time.monotonic() < self._rests_until:
            return ""
        try:
            value = self._value()
        except Exception as error:  # noqa: BLE001  # of the library: the camera goes on
            self._disconnect()
            self._rests_until = time.monotonic() + REST_SECONDS
            self._say(f"it cannot be read: {str(error) or type(error).__name__}")
            return ""
        if value is None:
            value = ""
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            self._say(f"it holds a {type(value).__name__}, and neither a text nor a whole number")
            return ""
        self._fault = ""
        return part_number(str(value))

    def _value(self) -> Any:  # noqa: ANN401  # of whatever type the node is
        """Read the node; a connection that has died since the last part is made anew."""
        if self._client is not None:
            try:
                return self._client.get_node(self._node).read_value()
            except Exception:  # noqa: BLE001  # of the library
                self._disconnect()
        self._client = self._server.connect()
        return self._client.get_node(self._node).read_value()

    def _say(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            logger.warning("serial numbers from the node %s: %s", self._node, fault)

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            end(client)
