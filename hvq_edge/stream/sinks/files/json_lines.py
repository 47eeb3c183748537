"""Decisions as JSON lines in a file."""

from __future__ import annotations

import os
from pathlib import Path

from hvq_edge.common.atomic import output_error
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision


class JsonLinesFile:
    """Appends one line a decision to a file, whole; a later run appends to it as well.

    Args:
        path: the file; its folder is made.

    Raises:
        OutputError: it cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def write(self, decision: Decision, frame: Frame) -> None:  # noqa: ARG002  # of the protocol
        """Append one line, or nothing.

        Raises:
            OutputError: the disk is full or gone; a part already written is taken back.
        """
        line = (decision.to_json() + "\n").encode("utf-8")
        if not self._in_place():  # moved or removed: what goes there would be lost
            self._file.close()
            self._open()
        try:
            written = self._file.write(line)
            if written != len(line):  # a nearly full disk takes a part without an error
                self._file.write(line[written:])  # the rest, or the error that says why not
        except OSError as error:
            os.ftruncate(self._file.fileno(), self._length)
            raise output_error(self._path, error) from error
        self._length += len(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
            self._length = self._file.seek(0, os.SEEK_END)
            self._identity = os.fstat(self._file.fileno())
        except OSError as error:
            raise output_error(self._path, error) from error

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), self._identity)
        except OSError:
            return False
