"""A line of the board, through libgpiod."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hvq_edge.errors import MissingCapability, OutputError
from hvq_edge.verdict.decision import Decision

if TYPE_CHECKING:
    import gpiod


class GpioController:
    """Drives one line: active while the reject signal is on.

    Args:
        chip: device file such as ``/dev/gpiochip0``.
        line: its number or its name.
        active_low: whether the line is low when the signal is on.

    Raises:
        MissingCapability: there is no such chip or line, it is in use, or may not be used.
    """

    def __init__(self, chip: str, line: int | str, *, active_low: bool = False) -> None:
        import gpiod
        from gpiod.line import Direction, Value

        self._active, self._inactive = Value.ACTIVE, Value.INACTIVE
        self._line = line
        self._where = f"{chip}, line {line}"
        if not Path(chip).exists():
            raise MissingCapability(
                f"there is no GPIO chip {chip}.",
                next_step="list the chips with gpiodetect, and name one as [sinks.gpio] chip",
            )
        settings = gpiod.LineSettings(
            direction=Direction.OUTPUT, active_low=active_low, output_value=Value.INACTIVE
        )
        try:
            self._request: gpiod.LineRequest | None = gpiod.request_lines(
                chip, consumer="hvq-edge", config={line: settings}
            )
        except (OSError, ValueError) as error:
            raise MissingCapability(
                f"the GPIO line cannot be used ({self._where}): {error}.",
                next_step="check with gpioinfo that it is free, and that you may use the chip",
            ) from error

    def set_reject(self, on: bool) -> None:
        """Drive the line.

        Raises:
            OutputError: it cannot be driven.
        """
        if self._request is None:
            return
        try:
            self._request.set_value(self._line, self._active if on else self._inactive)
        except (OSError, ValueError) as error:
            raise OutputError(f"the GPIO line cannot be set ({self._where}): {error}.") from error

    def set_decision(self, decision: Decision) -> None:
        """A line holds no more than the reject."""

    def beat(self, on: bool) -> None:
        """A line has no heartbeat."""

    def close(self) -> None:
        """Give the line back."""
        request, self._request = self._request, None
        if request is not None:
            request.release()
