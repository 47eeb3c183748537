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
from asyncua.ua.uaerrors import UaError

from hvq_edge.errors import OutputError
from hvq_edge.verdict.decision import Decision

# What it has to say is in the errors; it would say it again, with tracebacks, on standard error.
logging.getLogger("asyncua").setLevel(logging.CRITICAL)

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

    def set_reject(self, on: bool) -> None:
        """Write the reject node.

        Raises:
            OutputError: the server cannot be reached or refuses.
        """
        self._write({self._reject_node: ua.Variant(on, ua.VariantType.Boolean)})

    def set_decision(self, decision: Decision) -> None:
        """Write verdict and score, where they have nodes.

        Raises:
            OutputError: the server cannot be reached or refuses.
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
            OutputError: the server cannot be reached or refuses.
        """
        if self._heartbeat_node is not None:
            self._write({self._heartbeat_node: ua.Variant(on, ua.VariantType.Boolean)})

    def close(self) -> None:
        """End the connection and its thread."""
        client, self._client = self._client, None
        if client is not None:
            _end(client)

    def _write(self, values: dict[str, Any]) -> None:
        try:
            client = self._client or self._connect()
            for node, variant in values.items():
                client.get_node(node).write_value(ua.DataValue(variant))
        except _FAULTS as error:
            self.close()
            said = str(error) or type(error).__name__
            raise OutputError(
                f"the OPC UA server does not take the value: {said}",
                next_step="check its address, the node's id and the right to write it",
            ) from error

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
