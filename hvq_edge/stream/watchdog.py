"""systemd's watchdog: told that all is well only while frames get somewhere.

A service that hangs in a driver is alive for the kernel and dead for the line. systemd kills and
starts it again when ``WATCHDOG=1`` does not come for ``WatchdogSec``. See sd_notify(3).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from hvq_edge.common.closeable import Closeable
from hvq_edge.common.extras import pip_install
from hvq_edge.common.wording import counted
from hvq_edge.errors import MissingCapability
from hvq_edge.stream.statistics import Statistics

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 5.0
"""Seconds between two looks at the counts where systemd asks for no watchdog: for its status."""


class Notifier(Protocol):
    """Sends one sd_notify message."""

    def notify(self, state: str) -> None:
        """Send a message; a lost one is no error."""
        ...


class Watchdog(Closeable):
    """Says ``READY=1`` when made, ``WATCHDOG=1`` while the counts move, ``STOPPING=1`` at the end.

    Outside systemd it does nothing.

    Args:
        statistics: a snapshot of the inspector; decided and dropped frames are progress, and a lost
            frame is decided (``no_decision``). Where no frame is due, as between two triggers,
            none is needed.
        environment: ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` count.
        notifier: instead of the socket.

    Raises:
        MissingCapability: systemd waits for messages, and the package that sends them is missing.
    """

    def __init__(
        self,
        statistics: Callable[[], Statistics],
        environment: Mapping[str, str] = os.environ,
        notifier: Notifier | None = None,
    ) -> None:
        self._statistics = statistics
        self._progress = 0
        self._ended = threading.Event()
        self._notifier = notifier or _notifier(environment)
        self._watched, self._pause = pace(environment)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        if self._notifier is not None:
            self._notifier.notify("READY=1")
            self._thread.start()

    def close(self) -> None:
        """Say that the service stops: from now on systemd waits ``TimeoutStopSec``."""
        if self._notifier is not None and not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            self._notifier.notify("STOPPING=1")

    def _run(self) -> None:
        while not self._ended.wait(self._pause):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001  # looked again: the line may work
                logger.warning("systemd could not be told how the line is: %s", error)

    def _look(self) -> None:
        """Tell systemd of progress since the last look."""
        assert self._notifier is not None
        statistics = self._statistics()
        counts = statistics.counts
        progress = counts.decided + counts.dropped
        if progress == self._progress and not statistics.idle:
            return
        self._progress = progress
        if self._watched:
            self._notifier.notify("WATCHDOG=1")
        self._notifier.notify(
            f"STATUS={counted(counts.frames, 'frame')}: {counts.passed} pass, "
            f"{counts.rejected} reject, {counts.no_decision} no decision, {counts.dropped} dropped"
        )


def pace(environment: Mapping[str, str]) -> tuple[bool, float]:
    """Return whether systemd watches this process, and the seconds between two looks.

    A quarter of ``WatchdogSec``, so that one late look is forgiven.
    """
    try:
        asked = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        asked = 0.0
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        asked = 0.0  # meant for the process that started us
    return (True, min(asked / 4, _LONGEST_PAUSE)) if asked > 0 else (False, _LONGEST_PAUSE)


def _notifier(environment: Mapping[str, str]) -> Notifier | None:
    """Return systemd's socket; ``None`` where this is no service of it."""
    if not environment.get("NOTIFY_SOCKET"):
        return None
    try:
        from sdnotify import SystemdNotifier
    except ModuleNotFoundError as error:
        raise MissingCapability(
            "systemd waits for messages of this service, and the package sdnotify is missing.",
            next_step=f"{pip_install('factory')}, or take Type=notify and WatchdogSec out of the "
            "unit",
        ) from error
    notifier: Notifier = SystemdNotifier()
    return notifier
