"""A camera's own clock, held against this machine's: how long a frame waited on its way."""

from __future__ import annotations

DRIFT = 5e-4
"""By so much at most two clocks run apart; quartz oscillators stay below a fifth of it."""
LONGEST_WAIT_SECONDS = 10.0
"""A frame that seems to have waited longer has not: its camera's clock was set or runs wrongly."""


class CameraClock:
    """Tells when frames of one connection would have arrived, had none of them waited.

    A camera's clock has a zero of its own. The frame that came fastest ties it to this machine's
    monotonic clock: what another one took longer, it waited in the camera, in the network or in
    memory. What every frame takes, its exposure and its way, is in none of these times.
    """

    def __init__(self) -> None:
        self._zero: float | None = None
        self._time = 0
        self._came = 0.0
        self._due = 0.0

    def due(self, time: int, came: float) -> float:
        """Return when a frame would have arrived, in monotonic seconds: never after it came.

        Args:
            time: by the camera's clock, in nanoseconds; 0: it has none.
            came: when the frame was received, in monotonic seconds.
        """
        if time <= 0:
            return came
        zero, former = came - time / 1e9, self._zero
        if former is not None and time > self._time:
            longest = former + DRIFT * (came - self._came)
            if zero - longest < LONGEST_WAIT_SECONDS:
                zero = min(zero, longest)
        self._zero, self._time, self._came = zero, time, came
        # In order even where a faster frame moves the zero, and not late by a rounding.
        self._due = max(self._due, min(time / 1e9 + zero, came))
        return self._due
