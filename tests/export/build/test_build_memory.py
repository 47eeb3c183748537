"""Free memory as the kernel gives it, and the workspace that it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvq_edge.errors import MissingCapability
from hvq_edge.export.build.memory import (
    MIB,
    MOST_WORKSPACE,
    FreeMemory,
    free_host_memory,
    memory_budget,
    peak_host_memory,
)

GIB = 1024 * MIB


def meminfo(folder: Path, available: int, swap: int = 0) -> Path:
    path = folder / "meminfo"
    path.write_text(
        f"MemTotal: 1 kB\nMemAvailable:   {available >> 10} kB\nSwapFree: {swap >> 10} kB\n"
        "HugePages_Total:       0\n"
    )
    return path


def test_what_is_free(tmp_path):
    found = free_host_memory(meminfo(tmp_path, 3 * GIB, GIB), tmp_path)
    assert found == FreeMemory(host=3 * GIB, swap=GIB)


def test_a_container_has_less(tmp_path):
    (tmp_path / "memory.max").write_text(f"{2 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 2}\n")
    assert free_host_memory(meminfo(tmp_path, 30 * GIB), tmp_path).host == 3 * GIB // 2


def test_a_container_without_a_limit(tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    assert free_host_memory(meminfo(tmp_path, 3 * GIB), tmp_path).host == 3 * GIB


def test_this_machine_has_memory():
    assert free_host_memory().host > 10 * MIB


LARGEST = 40 * MIB


@pytest.mark.parametrize(
    ("free", "workspace"),
    [
        (FreeMemory(8 * GIB, 0, gpu=24 * GIB), MOST_WORKSPACE),
        (FreeMemory(8 * GIB, 0, gpu=2 * GIB + 50 * MIB), GIB),
        (FreeMemory(8 * GIB, 0, gpu=250 * MIB), 3 * LARGEST + 64 * MIB),
        (FreeMemory(8 * GIB, 0), MOST_WORKSPACE),
        # An Orin with 8 GB: 4 free, of which the build takes 1.7 in main memory.
        (FreeMemory(4 * GIB, 0, gpu=4 * GIB, shared=True), (4096 - 1536 - 200 - 50) // 2 * MIB),
        # The same with swap: what the CPU needs may go there.
        (FreeMemory(4 * GIB, 8 * GIB, gpu=4 * GIB, shared=True), (4096 - 50) // 2 * MIB),
    ],
)
def test_the_workspace(free, workspace):
    assert memory_budget("tensorrt", 50 * MIB, LARGEST, free).workspace == workspace


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (FreeMemory(GIB, 0, gpu=8 * GIB), "about 1736 MiB of memory, and 1024 MiB are free"),
        (FreeMemory(8 * GIB, 0, gpu=200 * MIB), "234 MiB of GPU memory, and 200 MiB are free"),
        (FreeMemory(GIB, GIB // 4, gpu=GIB, shared=True), "about 1970 MiB of memory, and 1280"),
        (FreeMemory(200 * MIB, 8 * GIB, gpu=200 * MIB, shared=True), "of GPU memory"),
    ],
)
def test_too_little(free, said):
    with pytest.raises(MissingCapability, match=said) as caught:
        memory_budget("tensorrt", 50 * MIB, LARGEST, free)
    assert ("swap" in caught.value.next_step) == free.shared
    assert "--workspace-mb" in caught.value.next_step


def test_ones_own_workspace_is_not_questioned():
    assert memory_budget("tensorrt", 50 * MIB, LARGEST, FreeMemory(0, 0, 0), 5).workspace == 5


def test_the_peak_of_this_process(tmp_path):
    peak = peak_host_memory()
    assert peak is not None
    assert peak > 10 * MIB
    (tmp_path / "status").write_text("Name: python\nVmHWM:\t    2048 kB\nVmRSS: 1 kB\n")
    assert peak_host_memory(tmp_path / "status") == 2 * MIB
    assert peak_host_memory(tmp_path / "absent") is None
