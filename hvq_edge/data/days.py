"""The days on which images were taken, as far as their files say so."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hvq_edge.common.extras import require

_IN_NAME = re.compile(r"(?<!\d)(\d{4})(-?)(\d{2})\2(\d{2})(?!\d)")
_IN_EXIF = re.compile(r"(\d{4}):(\d{2}):(\d{2})\b")
_EXIF, _DATE_TIME_ORIGINAL = 0x8769, 0x9003
_FIRST = date(2000, 1, 1)
"""Before there were digital cameras on lines: what looks like an earlier date is a number."""


class Days(NamedTuple):
    """A day for every image."""

    days: tuple[date, ...]
    said_by: str
    """What says so, in words."""


def days_of(images: Sequence[Path]) -> Days | None:
    """Return the day of every image, by EXIF or else by names.

    Args:
        images: files, which need not be readable.

    Returns:
        ``None`` where neither says it of every image: what holds for some of them may be chance.

    Raises:
        MissingCapability: Pillow is not installed.
    """
    for day_of, said_by in ((day_in_exif, "EXIF"), (day_in_name, "file names")):
        days: list[date] = []
        for image in images:
            day = day_of(image)
            if day is None:
                break
            days.append(day)
        else:
            return Days(tuple(days), said_by)
    return None


def day_in_name(image: Path) -> date | None:
    """Return the day in a file's name: ``YYYYMMDD`` or ``YYYY-MM-DD``, and no other digit beside.

    A number that is no day of the calendar from 2000 until now is none; several days are none.

        >>> day_in_name(Path("bolt 2024-05-31 (7).png"))
        datetime.date(2024, 5, 31)
        >>> day_in_name(Path("20230000.png")), day_in_name(Path("serial-120240531.png"))
        (None, None)
    """
    found = {
        day
        for year, _, month, day_of_month in _IN_NAME.findall(image.stem)
        if (day := _day(year, month, day_of_month)) is not None
    }
    return found.pop() if len(found) == 1 else None


def day_in_exif(image: Path) -> date | None:
    """Return the day of ``DateTimeOriginal``; ``None``: there is none, or nothing can be read.

    Raises:
        MissingCapability: Pillow is not installed.
    """
    pillow = require("PIL.Image")
    _know_heic()
    try:
        with warnings.catch_warnings(), pillow.open(image) as opened:
            warnings.simplefilter("ignore")  # of what is damaged or large: nothing is decoded here
            said = opened.getexif().get_ifd(_EXIF).get(_DATE_TIME_ORIGINAL, "")
    except Exception:  # noqa: BLE001  # a damaged header raises almost anything, and is no date
        return None
    found = _IN_EXIF.match(str(said))
    return _day(*found.groups()) if found else None


@cache
def _know_heic() -> None:
    """Let Pillow open HEIC images, where that is installed."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _day(year: str, month: str, day: str) -> date | None:
    try:
        found = date(int(year), int(month), int(day))
    except ValueError:
        return None
    # A camera may be east of this machine, where it is tomorrow.
    today = date.today()  # noqa: DTZ011  # as people here date
    return found if _FIRST <= found <= today + timedelta(days=1) else None
