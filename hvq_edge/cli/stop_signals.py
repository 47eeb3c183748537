"""Ctrl-C and SIGTERM as requests: the run ends between two frames, not within one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Takes SIGINT and SIGTERM as long as the ``with`` block runs.

    The first one is a request, which systemd and containers send as SIGTERM, so that no decision
    is in one sink and not in the next; after it, Ctrl-C is what it is elsewhere.

    Args:
        stop: called at the first signal, from the signal handler: it must not wait for anything.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._former: dict[int, signal.Handlers | int | Callable[..., object] | None] = {}
        self._asked = threading.Event()
        self._asked_at = 0.0
        self._interrupted = False

    def __enter__(self) -> StopSignals:
        """Take the signals."""
        for number in _NUMBERS:
            self._former[number] = signal.getsignal(number)
            signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give them back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether one has come."""
        return self._asked.is_set()

    @property
    def seconds_since(self) -> float:
        """Seconds since the first one came; 0 if none has."""
        return time.monotonic() - self._asked_at if self.asked else 0.0

    @property
    def interrupted(self) -> bool:
        """Whether it was Ctrl-C."""
        return self._interrupted

    def wait(self) -> None:
        """Return when one has come."""
        while not self._asked.wait(1.0):  # a wait without an end would not let handlers run
            pass

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._interrupted = self._interrupted or number == signal.SIGINT
        if not self.asked:
            self._asked_at = time.monotonic()
        self._asked.set()
        self._stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)
