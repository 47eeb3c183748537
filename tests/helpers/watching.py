"""A watched folder that is read on a thread, as a line reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.patience import PATIENCE_SECONDS

from hvq_edge.stream.sources.source import Frame
from hvq_edge.stream.sources.watched_folder import WatchedFolder


def watch(folder: Path, **options: Any) -> tuple[WatchedFolder, list[Frame], Callable[[], None]]:
    """Start to watch; return the source, the frames so far, and a function that ends it."""
    source = WatchedFolder(folder, **{"poll": 0.02, "patience": 0.2, **options})
    frames: list[Frame] = []

    def collect() -> None:
        for frame in source:
            frames.append(frame)

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()

    def end() -> None:
        source.close()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()

    return source, frames, end
