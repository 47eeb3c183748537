"""A calibration image: one of those that INT8 ranges are measured on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class CalibrationImage(NamedTuple):
    """A good image, from the training images or from a folder of the user's own."""

    path: Path
    category: str
    sha256: str
