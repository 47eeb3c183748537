"""Why an image scores what it scores, region by region.

Of each region: the cell of the map that stands for it, the codes and the prototype that this cell
is nearest to, and how much of the score each part of the map gave.

The score is the highest average of the enlarged map over 16x16 pixels, less the level that is left
out; enlarging, averaging and adding up the map's parts are linear. So each part's share of a
window is that average of the part alone, and the shares add up to the score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.heat_map import CELL, upsample_map, window_means
from hvq_edge.data.images import fit_image
from hvq_edge.errors import ImageError
from hvq_edge.explain.exemplars import (
    Cells,
    CodebookUse,
    Exemplar,
    Exemplars,
    exemplars_of_bundle,
)
from hvq_edge.predict.result import Result
from hvq_edge.runtime.engine import Frames
from hvq_edge.verdict.decision import Decision
from hvq_edge.verdict.regions import Region

MAP, LEVEL, ROUNDING = "map", "level left out", "rounding"
"""Shares besides the map's parts. ``map``: the parts together, where they are not known apart.
``rounding``: by how much the engine that judged differs from the float32 model."""

_NO_PARTS = (
    "which part of the map gave which part of the score, and the nearest feature prototype: a "
    "bundle does not tell them; hvq-edge explain does, with the run that the bundle came from"
)

_NO_EXEMPLARS = (
    "missing: cells of good images that stand for a code, and how many good cells choose it. The "
    "bundle carries no exemplars, which are images of the product: hvq-edge export --exemplars "
    "puts them into it; hvq-edge explain --run RUN takes them from the run that it came from"
)

_NO_REGIONS = "no region is above the threshold; the place shown is that of the highest score"


class Insight(Protocol):
    """Where it is known from: a run, or a bundle that carries exemplars."""

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of what it can tell of."""
        ...

    def cells(self, fitted: Frames, decision: Decision) -> Cells:
        """Take an image's map apart.

        Args:
            fitted: uint8 ``[height, width, 3]``, RGB.
            decision: on it.
        """
        ...

    def exemplars(self, category: str) -> Exemplars | None:
        """Return the exemplars of a category; ``None``: there are none."""
        ...


@dataclass(frozen=True, eq=False)
class Likeness:
    """What a cell is nearest to in one codebook."""

    name: str
    """Of the codebook: ``level 0`` and so on, ``top``, ``prototypes``."""
    code: int
    distance: float | None
    """``None``: not known."""
    codebook: CodebookUse | None
    """How good images use it; ``None``: not known."""

    @property
    def share(self) -> float | None:
        """Share of good images' cells that choose this code; ``None``: not known."""
        return None if self.codebook is None else self.codebook.share(self.code)

    @property
    def usual(self) -> float | None:
        """Median distance of these cells; ``None``: there are none."""
        book = self.codebook
        used = book is not None and book.usage[self.code]
        return float(book.usual[self.code]) if book is not None and used else None

    @property
    def exemplars(self) -> list[Exemplar]:
        """Cells of good images that stand for the code, the nearest first."""
        return [] if self.codebook is None else self.codebook.of(self.code)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "codebook": self.name,
            "code": self.code,
            "share_of_good_cells": self.share,
            "distance": self.distance,
            "usual_distance": self.usual,
            "exemplars": [
                {"image": one.image, "cell": one.token, "distance": one.distance}
                for one in self.exemplars
            ],
        }


@dataclass(frozen=True, eq=False)
class Place:
    """A place of the image that is explained."""

    region: Region | None
    """Of the verdict; ``None``: the place of the highest score in an image without regions."""
    box: tuple[int, int, int, int]
    """Left, top, width and height in pixels of the image: the region's, or the window's."""
    score: float
    """What the image would score for this place alone; of the first place, its score."""
    shares: Mapping[str, float]
    """What gave that: they add up to :attr:`score`."""
    token: int
    """The cell that is shown: of those in the middle of the window that with the highest map."""
    nearest: tuple[Likeness, ...]
    """In the order of the codebooks."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why an image scores what it scores."""

    result: Result
    size: tuple[int, int]
    """Height and width of the image that was judged: the result may hold it smaller."""
    fitted: Frames
    """uint8 ``[height, width, 3]``: the image as the model saw it."""
    places: tuple[Place, ...]
    """The highest score first."""
    exemplars: Exemplars | None
    """``None``: there are none."""
    notes: tuple[str, ...]
    """What is missing, and why."""

    def to_dict(self) -> dict[str, Any]:
        """Return all but the pictures as JSON values."""
        return {
            **self.result.to_dict(),
            "places": [
                {
                    "box": list(place.box),
                    "score": place.score,
                    "shares": dict(place.shares),
                    "cell": place.token,
                    "nearest": [one.to_dict() for one in place.nearest],
                }
                for place in self.places
            ],
            "exemplars": {
                "images_looked_at": self.exemplars.looked_at if self.exemplars else 0,
                "images": list(self.exemplars.sha256) if self.exemplars else [],
            },
            "notes": list(self.notes),
        }


class BundleInsight:
    """What a bundle alone tells: codes of its graph, and the exemplars that it carries, if any."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._read: dict[str, Exemplars | None] = {}

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of what it can tell of."""
        return self._bundle.manifest.categories

    def cells(self, fitted: Frames, decision: Decision) -> Cells:  # noqa: ARG002  # as a run does
        """Return the codes that the engine gave; what else there is does not leave its graph."""
        if decision.codes is None:
            return Cells(parts={}, codes={}, distances={})
        codes = decision.codes[:, self._bundle.manifest.tiling.tokens_of_cells()]
        names = (*(f"level {level}" for level in range(len(codes) - 1)), "top")
        return Cells(parts={}, codes=dict(zip(names, codes, strict=True)), distances={})

    def exemplars(self, category: str) -> Exemplars | None:
        """Return the exemplars that the bundle carries; ``None``: it carries none.

        Raises:
            BundleError: they are not its own.
        """
        if category not in self._read:
            self._read[category] = exemplars_of_bundle(self._bundle, category)
        return self._read[category]


