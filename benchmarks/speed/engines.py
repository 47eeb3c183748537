"""One image's latency on every engine of a bundle, side by side with the PyTorch model.

    python -m benchmarks.speed.engines runs/demo

A short form of ``hvq-edge bench`` with two threads for every engine. Rounds are interleaved
(:mod:`hvq_edge.bench.rounds`). Printed: the median in milliseconds, and the ratio to PyTorch as the
median of the rounds' own ratios with their 10th and 90th percentile.
"""

import argparse
from pathlib import Path

from hvq_edge.bench.entrants import entrants_of
from hvq_edge.bench.measure import run_benchmark
from hvq_edge.bundle.manifest import open_bundle


def main() -> None:
    """Time all engines and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a run with a bundle")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    bundle = open_bundle(arguments.run / "bundle")
    entrants = entrants_of(
        bundle,
        run=arguments.run,
        backends=["torch", "onnxruntime", "openvino"],
        precisions=list(bundle.manifest.models),
        threads=arguments.threads,
    )
    report = run_benchmark(bundle, entrants, batches=[1], rounds=arguments.rounds, memory=False)
    print(f"{report.resources[report.reference].device}, {arguments.threads} threads, batch 1")
    for warning in report.warnings:
        print(f"warning: {warning}")
    print(f"{'engine':<20}{'median ms':>10}{'times PyTorch':>15}{'10 % .. 90 %':>16}")
    for one in report.timings:
        ratio = one.ratio
        print(
            f"{one.name:<20}{one.p50:>10.1f}{ratio.median:>15.2f}"
            f"{ratio.low:>9.2f} ..{ratio.high:5.2f}"
        )


if __name__ == "__main__":
    main()
