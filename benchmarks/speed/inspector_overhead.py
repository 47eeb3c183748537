"""What the inspector costs on top of its engine, side by side over the same frames.

    python -m benchmarks.speed.inspector_overhead runs/latest/bundle --video parts.avi

Both ways judge the same images from memory, in turns, so that a busy machine slows both: the
engine alone on frames that are fitted already, one at a time, and the inspector from images to
decisions with its capture threads, queues, checks, statistics and rule. What is reported is the
median of the rounds' ratios. Reading a camera or a file is in neither.

With several cameras the images are shared out among them, and what all of them have ready is one
batch; then the ratio to one camera is printed too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.opened import open_bundle
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

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        self._images = images

    def __iter__(self) -> Iterator[Frame]:
        """Give one frame an image."""
        for index, image in enumerate(self._images):
            yield arrived(index, image)

    def close(self) -> None:
        """Nothing is left to do."""


class Taken(NamedTuple):
    """What all frames took."""

    seconds: float
    processor: float
    """Seconds of all threads: what other programs do hardly changes it."""


def engine_alone(engine: Engine, fitted: list[NDArray[np.uint8]]) -> Taken:
    """Judge all frames, one at a time."""
    began = perf_counter(), process_time()
    for frame in fitted:
        engine.run(frame[np.newaxis])
    return Taken(perf_counter() - began[0], process_time() - began[1])


def inspected(inspector: Inspector) -> Taken:
    """Inspect from the first image to the last decision."""
    began = perf_counter(), process_time()
    for _decision in inspector:
        pass
    return Taken(perf_counter() - began[0], process_time() - began[1])


def main() -> None:
    """Print both times a frame and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="folder that hvq-edge export wrote")
    parser.add_argument("--video", required=True, help="video file or folder of images")
    parser.add_argument("--frames", type=int, default=200, help="of the video, at most")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cameras", default="1", help="numbers of cameras, such as 1,2,4,8")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--backend", default="auto")
    arguments = parser.parse_args()
    cameras = [int(count) for count in arguments.cameras.split(",")]

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
        engine.run(np.stack([fitted[0]] * max(cameras)))  # and compile the graph for batches
        alone: list[Taken] = []
        taken: dict[int, list[Taken]] = {count: [] for count in cameras}
        stages: dict[str, float | None] = {}
        for _ in range(arguments.rounds):
            alone.append(engine_alone(engine, fitted))
            for count in cameras:
                sources = [Memory(images[number::count]) for number in range(count)]
                inspector = Inspector(engine, bundle, sources)
                taken[count].append(inspected(inspector))
                found = inspector.statistics().stages
                stages = {name: histogram.percentile(50) for name, histogram in found.items()}
        info = engine.info
    height, width = images[0].shape[:2]
    print(f"{info.precision} on {info.backend}, {info.device}; images of {width}x{height}")
    print(f"engine alone  {a_frame(alone, len(images))}")
    for count, times in taken.items():
        named = f"inspector, {count} camera{'s' * (count > 1)}"
        print(f"{named}  {a_frame(times, len(images))}")
        print(f"  overhead {percents(times, alone)}")
        if count != cameras[0]:
            print(f"  beside {cameras[0]} camera {percents(times, taken[cameras[0]])}")
    print(f"{arguments.rounds} rounds of {len(images)} frames")
    print(
        "p50 of each stage in the last round: "
        + ", ".join(f"{name} {value or 0:.3f} ms" for name, value in stages.items())
    )


def a_frame(times: Sequence[Taken], frames: int) -> str:
    """Return the medians of both times for one frame."""
    seconds, processor = np.median(times, axis=0) * 1e3 / frames
    return f"{seconds:.3f} ms a frame, processor time {processor:.3f} ms"


def percents(times: Sequence[Taken], others: Sequence[Taken]) -> str:
    """Return by how much times are above others of the same rounds, with quartiles."""
    said = []
    for name, ratios in zip(Taken._fields, (np.array(times) / np.array(others)).T, strict=True):
        low, middle, high = 100 * (np.percentile(ratios, [25, 50, 75]) - 1)
        said.append(f"{name} {middle:+.1f} % (quartiles {low:+.1f} to {high:+.1f} %)")
    return ", ".join(said)


if __name__ == "__main__":
    main()
