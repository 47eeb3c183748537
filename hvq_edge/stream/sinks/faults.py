"""What is wrong with a sink now: kept until it works again, and said once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from hvq_edge.common.redaction import redacted_message

logger = logging.getLogger(__name__)

Report = Callable[[str, str], None]
"""Told a sink's name and what is wrong with it, once for each fault."""

SILENT_SECONDS = 60.0
"""A fault that comes and goes is reported this often at most."""


class SinkFault:
    """The fault of one sink; thread-safe.

    Args:
        name: of the sink.
        report: told of each new fault, on the thread that met it; default: it is logged.
    """

    def __init__(self, name: str, report: Report | None = None) -> None:
        self._name = name
        self._report = report or log_fault
        self._lock = threading.Lock()
        self._cause = ""
        self._reported = ""
        self._reported_at = 0.0

    @property
    def cause(self) -> str:
        """What is wrong now; empty while it works."""
        return self._cause

    def set(self, cause: str) -> None:
        """Keep what went wrong, without credentials, and say it where it is new."""
        cause = redacted_message(cause)  # of any library, which may quote an address
        now = time.monotonic()
        with self._lock:
            again = cause == self._reported and now - self._reported_at < SILENT_SECONDS
            new = not self._cause and not again
            self._cause = cause
            if new:
                self._reported, self._reported_at = cause, now
        if new:
            try:
                self._report(self._name, cause)
            except Exception:  # a terminal that has gone must not end the sink's thread
                logger.debug("the fault of %s could not be reported", self._name, exc_info=True)

    def clear(self) -> None:
        """It works again."""
        with self._lock:
            self._cause = ""


def log_fault(name: str, cause: str) -> None:
    """Log a sink's fault: what is done where nobody else is told."""
    logger.warning("%s: %s", name, cause)
