"""What flags of ``hvq-edge stream`` say in text, as values."""

from __future__ import annotations

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
