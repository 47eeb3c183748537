"""Rejected frames as files: the picture as it was, its anomaly map, and the overlay."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from hvq_edge.atomic import atomic_file, output_error
from hvq_edge.errors import OutputError
from hvq_edge.stream.decisions import Decision
from hvq_edge.stream.sinks.sink import Draw
from hvq_edge.stream.sources.source import Frame, Picture


class RejectPictures:
    """Writes three files a reject, each whole or not at all.

    ``STEM.npy``: float32 map ``[side / 16, side / 16]``; ``STEM_overlay.jpg``; and last, so that
    the others are there when it is, ``STEM.png``: the picture, lossless.

    Args:
        folder: where to; it is made.
        draw: draws the overlay.

    Raises:
        OutputError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, draw: Draw) -> None:
        self._folder = folder
        self._draw = draw
        self.saved = 0
        """Rejects saved so far."""
        probe = folder / ".writable"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"hvq-edge")
            probe.unlink()
        except OSError as error:
            raise output_error(folder, error) from error

    def write(self, decision: Decision, frame: Frame) -> None:
        """Save a reject; other decisions are passed over.

        Raises:
            OutputError: a file cannot be written.
        """
        if decision.verdict != "reject" or frame.picture is None:
            return
        stem = reject_stem(decision, frame)
        if decision.map is not None:
            with atomic_file(self._folder / f"{stem}.npy") as path, path.open("wb") as file:
                np.save(file, decision.map)
        _write_picture(self._folder / f"{stem}_overlay.jpg", self._draw(decision, frame))
        _write_picture(self._folder / f"{stem}.png", frame.picture)
        self.saved += 1

    def close(self) -> None:
        """Nothing is left to do."""


def reject_stem(decision: Decision, frame: Frame) -> str:
    """Return the files' common name: arrival in UTC, frame number, and the source file's name.

    Sorts by time, and no two frames of a source share it.
    """
    moment = datetime.fromtimestamp(decision.time, tz=timezone.utc)
    stamp = f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03}Z"
    source = re.sub(r"[^\w.-]+", "_", PurePosixPath(frame.name).stem)[:60]
    return f"{stamp}-{decision.frame:06}" + (f"-{source}" if source else "")


def _write_picture(path: Path, rgb: Picture) -> None:
    encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OutputError(f"cannot write {path}: OpenCV cannot encode the picture.")
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.tobytes())
