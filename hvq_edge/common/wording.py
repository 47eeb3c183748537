"""Words that any room's messages are put together with."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 image``, ``2 images``, ``0 categories``."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
