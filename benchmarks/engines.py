"""One picture's latency on every engine of a bundle, side by side with the PyTorch model.

    python benchmarks/engines.py runs/demo

Rounds are interleaved, so that a busy moment of the machine meets every engine: in each round each
engine runs one picture untimed, which wakes its threads and lets the others' go to sleep, and then
a few timed. Printed: the median in milliseconds, and the ratio to PyTorch as the median of the
rounds' own ratios with their 10th and 90th percentile.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import numpy as np

import hvq_edge

REFERENCE = "PyTorch fp32"
PICTURES_A_ROUND = 5


def main() -> None:
    """Time all engines and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a run with a bundle of category mode auto or one")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    bundle = arguments.run / "bundle"
    precisions = sorted(path.name.split(".")[1] for path in bundle.glob("model.*.onnx"))
    with ExitStack() as stack:

        def opened(target: Path, **choice: str):  # noqa: ANN202
            engine = hvq_edge.open_engine(target, threads=arguments.threads, **choice)
            return stack.enter_context(engine)

        engines = {REFERENCE: opened(arguments.run)}
        for precision in precisions:
            for backend in ("onnxruntime", "openvino"):
                name = f"{backend} {precision}"
                engines[name] = opened(bundle, precision=precision, backend=backend)
        side = engines[REFERENCE].info.input_side
        frame = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        seconds = {name: np.empty(arguments.rounds) for name in engines}
        for _ in range(5):
            for engine in engines.values():
                engine.run(frame)
        for i in range(arguments.rounds):
            for name, engine in engines.items():
                engine.run(frame)
                timed = []
                for _ in range(PICTURES_A_ROUND):
                    start = perf_counter()
                    engine.run(frame)
                    timed.append(perf_counter() - start)
                seconds[name][i] = np.median(timed)
        print(f"{engines[REFERENCE].info.device}, {arguments.threads} threads, batch 1")
    print(f"{'engine':<20}{'median ms':>10}{'times PyTorch':>15}{'10 % .. 90 %':>16}")
    for name, values in seconds.items():
        ratio = seconds[REFERENCE] / values
        low, middle, high = np.percentile(ratio, [10, 50, 90])
        print(f"{name:<20}{np.median(values) * 1e3:>10.1f}{middle:>15.2f}{low:>9.2f} ..{high:5.2f}")


if __name__ == "__main__":
    main()
