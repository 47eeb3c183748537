"""Plain files, read without waiting for whatever else somebody put in their place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_plain(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a plain file for reading. A pipe or a device is refused, not waited for.

    Args:
        path: of the file.
        follow: whether a link may stand in its place.

    Raises:
        OSError: missing, not readable, or no plain file.
    """
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a plain file")
        return open(descriptor, "rb")  # noqa: PTH123  # it is open already
    except BaseException:
        os.close(descriptor)
        raise


def read_plain(path: Path, *, follow: bool = True) -> bytes:
    """Return the content of a plain file; see :func:`open_plain`.

    Raises:
        OSError: missing, not readable, or no plain file.
    """
    with open_plain(path, follow=follow) as file:
        return file.read()
