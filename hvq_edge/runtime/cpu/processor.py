"""The processor's name, for reports."""

from __future__ import annotations

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
