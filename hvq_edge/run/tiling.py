"""How a large frame is cut into tiles that overlap, and how their maps become one.

Tiles are cut, judged as one batch and put together inside the graph: whatever runs it sees one
frame and one map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID_STRIDE = 16
"""Input pixels a side of one token: features are brought to the stride of the last backbone tap."""


FrameShape = tuple[int, int]
"""Height and width of a frame in pixels."""
FrameSize = int | FrameShape
"""Of a frame: its shape, or the side of a square one."""


def shape_of(size: FrameSize) -> FrameShape:
    """Return height and width in pixels."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class Tiling:
    """Tiles of a frame, row by row; one tile is the whole frame."""

    side: int
    """Of a tile, in pixels."""
    rows: int = 1
    columns: int = 1
    overlap: int = 0
    """Cells that neighbours share, so that cells of two tiles lie on one another."""

    def __str__(self) -> str:
        """Height x width of a frame in pixels, and the tiles if there are several."""
        shape = "x".join(map(str, self.frame_shape))
        return shape if self.count == 1 else f"{shape} (in {self.rows}x{self.columns} tiles)"

    @property
    def grid(self) -> int:
        """Cells a side of a tile."""
        return self.side // GRID_STRIDE

    @property
    def count(self) -> int:
        """Tiles."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        """Tokens of all tiles: a tile's stand together, row-major."""
        return self.count * self.grid**2

    @property
    def map_shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        step = self.grid - self.overlap
        return self.grid + (self.rows - 1) * step, self.grid + (self.columns - 1) * step

    @property
    def frame_shape(self) -> FrameShape:
        """Height and width of a frame in pixels."""
        rows, columns = self.map_shape
        return rows * GRID_STRIDE, columns * GRID_STRIDE

    def corners(self) -> list[tuple[int, int]]:
        """Return row and column of each tile's first cell."""
        step = self.grid - self.overlap
        return [
            (row * step, column * step)
            for row in range(self.rows)
            for column in range(self.columns)
        ]

    def blends(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the matrices that put maps of tiles together, one for each axis.

        Where tiles overlap, one fades into the other: no seam, and cells at a tile's border, which
        saw zeros beyond it, count least.

        Returns:
            ``[map rows, tile rows * grid]`` and ``[map columns, tile columns * grid]``; each row
            sums to 1.
        """
        return self._blend(self.rows), self._blend(self.columns)

    def _blend(self, tiles: int) -> NDArray[np.float32]:
        grid, step = self.grid, self.grid - self.overlap
        cell = np.arange(grid)
        fade = np.minimum(np.minimum(cell + 1, grid - cell), self.overlap + 1)
        matrix = np.zeros((grid + (tiles - 1) * step, tiles * grid))
        for tile in range(tiles):
            matrix[tile * step + cell, tile * grid + cell] = fade
        blend: NDArray[np.float32] = (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
        return blend

    def cells_of_tokens(self) -> NDArray[np.int64]:
        """Return which cell of the map each token lies on, ``[tokens]``, row-major."""
        cell = np.arange(self.grid)
        columns = self.map_shape[1]
        return np.concatenate(
            [
                ((top + cell[:, None]) * columns + left + cell).ravel()
                for top, left in self.corners()
            ]
        )

    def tokens_of_cells(self) -> NDArray[np.int64]:
        """Return the token that counts most in each cell of the map, ``[cells]``, row-major."""
        rows, columns = (blend.argmax(1) for blend in self.blends())
        tile = rows[:, None] // self.grid * self.columns + columns // self.grid
        own = rows[:, None] % self.grid * self.grid + columns % self.grid
        return np.asarray(tile * self.grid**2 + own).ravel()
