"""One image's latency on every engine of a bundle, side by side with the PyTorch model.

    python -m benchmarks.speed.engines runs/demo

A short form of ``hvq-edge bench`` with two threads for every engine. Rounds are interleaved
(:mod:`hvq_edge.bench.rounds`). Printed: the median in milliseconds, and the ratio to PyTorch as the
median of the rounds' own ratios with their 10th and 90th percentile.
"""

import argparse
from pathlib import Path

from benchmarks.markdown_table import markdown_table
from hvq_edge.bench.entrants import entrants_of
from hvq_edge.bench.measure import run_benchmark
from hvq_edge.bundle.opened import open_bundle


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
    rows = []
    for one in report.timings:
        ratio = f"{one.ratio.median:.2f} ({one.ratio.low:.2f} .. {one.ratio.high:.2f})"
        rows.append([one.name, f"{one.p50:.1f}", ratio])
    print(f"\n{markdown_table(['engine', 'median ms', 'times PyTorch'], rows)}")


if __name__ == "__main__":
    main()
