"""Time a bundle's engine on this machine, without a camera.

    python examples/engine_speed.py runs/latest/bundle --precision int8

Feeds noise: the graph does the same work whatever it sees. Reading a camera and drawing are not
in the times.
"""

import argparse
from time import perf_counter

import numpy as np

import hvq_edge


def main() -> None:
    """Print the median and the 99th percentile of one frame's latency."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", help="folder that hvq-edge export wrote")
    parser.add_argument("--precision", default="auto", help="fp32, int8, ... (default: auto)")
    parser.add_argument("--backend", default="auto", help="openvino, onnxruntime (default: auto)")
    parser.add_argument("--category", help="needed when the graph takes the category as an input")
    parser.add_argument("--frames", type=int, default=200, help="frames to time (default: 200)")
    arguments = parser.parse_args()

    with hvq_edge.open_engine(
        arguments.bundle,
        precision=arguments.precision,
        backend=arguments.backend,
        category=arguments.category,
    ) as engine:
        shape = (1, *engine.info.frame_shape, 3)
        frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        for _ in range(10):  # the first calls set up memory and threads
            engine.run(frame)
        milliseconds = []
        for _ in range(arguments.frames):
            start = perf_counter()
            engine.run(frame)
            milliseconds.append((perf_counter() - start) * 1e3)
        info = engine.info
    median, slow = np.percentile(milliseconds, [50, 99])
    print(f"{info.precision} on {info.backend}, {info.device}")
    print(f"{arguments.frames} frames: median {median:.2f} ms, 99th percentile {slow:.2f} ms")


if __name__ == "__main__":
    try:
        main()
    except hvq_edge.HvqEdgeError as error:
        raise SystemExit(str(error)) from None
