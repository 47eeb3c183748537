"""Decisions as JSON to an HTTP address."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx

from hvq_edge.stream.sinks.network.delivery import DeliveryFailed, DeliveryRefused

EXCHANGE_TIMEOUTS = 3
"""Connection, request and answer together may take so many times as long as one wait."""
LARGEST_ANSWER = 64 * 1024
"""Bytes of an answer's content that are read before its connection is given up."""
LONGEST_SAID = 200
"""Characters of a status line in a message."""

_REFUSALS = (400, 413, 415, 422)
"""Answers that say that the content itself is not wanted; anything else may be mended."""

# At INFO it logs every address, and an address may hold a secret.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Webhook:
    """Posts batches: ``{"source": ..., "decisions": [...]}``; any 2xx answer says they are taken.

    TLS certificates are verified. Redirects are not followed, and no proxy is taken from the
    environment: decisions go where the settings say and nowhere else. Only the status of an answer
    counts: of what follows it, no more is read than lets the connection be used again.

    Args:
        url: ``http://`` or ``https://``.
        source: names this inspector to the receiver.
        token: sent as ``Authorization: Bearer``; never logged.
        ca_file: certificates to trust in place of the system's, PEM.
        timeout_seconds: for the connection, and for each wait for the receiver; the whole exchange
            may take :data:`EXCHANGE_TIMEOUTS` times as long.
    """

    def __init__(
        self,
        url: str,
        source: str,
        *,
        token: str | None = None,
        ca_file: str | None = None,
        timeout_seconds: float = 5.0,
    ) -> None:
        self._url = url
        self._source = source
        self._longest = EXCHANGE_TIMEOUTS * timeout_seconds
        self._socket: socket.socket | None = None
        self._shut_down = False
        headers = {"User-Agent": "hvq-edge"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.Client(
            headers=headers,
            timeout=timeout_seconds,
            verify=ssl.create_default_context(cafile=ca_file) if ca_file else True,
            follow_redirects=False,
            trust_env=False,
        )

    def deliver(self, events: Sequence[dict[str, Any]]) -> None:
        """Post one batch.

        Raises:
            DeliveryFailed: no answer, or one that is neither success nor refusal.
            DeliveryRefused: the receiver says that the content is wrong.
        """
        content = {"source": self._source, "decisions": list(events)}
        # httpx limits each wait alone: a receiver that sends a byte now and then would be read
        # for ever. Shutting the connection down ends whatever waits for it.
        self._shut_down = False
        alarm = threading.Timer(self._longest, self._shut)
        alarm.daemon = True
        alarm.start()
        try:
            with self._client.stream(
                "POST", self._url, json=content, extensions={"trace": self._note_socket}
            ) as answer:
                _read_a_little(answer)
        except httpx.TimeoutException as error:
            raise DeliveryFailed("it did not answer in time") from error
        except httpx.HTTPError as error:
            if self._shut_down:
                raise DeliveryFailed("it did not finish its answer in time") from error
            # Its text may quote the address.
            raise DeliveryFailed(f"it cannot be reached ({type(error).__name__})") from error
        finally:
            alarm.cancel()
        if answer.is_success:
            return
        said = f"it answered {answer.status_code} {answer.reason_phrase}".strip()[:LONGEST_SAID]
        if answer.status_code in _REFUSALS:
            raise DeliveryRefused(said)
        raise DeliveryFailed(said)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _note_socket(self, event: str, info: dict[str, Any]) -> None:
        """Keep the socket in use; httpx calls it at each step of an exchange."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")

    def _shut(self) -> None:
        self._shut_down = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _read_a_little(answer: httpx.Response) -> None:
    """Read an answer's rest where it is small; what is longer ends with its connection."""
    size = 0
    with suppress(httpx.HTTPError):  # its status has said already what counts
        for piece in answer.iter_raw():
            size += len(piece)
            if size > LARGEST_ANSWER:
                return
