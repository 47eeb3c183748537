"""A folder that is watched: each image that is in it or appears in it, once."""

from __future__ import annotations

import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from hvq_edge.common.redaction import redacted
from hvq_edge.data.images import IMAGE_SUFFIXES
from hvq_edge.errors import InputError
from hvq_edge.stream.sources.folder import natural_key, read_file
from hvq_edge.stream.sources.source import Frame, lost

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 5.0
"""A file that stays unreadable for so long after its last change is broken, not half-written."""
HANGING_SECONDS = 10.0
"""What is not read after so long hangs: a network share that is gone never answers."""

_HURRY_LOOKS = 5
"""A file that differs in each of so many looks is tried as it is: two equal ones may never come."""
_MOST_HANGING = 8
"""Reads that hang at once: with more, the folder itself does not answer."""


_REPLACED = "it was replaced before it was read: it changes too fast"
_TAKEN_AWAY = "it was taken away before it was read"

Answer = TypeVar("Answer")


class _Version(NamedTuple):
    """What tells one content of a file from the next."""

    changed: int
    """Nanoseconds."""
    size: int


class _Seen(NamedTuple):
    """A directory entry at one look."""

    version: _Version
    file: int
    """Number of the inode: another one was put there whole, not written into."""
    fault: str = ""
    """Why it is nothing that can be read."""


@dataclass
class _Waiting:
    """A file that is not taken yet."""

    seen: _Seen
    since: float
    """The first look at this version."""
    first: float
    """The first look at the file."""
    looks: int = 1
    """At which the file was there and not taken."""
    settled: bool = False
    """Whether two looks saw the same version: nobody was writing it any more."""


