"""A folder that is watched: each image that is in it or appears in it, once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hvq_edge.data.images import IMAGE_SUFFIXES
from hvq_edge.errors import InputError
from hvq_edge.stream.sources.folder import natural_key, read_file
from hvq_edge.stream.sources.source import Frame, lost

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 5.0
"""A file that stays unreadable for so long after its last change is broken, not half-written."""

_Version = tuple[int, int]
"""A file's time of change in nanoseconds, and its size."""


class WatchedFolder:
    """Watches one folder, without the folders in it, by looking at it again and again.

    That works on network shares too, where no notice of changes comes. Files that are there at the
    start come first: after a restart, nothing that arrived meanwhile is missed. The oldest comes
    first, and of two of the same time the one whose name sorts first. A file written again is new.

    A file is taken when it is the same in two looks and can be read whole; one that cannot, and
    does not change any more, is a lost frame with the reason. Files written under another name and
    renamed when complete are never seen half-written.

    Args:
        path: the folder.
        poll: seconds between two looks.
        patience: seconds to wait for a file that cannot be read.

    Raises:
        InputError: there is no such folder.
    """

    live = False
    on_demand = True
    frames_per_second = None

    def __init__(
        self, path: Path, *, poll: float = POLL_SECONDS, patience: float = PATIENCE_SECONDS
    ) -> None:
        if not path.is_dir():
            raise InputError(
                f"{path} is not a folder that can be watched.",
                next_step="make it first, or give another one: --camera watch:FOLDER",
            )
        self._path = path
        self._poll = poll
        self._patience = patience
        self._closed = threading.Event()
        self._done: dict[str, _Version] = {}
        self._waiting: dict[str, tuple[_Version, float]] = {}

    @property
    def name(self) -> str:
        """The folder's path."""
        return f"watch:{self._path}"

    def __iter__(self) -> Iterator[Frame]:
        """Give one frame a file, until closed."""
        index = 0
        gone = False
        while not self._closed.is_set():
            try:
                there = self._look()
            except OSError as error:
                if not gone:  # one record for a share that is away for hours
                    yield lost(index, f"{self._path} cannot be looked at: {error.strerror}")
                    index += 1
                gone = True
                self._closed.wait(self._poll)
                continue
            gone = False
            for frame in self._new_frames(there, index):
                yield frame
                index += 1
                if self._closed.is_set():
                    return
            self._closed.wait(self._poll)

    def close(self) -> None:
        """End the iteration after the image under way."""
        self._closed.set()

    def _look(self) -> dict[str, _Version]:
        """Return the version of every image file there, those dealt with too."""
        there = {}
        with os.scandir(self._path) as entries:
            for entry in entries:
                suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  # once a file a look
                if suffix not in IMAGE_SUFFIXES or entry.name.startswith("."):
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:  # taken away between the two calls
                    continue
                there[entry.name] = (status.st_mtime_ns, status.st_size)
        # What is no longer there is forgotten: memory stays flat where files are taken away.
        self._done = {name: v for name, v in self._done.items() if name in there}
        self._waiting = {name: w for name, w in self._waiting.items() if name in there}
        return there

    def _new_frames(self, there: dict[str, _Version], index: int) -> Iterator[Frame]:
        """Read what is new, up to the first file that is still being written."""
        now = time.monotonic()
        new = [name for name, version in there.items() if self._done.get(name) != version]
        changing = set()
        for name in new:
            if name not in self._waiting or self._waiting[name][0] != there[name]:
                self._waiting[name] = (there[name], now)
                changing.add(name)
        for name in sorted(new, key=lambda name: (there[name][0], natural_key(name))):
            if name in changing:
                return  # those after it wait, so that the order holds
            version, since = self._waiting[name]
            frame = read_file(self._path, name, index)
            if frame.image is None and now - since < self._patience:
                return
            self._done[name] = version
            del self._waiting[name]
            yield frame
            index += 1
