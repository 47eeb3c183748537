"""How a command ends: by Ctrl-C, SIGTERM or SIGHUP, and though a thread of it does not."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


@contextmanager
def advice_if_interrupted(advice: Callable[[], str]) -> Iterator[None]:
    """Give a Ctrl-C within the block its advice; an outer block's replaces an inner one's.

    Args:
        advice: asked at that moment; one or two sentences, or nothing.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(advice()) from None


def interruption_said(stop: BaseException) -> str | None:
    """Return what to say of an end by Ctrl-C; ``None`` where it was none.

    Args:
        stop: what ended the command; Typer turns a ``KeyboardInterrupt`` into its own exceptions.
    """
    error: BaseException | None = stop
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return None if error is None else f"Interrupted. {error}".rstrip()


@contextmanager
def tidy_at_sigterm() -> Iterator[None]:
    """Let a SIGTERM within the block end it as an exception, so that what is half-written goes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def end_past_threads() -> Iterator[None]:
    """Let the process end with the block's exit code whatever a thread that was left behind does.

    When Python ends, it ends such a thread as soon as it comes back from a library: through C++ of
    OpenCV, which does not bear it and aborts the process. So where one is left, nothing is taken
    down: all that runs at the end has run by then, and what is said is written out.
    """
    codes: list[int] = []
    atexit.register(_end_past_threads, codes)  # before all others, so that it comes after them
    try:
        yield
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            codes.append(stop.code or 0)
        raise


def _end_past_threads(codes: Sequence[int]) -> None:
    left = [one for one in threading.enumerate() if one is not threading.main_thread()]
    if not codes or not left:
        return
    logging.shutdown()
    for output in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # its reader, or all of it, is gone
            output.flush()
    os._exit(codes[0])


_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Takes SIGINT, SIGTERM and SIGHUP as long as the ``with`` block runs.

    The first one is a request to end between two frames, so that no decision is in one sink and not
    in the next; systemd and containers send SIGTERM, a terminal that goes away SIGHUP. After it,
    Ctrl-C is what it is elsewhere. Before there is anything to stop, the first one ends the command
    where it is, as an exception that closes what is open: with exit code 0, Ctrl-C with its own.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        """Called at each signal, from the handler: it must not wait for anything."""
        self._former: dict[int, signal.Handlers | int | Callable[..., object] | None] = {}
        self._asked = threading.Event()
        self._interrupted = False

    def __enter__(self) -> StopSignals:
        """Take the signals; SIGHUP only where it is not ignored, as ``nohup`` does."""
        for number in _NUMBERS:
            former = signal.getsignal(number)
            if number == signal.SIGHUP and former == signal.SIG_IGN:
                continue
            self._former[number] = former
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
    def interrupted(self) -> bool:
        """Whether it was Ctrl-C."""
        return self._interrupted

    def wait(self) -> None:
        """Return when one has come."""
        while not self._asked.wait(1.0):  # a wait without an end would not let handlers run
            pass

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first = not self._asked.is_set()
        self._interrupted = self._interrupted or number == signal.SIGINT
        self._asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if number == signal.SIGHUP:
            _leave_terminal()
        if self.stop is not None:
            self.stop()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        elif first:
            raise SystemExit(0)


def _leave_terminal() -> None:
    """Let what is still said go nowhere where the terminal has gone: writing to it would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        if stat.S_ISCHR(os.fstat(output).st_mode) and not os.isatty(output):
            os.dup2(nowhere, output)
    os.close(nowhere)
