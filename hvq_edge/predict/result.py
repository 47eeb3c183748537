"""What is said of one image: a value that one can print, plot, keep and show."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.atomic import output_error, temporary_file
from hvq_edge.common.heat_map import HeatScale, heat_overlay
from hvq_edge.errors import InputError, MissingCapability
from hvq_edge.stream.drawing.overlay import annotate
from hvq_edge.stream.drawing.window import has_screen
from hvq_edge.stream.sources.source import Image
from hvq_edge.verdict.decision import Decision
from hvq_edge.verdict.judgement import Verdict
from hvq_edge.verdict.regions import Region

OVERLAY, HEAT, MASK = "overlay", "heat", "mask"
"""What :meth:`Result.save` writes: ``NAME.overlay.png`` and so on."""

_GROUND = 32
"""Grey level below the colours of a heat map that stands alone."""


@dataclass(frozen=True, eq=False)
class Result:
    """The verdict on one image, and what it rests on.

    It is what the line would have decided on the same image with the same bundle.
    """

    name: str
    """The image's path or address; empty for one that was held in memory."""
    image: Image | None
    """uint8 ``[height, width, 3]``, RGB; ``None`` where it could not be read."""
    threshold: float | None
    """A score above it is a reject; ``None`` where the category has none."""
    precision: str
    """Of the engine: scores of two precisions differ a little, and so do their thresholds."""
    decision: Decision
    """All of it, as the line records it."""
    typical: float | None = None
    """What good parts of the category score."""

    @property
    def verdict(self) -> Verdict:
        """``pass``, ``reject`` or ``no_decision``."""
        return self.decision.verdict

    @property
    def reason(self) -> str:
        """Why, in words."""
        return self.decision.reason

    @property
    def score(self) -> float | None:
        """Larger is more anomalous; ``None`` where the image could not be judged."""
        return self.decision.score

    @property
    def p_value(self) -> float | None:
        """Share of good parts that score at least as high; ``None`` where it is not known."""
        return self.decision.p_value

    @property
    def category(self) -> str | None:
        """What it was judged as; ``None`` where the engine was not asked."""
        return self.decision.category

    @property
    def part(self) -> str | None:
        """Serial number of the part; ``None`` where nobody asked for it, or it is not known."""
        return self.decision.part

    @property
    def regions(self) -> tuple[Region, ...]:
        """Where a rejected image is above the threshold, in its pixels, the worst first."""
        return self.decision.regions

    @property
    def map(self) -> NDArray[np.float32] | None:
        """Anomaly map, a cell for 16x16 pixels of the frame; ``None``: no engine was asked."""
        return self.decision.map

    @property
    def scale(self) -> HeatScale:
        """What the heat colours mean."""
        return HeatScale(self.threshold, self.typical)

    def __repr__(self) -> str:
        score = "" if self.score is None else f", score {self.score:.4g}"
        of = "" if self.threshold is None else f", threshold {self.threshold:.4g}"
        category = f", {self.category}" if self.category else ""
        return (
            f"<Result {self.verdict}{score}{of}{category}{f', {self.name}' if self.name else ''}>"
        )

    def plot(self) -> Image:
        """Draw the verdict, the heat, the outlines and the legend on the image.

        Returns:
            uint8 ``[height, width, 3]``, RGB.
        """
        return annotate(self.image, self.decision, self.scale, Path(self.name).name)

    def heat(self) -> Image | None:
        """Return the heat colours alone at the image's size: dark where it is normal.

        Returns:
            uint8 ``[height, width, 3]``, RGB; ``None`` without a score.
        """
        if self.image is None or self.map is None or self.score is None:
            return None
        ground = np.full_like(self.image, _GROUND)
        return heat_overlay(ground, self.map, self.score, self.scale)

    def mask(self) -> NDArray[np.uint8] | None:
        """Return where the image is above the threshold: 255 there, else 0.

        Returns:
            uint8 ``[height, width]``; ``None`` without a score.
        """
        if self.image is None or self.score is None:
            return None
        mask = np.zeros(self.image.shape[:2], np.uint8)
        cv2.fillPoly(mask, [region.contour for region in self.regions], 255)
        return mask

    def save(self, folder: str | Path, stem: str | Path = "") -> list[Path]:
        """Write overlay, heat map and mask as PNG files; those that there are.

        Args:
            folder: to write to; made where it is missing.
            stem: what the files are called, folders below ``folder`` included; by default after
                the image, and for one from memory ``image``, ``image-2`` and so on.

        Returns:
            The files written.

        Raises:
            InputError: ``stem`` leads out of the folder.
            OutputError: they cannot be written.
        """
        stem = Path(stem or Path(self.name).stem or _free_stem(Path(folder)))
        if stem.is_absolute() or ".." in stem.parts:
            raise InputError(f"{stem} is not below {folder}.", next_step="give another name")
        pictures = {OVERLAY: self.plot(), HEAT: self.heat(), MASK: self.mask()}
        written = []
        for kind, picture in pictures.items():
            path = Path(folder, f"{stem}.{kind}.png")
            if picture is not None:
                _write_png(path, picture)
                written.append(path)
        return written

    def show(self) -> None:
        """Show :meth:`plot` in the notebook that this is called in, else in a window.

        Raises:
            MissingCapability: there is no screen.
        """
        try:
            shell = get_ipython()  # type: ignore[name-defined]  # a builtin within IPython alone
        except NameError:
            pass
        else:
            if "IPKernelApp" in shell.config:
                notebook = import_module("IPython.display")
                notebook.display(notebook.Image(data=self._repr_png_()))
                return
        if not has_screen(os.environ):  # without one, Qt ends the whole process
            raise MissingCapability(
                "there is no screen to show the result on.",
                next_step="write it with save(), or take the picture that plot() returns",
            )
        title = f"{self.name or 'hvq-edge'} (any key closes it)"
        cv2.imshow(title, cv2.cvtColor(self.plot(), cv2.COLOR_RGB2BGR))
        cv2.waitKey(0)
        cv2.destroyWindow(title)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the pictures as JSON values."""
        fields = self.decision.fields()
        kept = ("image", "part", "verdict", "score", "category", "p_value", "reason", "regions")
        return {
            **{name: fields[name] for name in kept},
            "threshold": self.threshold,
            "precision": self.precision,
        }

    def _repr_png_(self) -> bytes:
        """How a notebook shows it."""
        return _png(self.plot())


def is_picture(name: str) -> bool:
    """Tell whether a file is called as one that :meth:`Result.save` writes."""
    return name.endswith(tuple(f".{kind}.png" for kind in (OVERLAY, HEAT, MASK)))


def _free_stem(folder: Path) -> str:
    """Return the first of the stems for images without a name that nothing in a folder has."""
    stems = (f"image-{number}" if number > 1 else "image" for number in count(1))
    return next(stem for stem in stems if not (folder / f"{stem}.{OVERLAY}.png").exists())


def _png(picture: NDArray[np.uint8]) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    _, data = cv2.imencode(".png", bgr)
    return data.tobytes()


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture whole or not at all; to wait for the disk at each would take longer."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_file(path)
        try:
            temporary.write_bytes(_png(picture))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
