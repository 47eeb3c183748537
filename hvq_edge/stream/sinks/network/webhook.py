"""Decisions as JSON to an HTTP address."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from typing import Any

import httpx

from hvq_edge.stream.sinks.network.delivery import DeliveryFailed, DeliveryRefused

_REFUSALS = (400, 413, 415, 422)
"""Answers that say that the content itself is not wanted; anything else may be mended."""

# At INFO it logs every address, and an address may hold a secret.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Webhook:
    """Posts batches: ``{"source": ..., "decisions": [...]}``; any 2xx answer says they are taken.

    TLS certificates are verified. Redirects are not followed, and no proxy is taken from the
    environment: decisions go where the settings say and nowhere else.

    Args:
        url: ``http://`` or ``https://``.
        source: names this inspector to the receiver.
        token: sent as ``Authorization: Bearer``; never logged.
        ca_file: certificates to trust in place of the system's, PEM.
        timeout_seconds: for the connection, and for each wait for the receiver.
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
        try:
            answer = self._client.post(self._url, json=content)
        except httpx.TimeoutException as error:
            raise DeliveryFailed("it did not answer in time") from error
        except httpx.HTTPError as error:
            # Its text may quote the address.
            raise DeliveryFailed(f"it cannot be reached ({type(error).__name__})") from error
        if answer.is_success:
            return
        said = f"it answered {answer.status_code} {answer.reason_phrase}".strip()
        if answer.status_code in _REFUSALS:
            raise DeliveryRefused(said)
        raise DeliveryFailed(said)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
