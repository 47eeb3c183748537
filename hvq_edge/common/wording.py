"""Words that any room's messages are put together with."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 image``, ``2 images``, ``0 categories``."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def per_cent(share: float) -> str:
    """Return a share in per cent with two digits that count: ``0.012``, ``1.2``, ``12``."""
    value = 100 * share
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def without_nul(text: str) -> str:
    """Return a text for CSV: spreadsheets end it at a NUL, and Python 3.10 writes none."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def spreadsheet_name(name: str) -> str:
    """Return a name for a spreadsheet, which would take some for formulas: a code is anybody's."""
    name = without_nul(name)
    return f"'{name}" if name and name[0] in "=+-@\t\r" else name
