"""What flags of ``hvq-edge stream`` say in text, as values."""

from __future__ import annotations

from collections.abc import Mapping

from hvq_edge.errors import SettingsError


def numbers(flag: str, text: str | None, separator: str, count: int) -> list[int] | None:
    """Return whole numbers such as ``640x480`` or ``10,20,300,200``; ``None`` stays ``None``.

    Raises:
        SettingsError: it is something else.
    """
    if text is None:
        return None
    try:
        values = [int(part) for part in text.lower().split(separator)]
    except ValueError:
        values = []
    if len(values) != count:
        example = separator.join(["10", "20", "300", "200"][-count:])
        raise SettingsError(
            f"{flag} {text!r} is not {count} whole numbers.",
            next_step=f"write it as {flag} {example}",
        )
    return values


def points(flag: str, text: str | None) -> list[list[int]] | None:
    """Return corners such as ``10,10;200,10;100,150``; ``None`` stays ``None``.

    Raises:
        SettingsError: it is something else.
    """
    if text is None:
        return None
    corners = [numbers(flag, part, ",", 2) for part in text.split(";")]
    return [corner for corner in corners if corner is not None]


def check_calibration(
    calibrate: int | None, false_reject: float | None, others: Mapping[str, object]
) -> None:
    """Refuse flags that would have no effect with, or without, ``--calibrate``.

    Args:
        calibrate: frames to learn from; ``None``: the run inspects.
        false_reject: given with ``--false-reject``.
        others: flags of an inspection and their values; ``None``: not given.

    Raises:
        SettingsError: names every such flag.
    """
    if calibrate is None:
        if false_reject is not None:
            raise SettingsError(
                "--false-reject is for learning thresholds, and --calibrate is not given.",
                next_step="add --calibrate N, or leave out --false-reject",
            )
        return
    idle = [flag for flag, value in others.items() if value is not None]
    if idle:
        names = ", ".join(idle)
        raise SettingsError(
            f"--calibrate learns thresholds and stops: nothing would come of {names}.",
            next_step=f"leave out {names}, or calibrate first and inspect afterwards",
        )