class WatchedFolder:
    """Watches one folder, without the folders in it, by looking at it again and again.

    That works on network shares too, where no notice of changes comes. Files that are there at the
    start come first: after a restart, nothing that arrived meanwhile is missed. The oldest comes
    first, and of two of the same time the one whose name sorts first. A file written again is new.

    A file is taken when it is the same in two looks and can be read whole; one that cannot, and
    does not change any more, is a lost frame with the reason. Files written under another name and
    renamed when complete are never seen half-written; one that is replaced so again and again is
    taken at each look, and a lost frame stands for each version that was seen and not read. So it
    does for a file that is taken away while it waits for its turn.

    An entry that is no plain file, or cannot be looked at, is one lost frame and stops no other.
    Nor does a read that hangs: it is a lost frame, and the next file is read.

    Args:
        path: the folder.
        poll: seconds between two looks.
        patience: seconds to wait for a file that cannot be read.
        hanging: seconds after which a read that has not ended is given up.

    Raises:
        InputError: there is no such folder, or it may not be looked at.
    """

    live = False
    frames_per_second = None

    def __init__(
        self,
        path: Path,
        *,
        poll: float = POLL_SECONDS,
        patience: float = PATIENCE_SECONDS,
        hanging: float = HANGING_SECONDS,
    ) -> None:
        try:
            is_folder, why = path.is_dir(), ""
        except OSError as error:  # a name that is too long, or a folder that may not be entered
            is_folder, why = False, f": {error.strerror}"
        if not is_folder:
            raise InputError(
                f"{redacted(str(path))} is not a folder that can be watched{why}.",
                next_step="make it first, or give another one: --camera watch:FOLDER",
            )
        self._path = path
        self._poll = poll
        self._patience = patience
        self._limit = hanging
        self._closed = threading.Event()
        self._done: dict[str, _Seen] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._busy = False
        self._hanging: set[threading.Thread] = set()

    @property
    def name(self) -> str:
        """The folder's path."""
        return f"watch:{self._path}"

    @property
    def on_demand(self) -> bool:
        """Whether no frame is due: not while the folder or a file in it is being read."""
        return not self._busy

    def __iter__(self) -> Iterator[Frame]:
        """Give one frame a file, until closed."""
        for index, frame in enumerate(self._frames()):
            yield replace(frame, index=index)
            if self._closed.is_set():
                return

    def close(self) -> None:
        """End the iteration after the image under way."""
        self._closed.set()

    def _frames(self) -> Iterator[Frame]:
        gone = False
        while not self._closed.is_set():
            there = self._answer(self._look)
            if isinstance(there, str):
                if not gone:  # one record for a share that is away for hours
                    yield lost(0, f"{self._path} cannot be looked at: {there}")
                gone = True
            else:
                gone = False
                yield from self._new_frames(there)
            self._closed.wait(self._poll)

    def _look(self) -> dict[str, _Seen] | str:
        """Return every image file there, those dealt with too; or why that cannot be told."""
        try:
            with os.scandir(self._path) as entries:
                images = [entry for entry in entries if _is_image(entry.name)]
                found = [(entry.name, _seen(entry.path)) for entry in images]
        except OSError as error:
            return error.strerror or str(error)
        return {name: seen for name, seen in found if seen is not None}

    def _new_frames(self, there: dict[str, _Seen]) -> Iterator[Frame]:
        """Read what is new, up to the first file that is still being written."""
        # What is no longer there is forgotten: memory stays flat where files are taken away.
        self._done = {name: seen for name, seen in self._done.items() if name in there}
        files = {seen.file for seen in there.values()}
        for name in [name for name in self._waiting if name not in there]:
            gone = self._waiting.pop(name)
            # What is there under another name was renamed.
            if gone.settled and gone.seen.file not in files:
                yield lost(0, _TAKEN_AWAY, name)
        ready: dict[str, bool] = {}
        for name, seen in there.items():
            done, former = self._done.get(name), self._waiting.get(name)
            if done is not None and done.version == seen.version:
                continue
            if former is not None and former.seen.version == seen.version:
                ready[name] = former.settled = True
                continue
            before = done if former is None else former.seen
            whole = before is not None and before.file != seen.file
            if former is not None and whole:
                yield lost(0, _REPLACED, name)
            now = time.monotonic()
            first, looks = (now, 0) if former is None else (former.first, former.looks)
            self._waiting[name] = _Waiting(seen, now, first, looks + 1)
            ready[name] = whole or looks >= _HURRY_LOOKS
        for name in sorted(
            ready, key=lambda name: (there[name].version.changed, natural_key(name))
        ):
            waiting = self._waiting[name]
            frames = self._take(name, waiting) if ready[name] else []
            yield from frames
            # Those after it wait, so that the order holds; but not for one that never ends.
            if not frames and time.monotonic() - waiting.first < self._patience:
                return

    def _take(self, name: str, waiting: _Waiting) -> list[Frame]:
        """Read a file; nothing: it is not whole yet, or was written into meanwhile."""
        seen = waiting.seen
        if seen.fault:
            frame = lost(0, seen.fault, name)
        else:
            answer = self._answer(lambda: self._read(name))
            if isinstance(answer, str):
                frame = lost(0, f"{self._path / name} cannot be read: {answer}", name)
            else:
                before, frame, after = answer
                other = before is None or after is None or before.file != after.file
                if frame.image is not None and before != after and not other:
                    return []  # it may be half of one version and half of the next
                if frame.image is None and time.monotonic() - waiting.since < self._patience:
                    return []
                if before is not None and frame.image is not None:
                    seen = before
        self._done[name] = seen
        del self._waiting[name]
        replaced = seen.version != waiting.seen.version and seen.file != waiting.seen.file
        return [lost(0, _REPLACED, name), frame] if replaced else [frame]

    def _read(self, name: str) -> tuple[_Seen | None, Frame, _Seen | None]:
        path = str(self._path / name)
        return _seen(path), read_file(self._path, name, 0), _seen(path)

    def _answer(self, ask: Callable[[], Answer]) -> Answer | str:
        """Ask the folder on a thread of its own: a dead network share never answers."""
        self._hanging = {thread for thread in self._hanging if thread.is_alive()}
        if len(self._hanging) >= _MOST_HANGING:
            return f"{len(self._hanging)} reads hang already"
        answers: queue.SimpleQueue[Answer | str] = queue.SimpleQueue()

        def put() -> None:
            try:
                answers.put(ask())
            except Exception as error:  # noqa: BLE001  # else it looked like a dead share
                answers.put(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=put, name=f"look at {self._path}", daemon=True)
        self._busy = True
        try:
            thread.start()
            return answers.get(timeout=self._limit)
        except queue.Empty:
            self._hanging.add(thread)
            return f"there was no answer within {self._limit:g} s"
        finally:
            self._busy = False


def _is_image(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  # once a file a look
    return suffix in IMAGE_SUFFIXES and not name.startswith(".")


def _seen(path: str) -> _Seen | None:
    """Look at an entry; ``None``: a folder, or taken away meanwhile."""
    fault = ""
    try:
        try:
            status = os.stat(path)  # noqa: PTH116  # once a file a look
        except OSError as error:  # a link that leads nowhere or to itself, a lack of rights
            status = os.lstat(path)
            fault = f"{path} cannot be looked at: {error.strerror}"
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return None
    if not fault and not stat.S_ISREG(status.st_mode):
        fault = f"{path} is a pipe or a device, not a plain file"
    return _Seen(_Version(status.st_mtime_ns, status.st_size), status.st_ino, fault)
