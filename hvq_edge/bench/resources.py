"""What a Jetson draws while it works, from NVIDIA's tegrastats.

https://docs.nvidia.com/jetson/archives/r36.4/DeveloperGuide/AT/JetsonLinuxDevelopmentTools/TegrastatsUtility.html
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from statistics import mean
from tempfile import TemporaryFile

TOOL = "tegrastats"
SECONDS = 3.0
_EVERY_MS = 100
_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "VIN")
"""The board's whole input, by board."""


def watts_while(call: Callable[[], object], seconds: float = SECONDS) -> float | None:
    """Repeat a call and return the mean power of the board meanwhile.

    Args:
        call: what to do.
        seconds: for how long.

    Returns:
        Watts; ``None`` where there is no tegrastats, or it names no rail that is known.
    """
    program = shutil.which(TOOL)
    if program is None:
        return None
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        try:
            meter = subprocess.Popen(
                [program, "--interval", str(_EVERY_MS)],
                stdout=said,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            )
        except OSError:
            return None
        try:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                call()
        finally:
            meter.terminate()
            meter.wait(timeout=10)
        said.seek(0)
        found = [watts for line in said if (watts := watts_of(line)) is not None]
    return mean(found) if found else None


def watts_of(line: str) -> float | None:
    """Return the board's power in a line of tegrastats; ``None``: it names none."""
    for rail in _RAILS:
        found = re.search(rf"\b{rail} (\d+)(?:mW)?/\d+", line)
        if found:
            return int(found[1]) / 1000
    return None
