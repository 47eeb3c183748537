"""What TensorRT says while it builds.

The library keeps the first logger that it is given for the life of the process and ignores later
ones. So there is one logger a module, and a build listens to it while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

_HARMLESS = ("Thread context has not been set",)  # TensorRT-RTX 1.7 says so in every build
_MOST_ERRORS = 3


@dataclass
class BuildLog:
    """What was said during one build."""

    logger: Any
    """The library's ``ILogger`` to hand to it."""
    keep: str | None
    errors: list[str] = field(default_factory=list)
    _kept: list[str] = field(default_factory=list)

    @property
    def first_error(self) -> str:
        """The first error, or what to say where there is none."""
        return self.errors[0] if self.errors else "it gave no reason"

    @property
    def kept(self) -> str:
        """All messages with the words to keep, in order."""
        return "\n".join(self._kept)

    def note(self, severity: str, message: str) -> None:
        """Take a message in."""
        if severity in ("ERROR", "INTERNAL_ERROR"):
            harmless = any(words in message for words in _HARMLESS)
            if not harmless and len(self.errors) < _MOST_ERRORS:
                self.errors.append(message.strip())
        elif self.keep is not None and self.keep in message:
            self._kept.append(message)


@contextmanager
def listening(module: Any, *, keep: str | None = None) -> Iterator[BuildLog]:  # noqa: ANN401
    """Collect what a library says inside the ``with`` block.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        keep: keep every message with these words, besides errors.
    """
    logger = _logger_of(module)
    log = BuildLog(logger, keep)
    logger.listeners.append(log)
    try:
        yield log
    finally:
        logger.listeners.remove(log)


@cache
def _logger_of(module: Any) -> Any:  # noqa: ANN401
    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)  # pybind11 wants it by name
            self.listeners: list[BuildLog] = []

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            for listener in tuple(self.listeners):
                listener.note(severity.name, message)

    return Logger()
