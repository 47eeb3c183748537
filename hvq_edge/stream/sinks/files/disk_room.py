"""Whether the disk of a folder has room to record to."""

from __future__ import annotations

import os
from pathlib import Path

from hvq_edge.common.atomic import output_error
from hvq_edge.errors import OutputError

RESERVE_BYTES = 16 * 2**20
"""Recording ends with this much free: a video needs room to be finished, a system to live."""


def check_room(folder: Path, reserve: int = RESERVE_BYTES) -> None:
    """Check that the disk of a folder has room to record to; the folder need not exist yet.

    Raises:
        OutputError: fewer than ``reserve`` bytes are free, or the disk cannot be asked.
    """
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    try:
        disk = os.statvfs(there)
    except OSError as error:
        raise output_error(folder, error) from error
    free = disk.f_bavail * disk.f_frsize
    if free < reserve:
        raise OutputError(
            f"cannot record to {folder}: {free // 2**20} MiB are free, and "
            f"{reserve // 2**20} MiB are kept free.",
            next_step="free some space, or choose another disk with --out",
        )