def explain(result: Result, insight: Insight, size: tuple[int, int] | None = None) -> Explanation:
    """Say why an image scores what it scores.

    Args:
        result: what was said of it.
        insight: of the model that judged.
        size: height and width of the image that was judged, where the result holds it smaller.

    Raises:
        ImageError: it was not judged.
        BundleError: a bundle carries exemplars that are not its own.
        DatasetError: exemplars have to be made, and training images are missing or changed.
    """
    anomaly_map, score, category = result.map, result.score, result.category
    if result.image is None or anomaly_map is None or score is None or category is None:
        raise ImageError(
            f"{result.name or 'the image'} has no score to explain: {result.reason}.",
            next_step="see that the image is like those the model was trained with",
        )
    if category not in insight.categories:
        raise ImageError(
            f"{result.name or 'the image'} has no score to explain: it was judged as {category}.",
            next_step="name the run that the bundle was exported from with --run RUN",
        )
    exemplars = insight.exemplars(category)
    rows, columns = anomaly_map.shape
    fitted = fit_image(result.image, (rows * CELL, columns * CELL))
    cells = insight.cells(fitted, result.decision)
    height, width = size or result.image.shape[:2]
    windows = _Windows(anomaly_map, score, (height, width))
    places = tuple(
        _place(region, windows, cells, exemplars) for region in result.regions or (None,)
    )
    notes = [] if result.regions else [_NO_REGIONS]
    if not cells.parts:
        notes.append(f"missing: {_NO_PARTS}")
    if exemplars is None:
        notes.append(_NO_EXEMPLARS)
    return Explanation(result, (height, width), fitted, places, exemplars, tuple(notes))


class _Windows:
    """All windows of a map that the score is the highest of."""

    def __init__(
        self, anomaly_map: NDArray[np.float32], score: float, shape: tuple[int, ...]
    ) -> None:
        self.map = anomaly_map.astype(np.float64)
        height, width = (cells * CELL for cells in anomaly_map.shape)
        means = window_means(upsample_map(anomaly_map, height, width))
        self.level = float(means.max()) - score
        self.scores = means - self.level
        self.scale = shape[1] / width, shape[0] / height  # of x and y
        self._weights = tuple(_cells_in_windows(cells) for cells in anomaly_map.shape)

    def highest(self, region: Region | None) -> tuple[int, int]:
        """Return row and column of the window that gave a region its peak, or the score."""
        if region is None:
            row, column = np.unravel_index(self.scores.argmax(), self.scores.shape)
            return int(row), int(column)
        left, top, width, height = region.box
        rows = _reached(top / self.scale[1], (top + height) / self.scale[1], len(self.scores))
        columns = _reached(left / self.scale[0], (left + width) / self.scale[0], len(self.scores))
        off = np.abs(self.scores[rows, columns] - region.peak)
        row, column = np.unravel_index(off.argmin(), off.shape)
        return int(row) + rows.start, int(column) + columns.start

    def weights(self, row: int, column: int) -> NDArray[np.float64]:
        """Return how much each cell counts in a window, ``[rows, columns]``; the sum is 1."""
        down, across = self._weights
        return np.outer(down[row], across[column])

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return a window in pixels of the image."""
        x, y = self.scale
        left, top = round(column * x), round(row * y)
        return left, top, round((column + CELL) * x) - left, round((row + CELL) * y) - top


def _cells_in_windows(cells: int) -> NDArray[np.float64]:
    """Return how much each cell of an axis counts in each window, ``[windows, cells]``."""
    enlarge = upsample_map(np.eye(cells), cells * CELL, cells).astype(np.float64)
    sums = np.cumsum(np.vstack([np.zeros(cells), enlarge]), 0)
    weights: NDArray[np.float64] = (sums[CELL:] - sums[:-CELL]) / CELL
    return weights


def _reached(first: float, last: float, windows: int) -> slice:
    """Return the windows that a span of pixels lies in, along one axis."""
    start = max(int(np.floor(first)) - CELL + 1, 0)
    return slice(min(start, windows - 1), max(min(int(np.ceil(last)), windows), 1))


def _place(
    region: Region | None, windows: _Windows, cells: Cells, exemplars: Exemplars | None
) -> Place:
    books = {} if exemplars is None else {book.name: book for book in exemplars.codebooks}
    row, column = windows.highest(region)
    weights = windows.weights(row, column)
    score = float(windows.scores.max()) if region is None else region.peak
    shares = {name: float((weights * part).sum()) for name, part in cells.parts.items()}
    shares = shares or {MAP: score + windows.level}
    shares[LEVEL] = -windows.level
    if cells.parts:
        shares[ROUNDING] = score - sum(shares.values())
    middle = weights >= 0.5 * weights.max()
    token = int(np.where(middle, windows.map, -np.inf).argmax())
    return Place(
        region=region,
        box=windows.box(row, column) if region is None else region.box,
        score=score,
        shares=shares,
        token=token,
        nearest=tuple(
            Likeness(
                name,
                int(codes[token]),
                float(cells.distances[name][token]) if cells.distances else None,
                books.get(name),
            )
            for name, codes in cells.codes.items()
        ),
    )
