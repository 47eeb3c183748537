"""The board: Jetson's release and power mode, memory, swap and disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from hvq_edge.common.child_process import tool
from hvq_edge.doctor.finding import CheckResult
from hvq_edge.runtime.cpu.processor import processor_name

JETPACK = {"35": "5", "36": "6", "38": "7"}
"""JetPack of each major release of Jetson Linux: docs.nvidia.com/jetson/archives."""
SUPPORTED = ("6", "7")
LOW_MEMORY_GB, LOW_DISK_GB = 1.0, 2.0
Tool = Callable[..., str | None]


def processor(root: Path = Path("/"), name: str | None = None) -> list[CheckResult]:
    """Name the processor or board, and the Jetson release where it is one."""
    findings = [CheckResult("processor", "ok", name or processor_name())]
    release = _read(root / "etc/nv_tegra_release")
    found = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", release)
    if not found:
        return findings
    major, minor = found[1], found[2]
    jetpack = JETPACK.get(major)
    said = f"Jetson Linux {major}.{minor}" + (f" (JetPack {jetpack})" if jetpack else "")
    if jetpack in SUPPORTED:
        findings.append(CheckResult("jetpack", "ok", said))
    elif int(major) > max(map(int, JETPACK)):
        findings.append(CheckResult("jetpack", "note", f"{said}, newer than hvq-edge knows"))
    else:
        remedy = "install JetPack 6.2 or 7.2: https://developer.nvidia.com/embedded/jetpack"
        findings.append(CheckResult("jetpack", "missing", said, remedy))
    return findings


def power(root: Path = Path("/"), run: Tool = tool) -> list[CheckResult]:
    """Say which power mode a Jetson is in; nothing elsewhere."""
    if not (root / "etc/nv_tegra_release").exists():
        return []
    said = run("nvpmodel", "-q") or run("/usr/sbin/nvpmodel", "-q")
    if said is None:
        return [
            CheckResult(
                "power-mode",
                "note",
                "nvpmodel does not answer",
                "in a container look on the board itself: sudo nvpmodel -q",
            )
        ]
    mode = re.search(r"Power Mode:\s*(\S+)", said)
    name = mode[1] if mode else " ".join(said.split())
    fastest = name.upper().startswith(("MAXN", "MODE_MAXN"))
    return [
        CheckResult(
            "power-mode",
            "ok" if fastest else "note",
            name,
            "" if fastest else "for the least latency: sudo nvpmodel -m 0 && sudo jetson_clocks",
        )
    ]


def memory(root: Path = Path("/")) -> list[CheckResult]:
    """Look at main memory and swap."""
    numbers = {
        name: int(value) / 2**20
        for name, value in re.findall(r"^(\w+):\s+(\d+) kB", _read(root / "proc/meminfo"), re.M)
    }
    if "MemTotal" not in numbers:
        return [CheckResult("memory", "note", "unknown here")]
    free = numbers.get("MemAvailable", 0.0)
    swap = numbers.get("SwapTotal", 0.0)
    said = f"{numbers['MemTotal']:.1f} GiB, {free:.1f} GiB available, swap {swap:.1f} GiB"
    if free >= LOW_MEMORY_GB:
        return [CheckResult("memory", "ok", said)]
    remedy = "close other programs" + (
        ""
        if swap
        else ", or add swap: sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile "
        "&& sudo mkswap /swapfile && sudo swapon /swapfile"
    )
    return [CheckResult("memory", "missing", said, remedy)]


def disk(place: Path = Path()) -> list[CheckResult]:
    """Look at the space where results would be written."""
    usage = shutil.disk_usage(place)
    said = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f} at {place.resolve()}"
    if usage.free >= LOW_DISK_GB * 2**30:
        return [CheckResult("disk", "ok", said)]
    return [CheckResult("disk", "missing", said, "delete old runs: hvq-edge runs lists them")]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
