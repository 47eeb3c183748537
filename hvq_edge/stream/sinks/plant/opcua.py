"""Nodes of an OPC UA server, written as a client.

On a line the controller is the server: it owns the address space, and its makers, certificates and
firewall rules are there. A server of our own would open another port and another set of keys, and
the controller would still have to come and ask.
"""

from __future__ import annotations

import logging
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua
from asyncua.sync import Client
from asyncua.ua.uaerrors import (
    BadNodeIdInvalid,
    BadNodeIdUnknown,
    BadNotWritable,
    BadOutOfRange,
    BadTypeMismatch,
    BadUserAccessDenied,
    BadWriteNotSupported,
    UaError,
)

from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks.plant.level_output import ControllerRefused
from hvq_edge.stream.sinks.sink_settings import OpcUaSettings, read_secret
from hvq_edge.verdict.decision import Decision

# What it has to say is in the errors; it would say it again, with tracebacks, on standard error.
logging.getLogger("asyncua").setLevel(logging.CRITICAL)


class _WrongType(Exception):
    """A node is of another type than the value."""


_REFUSALS = (
    _WrongType,
    BadNodeIdInvalid,
    BadNodeIdUnknown,
    BadNotWritable,
    BadOutOfRange,
    BadTypeMismatch,
    BadUserAccessDenied,
    BadWriteNotSupported,
)
"""What a server says of one node, the connection being as good as before."""
_FAULTS = (OSError, UaError, TimeoutError, FutureTimeout, ConnectionError, RuntimeError)


@dataclass(frozen=True)
class OpcUaServer:
    """How a server is reached."""

    url: str
    """``opc.tcp://host:port/path``."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    security: str | None = None
    """Policy, mode, certificate and key as ``Basic256Sha256,SignAndEncrypt,cert,key``."""
    timeout_seconds: float = 2.0
    """For each answer."""

    @classmethod
    def of(cls, settings: OpcUaSettings) -> OpcUaServer:
        """Return the server that settings name.

        Raises:
            SettingsError: the password is not there.
        """
        password = read_secret("sinks.opcua.password_file", settings.password_file)
        return cls(
            settings.url, settings.username, password, settings.security, settings.timeout_seconds
        )

    def connect(self) -> Client:
        """Return a client that is connected, and has a thread of its own; :func:`end` ends it.

        Raises:
            OSError: it is away; also ``UaError``, ``TimeoutError`` and ``RuntimeError``.
        """
        timeout = self.timeout_seconds
        client = Client(self.url, timeout=timeout, sync_wrapper_timeout=timeout * 2)
        try:
            if self.username is not None:
                client.set_user(self.username)
            if self.password is not None:
                client.set_password(self.password)
            if self.security is not None:
                client.set_security_string(self.security)
            client.connect()
        except BaseException:
            end(client)
            raise
        return client


class OpcUaController:
    """Writes nodes: reject (Boolean), and where named verdict (String), score (Double), heartbeat.

    Args:
        server: how it is reached.
        reject_node: id such as ``ns=2;s=Line1.Reject``.
        verdict_node: ``None``: not written; likewise the others.
        score_node: NaN where a decision has no score.
        image_node: String, empty for a live camera.
        part_node: String, empty where the part's serial number is not known.
        heartbeat_node: Boolean.
    """

    def __init__(
        self,
        server: OpcUaServer,
        *,
        reject_node: str,
        verdict_node: str | None = None,
        score_node: str | None = None,
        image_node: str | None = None,
        part_node: str | None = None,
        heartbeat_node: str | None = None,
    ) -> None:
        self._server = server
        self._reject_node = reject_node
        self._verdict_node = verdict_node
        self._score_node = score_node
        self._image_node = image_node
        self._part_node = part_node
        self._heartbeat_node = heartbeat_node
        self._client: Client | None = None
        self._kinds: dict[str, ua.VariantType] = {}
        """Types of nodes that are not those of the values."""

    def set_reject(self, on: bool) -> None:
        """Write the reject node.

        Raises:
            ControllerRefused: the server does not take a value.
            OutputError: it cannot be reached.
        """
        self._write({self._reject_node: ua.Variant(on, ua.VariantType.Boolean)})

    def set_decision(self, decision: Decision) -> None:
        """Write verdict, score and names, where they have nodes.

        Raises:
            ControllerRefused: the server does not take a value.
            OutputError: it cannot be reached.
        """
        values = {}
        if self._verdict_node is not None:
            verdict = decision.acted_on or decision.verdict
            values[self._verdict_node] = ua.Variant(verdict, ua.VariantType.String)
        if self._score_node is not None:
            score = float("nan") if decision.score is None else decision.score
            values[self._score_node] = ua.Variant(score, ua.VariantType.Double)
        for node, name in (
            (self._image_node, decision.image),
            (self._part_node, decision.part),
        ):
            if node is not None:
                values[node] = ua.Variant(name or "", ua.VariantType.String)
        if values:
            self._write(values)

    def beat(self, on: bool) -> None:
        """Write the heartbeat node.

        Raises:
            ControllerRefused: the server does not take a value.
            OutputError: it cannot be reached.
        """
        if self._heartbeat_node is not None:
            self._write({self._heartbeat_node: ua.Variant(on, ua.VariantType.Boolean)})

    def close(self) -> None:
        """End the connection and its thread."""
        client, self._client = self._client, None
        if client is not None:
            end(client)

    def _write(self, values: dict[str, Any]) -> None:
        """Write nodes; one that is refused does not keep the next from being written."""
        refused: ControllerRefused | None = None
        try:
            client = self._client = self._client or self._server.connect()
            for node, variant in values.items():
                try:
                    self._write_one(client, node, variant)
                except _REFUSALS as error:
                    refused = refused or ControllerRefused(
                        f"the OPC UA server does not take {variant.VariantType.name} "
                        f"for the node {node}: {error}",
                        next_step="check the node's id, its type and the right to write it",
                    )
        except _FAULTS as error:
            self.close()
            said = str(error) or type(error).__name__
            raise OutputError(
                f"the OPC UA server does not take the value: {said}",
                next_step="check its address, the node's id and the right to write it",
            ) from error
        if refused is not None:
            raise refused

    def _write_one(self, client: Client, name: str, variant: ua.Variant) -> None:
        node = client.get_node(name)
        kind = self._kinds.get(name, variant.VariantType)
        try:
            node.write_value(ua.DataValue(ua.Variant(variant.Value, kind)))
        except BadTypeMismatch:
            # A controller's REAL is a Float, and a score fits into one; other types do not convert.
            kind = node.read_data_type_as_variant_type()
            if {kind, variant.VariantType} != {ua.VariantType.Float, ua.VariantType.Double}:
                raise _WrongType(f"it is of type {kind.name}") from None
            node.write_value(ua.DataValue(ua.Variant(variant.Value, kind)))
            self._kinds[name] = kind


def end(client: Client) -> None:
    """Disconnect a client, or at least end its thread."""
    try:
        client.disconnect()
    except _FAULTS:
        loop = client.tloop
        if loop.is_alive():
            loop.stop()
