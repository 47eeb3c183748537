"""The most memory that an engine takes: measured in a process of its own."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

from hvq_edge.bench.entrants import Entrant, call_of
from hvq_edge.common.child_process import NoAnswer, run_isolated

_TIMEOUT_S = 180.0
_CODE = (
    "import json\nfrom hvq_edge.bench.peak_memory import measure_here\n"
    "answer = measure_here(json.loads(arguments[0]), int(arguments[1]))"
)


def peak_megabytes(entrant: Entrant, batch: int = 1) -> float | None:
    """Open an entrant in a child process, run it, and say how much memory that process had at most.

    Python and the libraries are in it, because a device needs room for them too.

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
        entrant: fields of :class:`Entrant`.
        batch: images of a run.
    """
    opened = Entrant(**entrant).open()  # type: ignore[arg-type]
    call = call_of(opened, batch)
    for _ in range(3):
        call()
    return high_water()


def high_water(status: Path = Path("/proc/self/status")) -> float | None:
    """Return the most resident memory that a process has had, in 10^6 bytes.

    Args:
        status: as Linux writes it.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 / 1e6 if found else None
