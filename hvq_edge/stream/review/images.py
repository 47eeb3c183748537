"""Images of decisions that were kept beside the log, found and made ready to be drawn on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvq_edge.stream.review.candidates import Candidate
from hvq_edge.stream.sinks.files.reject_images import stem_of
from hvq_edge.verdict.decision import Decision
from hvq_edge.verdict.regions import Region

FOLDERS = ("rejects", "images")
"""Beside the log: where images of decisions are kept."""


class KeptImages:
    """The images beside a log, by the name that their files have in common.

    Args:
        folder: the log's.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = [folder / name for name in FOLDERS]
        self._known: dict[Path, tuple[int, dict[str, Path]]] = {}

    def by_stem(self) -> dict[str, Path]:
        """Return all of them; a folder is read again when it has changed."""
        found: dict[str, Path] = {}
        for folder in self._folders:
            try:
                changed = folder.stat().st_mtime_ns
            except OSError:
                continue
            known = self._known.get(folder)
            if known is None or known[0] != changed:
                files = {
                    path.stem: path
                    for path in folder.glob("*.png")
                    if not path.name.startswith(".")
                }
                known = self._known[folder] = changed, files
            found |= known[1]
        return found


def image_of(images: Mapping[str, Path], candidate: Candidate) -> Path | None:
    """Return the image file of a decision; ``None``: there is none, or none any more.

    Args:
        images: all that there are, by stem.
        candidate: the decision.
    """
    files = (images.get(name.removesuffix(".png")) for name in names_of(candidate))
    return next((file for file in files if file is not None), None)


def names_of(candidate: Candidate) -> tuple[str, str]:
    """Return the names that an image of a decision may have: of a line with one camera, or more."""
    fields: dict[str, Any] = {
        name: getattr(candidate, name) for name in ("camera", "part", "image", "time", "frame")
    }
    return f"{stem_of(fields)}.png", f"{stem_of(fields, name_camera=True)}.png"


def shown_decision(candidate: Candidate, file: Path, regions: str | None) -> Decision:
    """Return as much of a decision as is drawn on its image.

    Args:
        candidate: the decision.
        file: its image, beside which its map is.
        regions: as its row has them.

    Raises:
        OSError: the map cannot be read.
        ValueError: the map or the regions are damaged.
    """
    heat = file.with_suffix(".npy")
    return Decision(
        frame=candidate.frame,
        time=candidate.time,
        category=candidate.category,
        score=candidate.score,
        verdict="reject" if candidate.verdict == "reject" else "pass",
        reason=candidate.reason,
        latency_ms=0.0,
        map=np.load(heat, allow_pickle=False) if heat.exists() else None,
        regions=regions_of(regions),
    )


def regions_of(text: str | None) -> tuple[Region, ...]:
    """Return a decision's regions, the highest peak first.

    Args:
        text: as its row has them.

    Raises:
        ValueError: they are damaged.
    """
    return tuple(
        Region(
            box=tuple(one["box"]),
            area=one["area"],
            area_mm2=one.get("area_mm2"),
            peak=one["peak"],
            contour=np.asarray(one["contour"], np.int32).reshape(-1, 2),
        )
        for one in json.loads(text or "[]")
    )
