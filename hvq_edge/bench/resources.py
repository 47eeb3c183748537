"""What an entrant takes beside time: memory, and on a Jetson power.

Peak memory is measured in a process of the entrant's own; power comes from NVIDIA's tegrastats.
https://docs.nvidia.com/jetson/archives/r36.4/DeveloperGuide/AT/JetsonLinuxDevelopmentTools/TegrastatsUtility.html
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from tempfile import TemporaryFile

from hvq_edge.bench.entrants import Entrant, call_of
from hvq_edge.common.child_process import NoAnswer, run_isolated

TOOL = "tegrastats"
SECONDS = 3.0
_EVERY_MS = 100
_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "VIN")
"""Names of the rail that feeds the whole board, on one board or another."""
_TIMEOUT_S = 180.0
_CODE = (
    "import json\nfrom hvq_edge.bench.resources import measure_here\n"
    "answer = measure_here(json.loads(arguments[0]), int(arguments[1]))"
)


def peak_megabytes(entrant: Entrant, batch: int = 1) -> float | None:
    """Run an entrant in a child process and return the most memory that process had.

    Python and the libraries count, because a device needs room for them too.

    Returns:
        10^6 bytes of resident memory; ``None`` where that cannot be measured.
    """
    try:
        found = run_isolated(_CODE, json.dumps(asdict(entrant)), str(batch), timeout=_TIMEOUT_S)
    except NoAnswer:
        return None
    return float(found) if found is not None else None


def measure_here(entrant: dict[str, object], batch: int) -> float | None:
    """Open and run an entrant in this process and return its peak in 10^6 bytes.

    Args:
        entrant: the fields of an :class:`Entrant`.
        batch: images in a call.
    """
    opened = Entrant(**entrant).open()  # type: ignore[arg-type]
    call = call_of(opened, batch)
    for _ in range(3):
        call()
    return high_water()


def high_water(status: Path = Path("/proc/self/status")) -> float | None:
    """Return the most resident memory that a process has had, in 10^6 bytes.

    Args:
        status: the process's table, as Linux writes it.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 / 1e6 if found else None


def watts_while(call: Callable[[], object], seconds: float = SECONDS) -> float | None:
    """Repeat a call and return the mean power of the board meanwhile.

    Args:
        call: the work to repeat.
        seconds: how long to repeat it.

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
    """Return the board's watts in a line of tegrastats; ``None`` where it names no known rail."""
    for rail in _RAILS:
        found = re.search(rf"\b{rail} (\d+)(?:mW)?/\d+", line)
        if found:
            return int(found[1]) / 1000
    return None
