"""The processor: its name and features, how much of it this process may use, how busy it is."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor_name() -> str:
    """Return the processor in words, such as ``Intel(R) Xeon(R) ...`` or a Jetson's board name."""
    for file, key in (("/proc/cpuinfo", "model name"), ("/proc/device-tree/model", "")):
        try:
            text = Path(file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            if not key and line.strip("\0 "):
                return line.strip("\0 ")
            if key and line.startswith(key):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def processor_features() -> str:
    """Return what the processor can do, as Linux lists it; empty where nobody tells.

    A virtual machine may hide some of it under the same name.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return next((one for one in text.splitlines() if one.startswith(("flags", "Features"))), "")


def load_average() -> float:
    """Return how many processes wanted a processor in the last minute; 0 where nobody counts."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux: a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
