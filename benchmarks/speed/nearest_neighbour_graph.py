"""The nearest-neighbour baseline as an ONNX file, to time beside ours.

::

    python -m benchmarks.speed.nearest_neighbour_graph RUN --category NAME --out peer.onnx
    hvq-edge bench RUN/bundle --peers peer.onnx

Backbone, taps and grid are those of the run, so that only the method differs. It serves one
category.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from benchmarks.accuracy.nearest_neighbour import MEMORY, Memory, fit_memory
from hvq_edge.errors import HvqEdgeError, InputError
from hvq_edge.export.graph.onnx_graph import OPSET, clean
from hvq_edge.model.checkpoint import load_run
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.training.features import cache_features


class NearestNeighbour(nn.Module):
    """From uint8 frames to a map and a score.

    Args:
        model: its backbone, taps and score window are used.
        memory: of the category, on the CPU.
    """

    def __init__(self, model: HVQTrans, memory: Memory) -> None:
        super().__init__()
        self.model = model
        self.mean, self.std = nn.Buffer(memory.mean), nn.Buffer(memory.std)
        self.vectors = nn.Buffer(memory.vectors)
        self.pooled = memory.pooled
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 ``[b, side, side, 3]`` -> score ``[b]``, map ``[b, grid, grid]``."""
        raw = self.model.raw_features(frames)
        memory = Memory(self.mean, self.std, self.vectors, self.pooled)
        anomaly_map = memory.distance(raw)
        window = self.model.score_window
        return (window @ anomaly_map @ window.T).amax((1, 2)), anomaly_map


def export_memory(model: HVQTrans, memory: Memory, path: Path) -> None:
    """Write the graph: input ``frames``, outputs ``score`` and ``map``."""
    side = model.settings.input_side
    frames = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        NearestNeighbour(model, memory),
        (frames,),
        dynamo=True,
        input_names=["frames"],
        output_names=["score", "map"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    clean(proto)
    onnx.save(proto, path)


def memory_of(run: Path, category: str, vectors: int) -> tuple[HVQTrans, Memory]:
    """Return a run's model, and the memory of its good training images of a category.

    Raises:
        InputError: no such category, or the run has no images of it.
    """
    model, record = load_run(run)
    own = [p for p in record.images if p.use == "fit" and p.category == category]
    if record.data is None or not own:
        raise InputError(
            f"{run} has no training images of {category!r}.",
            next_step=f"name one of {', '.join(record.categories)}",
        )
    with tempfile.TemporaryDirectory() as scratch:
        features, _ = cache_features(
            Path(scratch), model, Path(record.data), own, record.backbone_weights
        )
        memory = fit_memory(np.array(features), vectors=vectors)
    return model, memory


def main(arguments: list[str] | None = None) -> int:
    """Write the file; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--category", required=True)
    parser.add_argument("--vectors", type=int, default=MEMORY)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        model, memory = memory_of(options.run, options.category, options.vectors)
    except HvqEdgeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    export_memory(model, memory, options.out)
    print(f"{options.out}: {len(memory.vectors)} vectors of {options.category}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
