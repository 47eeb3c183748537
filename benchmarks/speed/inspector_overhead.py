"""What the inspector costs on top of its engine, side by side over the same frames.

    python -m benchmarks.speed.inspector_overhead runs/latest/bundle --video parts.avi

Both ways judge the same images from memory, in turns, so that a busy machine slows both: the
engine alone on frames that are fitted already, and the inspector from images to decisions with
its capture thread, queue, checks, statistics and rule. What is reported is the median of the
rounds' ratios. Reading a camera or a file is in neither.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.manifest import open_bundle
from hvq_edge.data.images import fit_image
from hvq_edge.runtime.engine import Engine
from hvq_edge.stream.inspection import open_stream_engine
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.sources.open_source import open_source
from hvq_edge.stream.sources.source import Frame, arrived


class Memory:
    """A source of images that are in memory already."""

    live = False
    frames_per_second = None
    name = "memory"

    def __init__(self, images: list[NDArray[np.uint8]]) -> None:
        self._images = images

    def __iter__(self) -> Iterator[Frame]:
        """Give one frame an image."""
        for index, image in enumerate(self._images):
            yield arrived(index, image)

    def close(self) -> None:
        """Nothing is left to do."""


def engine_alone(engine: Engine, fitted: list[NDArray[np.uint8]]) -> float:
    """Return the seconds that the engine takes for all frames, one at a time."""
    began = perf_counter()
    for frame in fitted:
        engine.run(frame[np.newaxis])
    return perf_counter() - began


def main() -> None:
    """Print both times a frame and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="folder that hvq-edge export wrote")
    parser.add_argument("--video", required=True, help="video file or folder of images")
    parser.add_argument("--frames", type=int, default=200, help="of the video, at most")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--backend", default="auto")
    arguments = parser.parse_args()

    bundle = open_bundle(arguments.bundle)
    source = open_source(arguments.video)
    images = []
    for frame in source:
        if frame.image is not None:
            images.append(frame.image)
        if len(images) == arguments.frames:
            source.close()
    precision, backend = arguments.precision, arguments.backend
    with open_stream_engine(bundle, precision=precision, backend=backend) as engine:
        fitted = [fit_image(image, engine.info.frame_shape) for image in images]
        engine_alone(engine, fitted[:20])  # the first calls set up memory and threads
        alone, inspected = [], []
        stages: dict[str, float | None] = {}
        for _ in range(arguments.rounds):
            alone.append(engine_alone(engine, fitted))
            inspector = Inspector(engine, bundle, Memory(images))
            began = perf_counter()
            for _decision in inspector:
                pass
            inspected.append(perf_counter() - began)
            found = inspector.statistics().stages
            stages = {name: histogram.percentile(50) for name, histogram in found.items()}
        info = engine.info
    ratios = np.array(inspected) / np.array(alone)
    to_ms = 1e3 / len(images)
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    height, width = images[0].shape[:2]
    print(f"{info.precision} on {info.backend}, {info.device}; images of {width}x{height}")
    print(f"engine alone  {np.median(alone) * to_ms:.3f} ms a frame")
    print(f"inspector     {np.median(inspected) * to_ms:.3f} ms a frame")
    print(
        f"overhead      {100 * (middle - 1):+.1f} % (quartiles {100 * (low - 1):+.1f} to "
        f"{100 * (high - 1):+.1f} %), {arguments.rounds} rounds of {len(images)} frames"
    )
    print(
        "p50 of each stage in the last round: "
        + ", ".join(f"{name} {value or 0:.3f} ms" for name, value in stages.items())
    )


if __name__ == "__main__":
    main()
