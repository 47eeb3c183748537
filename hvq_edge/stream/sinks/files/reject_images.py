"""Rejected frames as files: the image as it was, its map, the overlay, and frames around it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from hvq_edge.common.atomic import atomic_file, output_error
from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks.files.retention import REJECT_FILES, time_stamp
from hvq_edge.stream.sinks.sink import Draw
from hvq_edge.stream.sources.source import Frame, Image, is_video_frame
from hvq_edge.verdict.decision import Decision

CONTEXT_BYTES = 256 * 2**20
"""Frames kept in memory for the next reject never take more than this, whatever their size."""

LONGEST_TAIL = 120
"""Bytes of a file's name that say what the frame shows; a name may have 255 in all."""


@dataclass
class _Following:
    """A reject that still waits for frames after it."""

    stem: str
    index: int
    left: int


class RejectImages:
    """Writes three files a reject, each whole or not at all.

    ``STEM.npy``: float32 map ``[side / 16, side / 16]``; ``STEM_overlay.jpg``; and last, so that
    the others are there when it is, ``STEM.png``: the image, lossless. With ``context_frames``
    also the frames of the same camera around it, ``STEM_frame-1.jpg`` and ``STEM_frame+1.jpg``:
    the number counts frames of the camera from the reject.

    Args:
        folder: where to; it is made.
        draw: draws the overlay.
        context_frames: how many frames before and after a reject are saved with it.
        name_cameras: whether the camera's name is a part of the stem; needed with several.

    Raises:
        OutputError: the folder cannot be made or written to.
    """

    def __init__(
        self, folder: Path, draw: Draw, context_frames: int = 0, *, name_cameras: bool = False
    ) -> None:
        self._folder = folder
        self._draw = draw
        self._context_frames = context_frames
        self._name_cameras = name_cameras
        self._former: deque[tuple[str, int, Image]] = deque()
        self._following: dict[str, list[_Following]] = {}
        self.saved = 0
        """Rejects saved so far."""
        make_folder(folder)

    def write(self, decision: Decision, frame: Frame) -> None:
        """Save a reject, or a frame that belongs to one; others are passed over.

        Raises:
            OutputError: a file cannot be written.
        """
        if frame.image is None:
            return
        camera = decision.camera
        try:
            self._save_as_following(camera, decision.frame, frame.image)
            if decision.verdict == "reject":
                self._save(camera, decision, frame, frame.image)
        finally:
            self._remember(camera, decision.frame, frame.image)

    def close(self) -> None:
        """Nothing is left to do."""

    def _save(self, camera: str, decision: Decision, frame: Frame, image: Image) -> None:
        stem = stem_of(decision.fields(), name_camera=self._name_cameras)
        for former_camera, index, former in self._former:
            if former_camera == camera:
                self._save_context(stem, index - decision.frame, former)
        _write_image(self._folder / f"{stem}_overlay.jpg", self._draw(decision, frame))
        save_map_and_image(self._folder, stem, decision, image)
        self.saved += 1
        if self._context_frames:
            waiting = self._following.setdefault(camera, [])
            waiting.append(_Following(stem, decision.frame, self._context_frames))

    def _save_as_following(self, camera: str, index: int, image: Image) -> None:
        waiting = self._following.get(camera, [])
        for reject in waiting:
            reject.left -= 1
        self._following[camera] = [reject for reject in waiting if reject.left]
        for reject in waiting:
            self._save_context(reject.stem, index - reject.index, image)

    def _save_context(self, stem: str, offset: int, image: Image) -> None:
        _write_image(self._folder / f"{stem}_frame{offset:+}.jpg", image)

    def _remember(self, camera: str, index: int, image: Image) -> None:
        """Keep the last frames of each camera, within the limit of memory."""
        if not self._context_frames:
            return
        self._former.append((camera, index, image))
        of_camera = [former for former in self._former if former[0] == camera]
        if len(of_camera) > self._context_frames:
            self._forget(of_camera[0])
        while sum(former[2].nbytes for former in self._former) > CONTEXT_BYTES:
            self._former.popleft()

    def _forget(self, gone: tuple[str, int, Image]) -> None:
        self._former = deque(former for former in self._former if former is not gone)


def stem_of(fields: Mapping[str, Any], *, name_camera: bool = False) -> str:
    """Return the files' common name: arrival in UTC, frame number, serial number, file name.

    Sorts by time, and no two frames of a source share it.

    Args:
        fields: of the decision, as the log has them.
        name_camera: whether the camera's name stands before the serial number.
    """
    image = str(fields.get("image") or "")
    source = "" if is_video_frame(image) else PurePosixPath(image).stem
    parts = [fields.get("camera") if name_camera else "", fields.get("part"), source]
    tail = "-".join(re.sub(r"[^\w.-]+", "_", str(part))[:60] for part in parts if part)
    tail = tail.encode()[:LONGEST_TAIL].decode(errors="ignore")  # file systems count bytes
    stem = f"{time_stamp(fields['time'])}-{fields['frame']:06}"
    return stem + (f"-{tail}" if tail else "")


def make_folder(folder: Path) -> None:
    """Make a folder for recordings.

    Raises:
        OutputError: it cannot be made or written to.
    """
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"hvq-edge")
        probe.unlink()
    except OSError as error:
        raise output_error(folder, error) from error


def save_map_and_image(folder: Path, stem: str, decision: Decision, image: Image) -> None:
    """Write a decision's map, where it has one, and then its image: where that is, the map is.

    Raises:
        OutputError: a file cannot be written.
    """
    if decision.map is not None:
        with atomic_file(folder / f"{stem}.npy") as path, path.open("wb") as file:
            np.save(file, decision.map)
    _write_image(folder / f"{stem}.png", image)


def recorded_files(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[list[Path]]:
    """Find the files of decisions, for each row of a log those that are still there.

    Args:
        folder: where they were saved; it may be gone.
        rows: fields of decisions, as the log has them.
    """
    found: list[list[Path]] = [[] for _ in rows]
    by_stem: dict[str, int] = {}
    for number, row in enumerate(rows):
        for name_camera in (False, True):
            by_stem[stem_of(row, name_camera=name_camera)] = number
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        match = REJECT_FILES.fullmatch(name)
        if match is not None and match["recording"] in by_stem and not name.startswith("."):
            found[by_stem[match["recording"]]].append(folder / name)
    return found


def _write_image(path: Path, rgb: Image) -> None:
    encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OutputError(f"cannot write {path}: OpenCV cannot encode the image.")
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.tobytes())
