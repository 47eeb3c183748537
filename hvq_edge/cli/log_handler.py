"""Where the log goes when the command line runs: standard error, at the level that the user set."""

from __future__ import annotations

import logging
import os

from hvq_edge.cli.console import messages
from hvq_edge.common.redaction import redacted_message
from hvq_edge.errors import SettingsError

VARIABLE = "HVQ_EDGE_LOG"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def install_handler() -> None:
    """Send what hvq-edge logs to standard error, once, however often this is called.

    The level comes from the variable ``HVQ_EDGE_LOG``; default: warnings.

    Raises:
        SettingsError: the variable holds no level.
    """
    level = os.environ.get(VARIABLE, "WARNING").upper()
    if level not in LEVELS:
        raise SettingsError(
            f"{VARIABLE} is {level!r}, which is none of {', '.join(LEVELS)}.",
            next_step=f"set {VARIABLE} to one of these, or unset it",
        )
    logger = logging.getLogger("hvq_edge")
    logger.setLevel(level)
    if not any(isinstance(one, _ConsoleHandler) for one in logger.handlers):
        handler = _ConsoleHandler()
        handler.setFormatter(_Formatter())
        logger.addHandler(handler)


class _ConsoleHandler(logging.Handler):
    """Prints through Rich, so that a line stands above a live counter and never within it.

    Rich's own handler breaks lines at 80 columns where there is no terminal. Rich sends colours to
    terminals only, so that a service's journal holds plain text.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            messages.print(
                self.format(record),
                style="yellow" if record.levelno >= logging.WARNING else "dim",
                markup=False,
                soft_wrap=True,
            )
        except Exception:  # noqa: BLE001  # logging must not end what logs
            self.handleError(record)


class _Formatter(logging.Formatter):
    """``Warning: cause``, as other messages of the command line, and without credentials."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.capitalize()}: {redacted_message(super().format(record))}"
