"""The counter that a camera gives each of its frames, held against the frame before."""

from __future__ import annotations

from dataclasses import dataclass, replace

SIXTEEN_BITS = 0xFFFF
"""Greatest number of a GigE Vision camera without extended ones; 1 follows, and 0 is no number."""


@dataclass(frozen=True)
class Transport:
    """What went wrong on the way from a camera to this machine, since the start."""

    missed: int = 0
    """Frames that the camera counted and that never came."""
    doubled: int = 0
    """Frames with a number that had been before."""
    incomplete: int = 0
    """Frames of which parts are missing: none of them is judged."""
    last: str = ""
    """The newest of these, in words."""

    @property
    def counts(self) -> dict[str, int]:
        """What is counted, by name."""
        return {"missed": self.missed, "doubled": self.doubled, "incomplete": self.incomplete}


@dataclass(frozen=True)
class Step:
    """From one frame to the next."""

    missed: int = 0
    doubled: bool = False
    resent: bool = False
    """Whether it is the same frame once more: number and time are those of the frame before."""
    said: str = ""
    """In words; empty where all is well."""


class FrameCounter:
    """Follows the counter of one connection; a new one begins anew.

    Args:
        wraps: whether it has 16 bits, while no number is larger.
    """

    def __init__(self, *, wraps: bool) -> None:
        self._wraps = wraps
        self._last: int | None = None
        self._time = 0
        self._unnumbered = 0

    def without_number(self) -> Step:
        """Take a frame of which parts are missing: with its first packet its number is gone."""
        self._unnumbered += 1
        return Step()

    def step(self, number: int, time: int) -> Step:
        """Take the next frame's number.

        Args:
            number: as the camera counts.
            time: by the camera's clock, in nanoseconds; 0: it has none.
        """
        former, former_time = self._last, self._time
        if self._wraps and number == 0:  # it does not count
            return Step()
        between, self._unnumbered = self._unnumbered, 0
        self._last, self._time = number, time
        if former is None:
            return Step()
        if self._wraps and max(former, number) <= SIXTEEN_BITS:
            gone = (number - former) % SIXTEEN_BITS
            gone -= SIXTEEN_BITS if gone > SIXTEEN_BITS // 2 else 0
        else:
            gone = number - former
        if 1 <= gone <= between + 1:  # one of the incomplete ones may have come twice
            return Step()
        seconds = (time - former_time) / 1e9
        clock = f", {seconds:.3f} s apart by its clock" if time and former_time else ""
        if gone == 0:
            resent = bool(time) and time == former_time
            what = "came once more" if resent else f"is that of two frames{clock}"
            return Step(doubled=True, resent=resent, said=f"the camera's number {number} {what}")
        said = f"the camera's numbers went from {former} to {number}{clock}"
        return Step(missed=max(gone - 1 - between, 0), doubled=gone < 0, said=said)


def added(transport: Transport, step: Step, incomplete: str = "") -> Transport:
    """Return the counts with those of one more frame.

    Args:
        transport: until now.
        step: to the frame.
        incomplete: why it is; empty: it is whole.
    """
    return replace(
        transport,
        missed=transport.missed + step.missed,
        doubled=transport.doubled + step.doubled,
        incomplete=transport.incomplete + bool(incomplete),
        last="; ".join(filter(None, (incomplete, step.said))) or transport.last,
    )
