"""Compiled graphs, kept for the next start: to compile one takes longer than to load it.

What is kept decides on parts as a bundle does, and no signature covers it: it is used only where
nobody but this user can have written it, and as it was written.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hvq_edge.common.atomic import atomic_file, temporary_file
from hvq_edge.common.cache_folder import default_cache
from hvq_edge.common.plain_file import open_plain
from hvq_edge.errors import HvqEdgeError, SettingsError
from hvq_edge.runtime.cpu.processor import processor_features, usable_cpus

logger = logging.getLogger(__name__)

VARIABLE = "HVQ_EDGE_COMPILED"
"""``keep`` (default) or ``no``."""
MOST_KEPT = 8
"""Graphs; those that were not used for longest go first."""
MOST_BYTES = 2 * 10**9
"""Of all of them together, likewise."""
_LEFT_SECONDS = 3600.0
"""After which a temporary file is none that somebody still writes to."""
_FORMAT = b"hvq-edge-compiled/1\n"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Kept(NamedTuple):
    """A compiled graph."""

    content: bytes
    sha256: str
    """Of the content and of what it was compiled from."""


class CompiledFile:
    """Where one compiled graph is kept, in the user's cache folder.

    Args:
        parts: all that the compiled graph depends on, beside the machine: graph, library, how.
    """

    def __init__(self, *parts: str) -> None:
        here = (platform.machine(), processor_features(), str(usable_cpus()))
        digest = hashlib.sha256("\0".join((*parts, *here)).encode()).hexdigest()
        self._folder = _folder()
        self._name = f"{digest}.blob"

    def read(self) -> Kept | None:
        """Return what is kept; ``None``: there is nothing that may be used."""
        if self._folder is None:
            return None
        path = self._folder / self._name
        try:
            _check_owner(os.lstat(self._folder), self._folder)
            with open_plain(path, follow=False) as file:
                _check_owner(os.fstat(file.fileno()), path)
                content = file.read()
            with suppress(OSError):  # a folder that can only be read serves as well
                os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.info("%s is not used, and the graph is compiled again: %s", path, error)
            return None
        head = len(self._head(b""))
        compiled = content[head:]
        if content[:head] != self._head(compiled):
            logger.warning("%s is not as it was written: the graph is compiled again", path)
            return None
        return Kept(compiled, content[len(_FORMAT) : head].hex())

    def keep(self, compiled: bytes) -> None:
        """Keep a compiled graph for the next start, where that can be."""
        if self._folder is None:
            return
        content = self._head(compiled) + compiled
        try:
            if len(content) > MOST_BYTES:
                raise OSError(f"it has {len(content)} bytes, and all have at most {MOST_BYTES}")
            path = self._made_folder() / self._name
            with atomic_file(path) as temporary:
                temporary.chmod(0o600)
                temporary.write_bytes(content)
            _remove_oldest(path)
        except (HvqEdgeError, OSError) as error:
            logger.info("the compiled graph is not kept, and compiled again next time: %s", error)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a file for a library that writes compiled graphs to files alone; it goes at last.

        Raises:
            OSError: nothing can be kept.
        """
        path = temporary_file(self._made_folder() / self._name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _made_folder(self) -> Path:
        if self._folder is None:
            raise OSError("there is no folder for it")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(os.lstat(self._folder), self._folder)
        return self._folder

    def _head(self, compiled: bytes) -> bytes:
        """Return what stands before a compiled graph: under another name it is another file."""
        digest = hashlib.sha256(self._name.encode())
        digest.update(compiled)
        return _FORMAT + digest.digest()


def _folder() -> Path | None:
    wanted = os.environ.get(VARIABLE, "keep")
    if wanted not in ("keep", "no"):
        raise SettingsError(
            f"{VARIABLE} is {wanted!r}, which is none of keep, no.",
            next_step=f"set {VARIABLE} to one of these, or unset it",
        )
    with suppress(RuntimeError):  # a user without a home, as in some containers
        return default_cache() / "compiled" if wanted == "keep" else None
    return None


def _check_owner(status: os.stat_result, path: Path) -> None:
    """Refuse what others could have written, a link included.

    Raises:
        PermissionError: they could.
    """
    if status.st_uid != os.geteuid() or stat.S_ISLNK(status.st_mode):
        raise PermissionError(f"{path} belongs to another user, or is a link")
    if status.st_mode & _OTHERS_WRITE:
        raise PermissionError(f"{path} can be written to by others")


def _remove_oldest(new: Path) -> None:
    """Hold number and bytes to their bounds; ``new`` stays, whatever the clock says.

    What a process that was killed left half written goes as well. What cannot be removed, or was
    by another process, keeps none of the others.
    """
    status = {}
    for path in new.parent.glob("*.blob"):
        with suppress(FileNotFoundError):
            status[path] = path.lstat()  # of a link itself: it may lead nowhere
    used = sorted(status, key=lambda path: (path == new, status[path].st_mtime_ns), reverse=True)
    total = 0
    for number, path in enumerate(used):
        total += status[path].st_size
        if number >= MOST_KEPT or total > MOST_BYTES:
            with suppress(OSError):
                path.unlink()
    for path in new.parent.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFT_SECONDS:
                path.unlink()
