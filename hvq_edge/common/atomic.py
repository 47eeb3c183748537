"""Files and folders that appear whole or not at all.

Everything hvq-edge writes goes to a temporary name beside its destination and is renamed when
complete, so that a kill, a full disk or a power cut never leaves half a result.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hvq_edge.common.plain_file import open_plain
from hvq_edge.errors import OutputError

_CANNOT_WRITE = {
    errno.ENOSPC: (
        "no space is left on the disk",
        "free some space, then run the same command again",
    ),
    errno.EDQUOT: ("the disk quota is used up", "free some space, then run the same command again"),
    errno.EROFS: ("the file system is read-only", "choose another place"),
    errno.EACCES: ("permission was denied", "choose a place that you may write to"),
    errno.EPERM: ("permission was denied", "choose a place that you may write to"),
    errno.ENOTDIR: (
        "a part of that path is a file, not a folder",
        "choose another place",
    ),
    errno.EISDIR: ("there is a folder of that name", "choose another place"),
}


def output_error(path: Path, error: OSError) -> OutputError:
    """Translate an ``OSError`` met while writing ``path`` into a message with a remedy."""
    cause, remedy = _CANNOT_WRITE.get(
        error.errno or 0, (str(error), "check that the place can be written to")
    )
    return OutputError(f"cannot write {path}: {cause}.", next_step=remedy)


def temporary_file(path: Path, suffix: str = ".tmp") -> Path:
    """Make an empty file beside ``path``, hidden, with the mode that the umask gives to new files.

    ``tempfile`` makes files for one user alone, which a mode set afterwards would open to others
    whatever the umask says.

    Raises:
        OSError: it cannot be made.
    """
    temporary = _unused(path, suffix)
    temporary.touch(exist_ok=False)
    return temporary


def _unused(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{suffix}")


def _check_place(path: Path) -> None:
    """Check that no folder, pipe or device would have to make way for a file.

    Raises:
        OSError: the place cannot be looked at.
        OutputError: one would.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    # /dev/stdout leads there: the file behind it may be a plain one, the link is everybody's.
    of_a_process = path.is_symlink() and path.readlink().is_relative_to("/proc")
    if of_a_process or (path.exists() and not path.is_file()):
        raise OutputError(
            f"cannot write {path}: that is a pipe or a device, which a file would replace.",
            next_step="name a plain file",
        )


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` on success, else remove it.

    Raises:
        OutputError: the file cannot be written, or what stands there is no plain file.
    """
    temporary: Path | None = None
    try:
        _check_place(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_file(path)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; put it in the place of ``path`` on success.

    The former folder, if any, is moved aside first and removed last, so the new one is complete
    whenever ``path`` exists. A file at ``path`` is left alone.

    Raises:
        OutputError: the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not path.name:
            raise OutputError(
                f"cannot write {path}: a folder that one is in cannot be replaced.",
                next_step="name another folder",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _unused(path, ".tmp")
        temporary.mkdir()
        yield temporary
        os.sync()  # once: a fsync for each of thousands of images takes seconds
        former = temporary.with_name(temporary.name + ".former")
        if path.exists():
            path.replace(former)
        try:
            temporary.replace(path)
        except BaseException:  # Ctrl-C between the two renames as well
            if former.exists():
                former.replace(path)
            raise
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def check_writable(path: Path) -> None:
    """Check that a file could be written in place of ``path``, without touching it.

    Raises:
        OutputError: it could not.
    """
    try:
        _check_place(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            probe.write(b"hvq-edge")
    except OSError as error:
        raise output_error(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a plain file as 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read, or is a pipe or a device.
    """
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
