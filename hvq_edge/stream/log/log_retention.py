"""Old files of the decision log make room, once every receiver has what is in them."""

from __future__ import annotations

import time
from pathlib import Path

from hvq_edge.stream.log.chain import LogFile, chain_files
from hvq_edge.stream.log.deliveries import Deliveries
from hvq_edge.stream.sinks.files.retention import RetentionLimits


def remove_old_log_files(
    log: Path, limits: RetentionLimits, now: float | None = None
) -> list[Path]:
    """Remove whole files from the beginning of a log until it is within its limits.

    The newest file stays, and so does whatever a receiver still waits for. What is left begins with
    the hash of what was removed, so it can still be verified.

    Args:
        log: the log's first file.
        limits: what may stay.
        now: seconds since 1970.

    Returns:
        The files removed.

    Raises:
        OutputError: a file cannot be read.
    """
    if limits == RetentionLimits():
        return []
    now = time.time() if now is None else now
    files = chain_files(log)
    delivered = Deliveries(log).lowest_cursor()
    total = sum(path.stat().st_size for path in files)
    removed = []
    for path in files[:-1]:
        file = LogFile(path)
        try:
            last = file.last()
        finally:
            file.close()
        too_many = limits.bytes is not None and total > limits.bytes
        too_old = limits.seconds is not None and now - last.time > limits.seconds
        wanted = delivered is not None and delivered < last.id
        if wanted or not (too_many or too_old):
            break
        total -= path.stat().st_size
        path.unlink()
        removed.append(path)
    return removed
