"""Nodes of an OPC UA server, written as a client.

On a line the controller is the server: it owns the address space, and its makers, certificates and
firewall rules are there. A server of our own would open another port and another set of keys, and
the controller would still have to come and ask.
"""

from __future__ import annotations

import logging
from concurrent.futures import TimeoutError as FutureTimeout
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


class OpcUaController:
    """Writes nodes: reject (Boolean), and where named verdict (String), score (Double), heartbeat.

    Args:
        url: ``opc.tcp://host:port/path``.
        reject_node: id such as ``ns=2;s=Line1.Reject``.
        verdict_node: ``None``: not written; likewise the others.
        score_node: NaN where a decision has no score.
        heartbeat_node: Boolean.
        username: for the server.
        password: for the server; never logged.
        security: policy, mode, certificate and key as ``Basic256Sha256,SignAndEncrypt,cert,key``.
        timeout_seconds: for each answer.
    """

    def __init__(
        self,
        url: str,
        *,
        reject_node: str,
        verdict_node: str | None = None,
        score_node: str | None = None,
        heartbeat_node: str | None = None,
        username: str | None = None,
        password: str | None = None,
        security: str | None = None,
        timeout_seconds: float = 2.0,
    ) -> None:
        self._url = url
        self._reject_node = reject_node
        self._verdict_node = verdict_node
        self._score_node = score_node
        self._heartbeat_node = heartbeat_node
        self._user = (username, password)
        self._security = security
        self._timeout = timeout_seconds
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
        """Write verdict and score, where they have nodes.

        Raises:
            ControllerRefused: the server does not take a value.
            OutputError: it cannot be reached.
        """
        values = {}
        if self._verdict_node is not None:
            values[self._verdict_node] = ua.Variant(decision.verdict, ua.VariantType.String)
        if self._score_node is not None:
            score = float("nan") if decision.score is None else decision.score
            values[self._score_node] = ua.Variant(score, ua.VariantType.Double)
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
            _end(client)

    def _write(self, values: dict[str, Any]) -> None:
        """Write nodes; one that is refused does not keep the next from being written."""
        refused: ControllerRefused | None = None
        try:
            client = self._client or self._connect()
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

    def _connect(self) -> Client:
        client = Client(self._url, timeout=self._timeout, sync_wrapper_timeout=self._timeout * 2)
        try:
            username, password = self._user
            if username is not None:
                client.set_user(username)
            if password is not None:
                client.set_password(password)
            if self._security is not None:
                client.set_security_string(self._security)
            client.connect()
        except BaseException:
            _end(client)
            raise
        self._client = client
        return client


def _end(client: Client) -> None:
    """Disconnect, or at least end the client's own thread."""
    try:
        client.disconnect()
    except _FAULTS:
        loop = client.tloop
        if loop.is_alive():
            loop.stop()
