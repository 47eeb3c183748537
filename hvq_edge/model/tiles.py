"""Cuts frames into tiles before the network, and puts together what becomes of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hvq_edge.run.tiling import GRID_STRIDE, Tiling


class Tiles(nn.Module):
    """Cuts frames into tiles and puts together what becomes of them; of one tile, nothing to do.

    Args:
        tiling: how a frame is cut.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, tiling: Tiling) -> None:
        super().__init__()
        self.tiling = tiling
        if tiling.count > 1:
            rows, columns = map(torch.from_numpy, tiling.blends())
            columns = columns.T.contiguous()  # a graph may transpose no constant
            self.register_buffer("rows", rows, persistent=False)
            self.register_buffer("columns", columns, persistent=False)

    def cut(self, frames: Tensor) -> Tensor:
        """``[b, height, width, 3]`` -> ``[b * tiles, side, side, 3]``; of several, float32."""
        if self.tiling.count == 1:
            return frames
        frames = frames.float()  # a uint8 is read by a cast alone: TensorRT cuts none
        side = self.tiling.side
        corners = [(GRID_STRIDE * top, GRID_STRIDE * left) for top, left in self.tiling.corners()]
        tiles = [frames[:, top : top + side, left : left + side] for top, left in corners]
        return torch.stack(tiles, dim=1).flatten(0, 1)

    def join(self, of_tiles: Tensor) -> Tensor:
        """Put tokens of an image together, ``[b * tiles, l, c]`` -> ``[b, tiles * l, c]``."""
        if self.tiling.count == 1:
            return of_tiles
        joined: Tensor = of_tiles.unflatten(0, (-1, self.tiling.count)).flatten(1, 2)
        return joined

    def split(self, of_images: Tensor) -> Tensor:
        """Undo :meth:`join`."""
        if self.tiling.count == 1:
            return of_images
        tiles: Tensor = of_images.unflatten(1, (self.tiling.count, -1)).flatten(0, 1)
        return tiles

    def stitch(self, tokens: Tensor) -> Tensor:
        """Make one map of a value for each token, ``[..., tokens]`` -> ``[..., rows, columns]``."""
        tiling, grid = self.tiling, self.tiling.grid
        if tiling.count == 1:
            whole: Tensor = tokens.unflatten(-1, (grid, grid))
            return whole
        maps = tokens.unflatten(-1, (tiling.rows, tiling.columns, grid, grid)).transpose(-3, -2)
        maps = maps.flatten(-4, -3).flatten(-2)
        stitched: Tensor = self.rows.to(maps) @ maps @ self.columns.to(maps)
        return stitched
