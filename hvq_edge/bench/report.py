"""The content of ``bench.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from hvq_edge.bench.rounds import Seconds, ratios
from hvq_edge.common.records import Strict, read_record
from hvq_edge.errors import InputError

BENCH_NAME = "bench.json"
"""The report's file in the bundle's folder."""


class Ratio(Strict):
    """How many times faster than the reference, within the same rounds."""

    low: float
    """10th percentile over the rounds."""
    median: float
    high: float
    """90th percentile."""


class Timing(Strict):
    """One entrant at one batch size."""

    name: str
    batch: int
    runs: int
    p50: float
    """Milliseconds of a batch: percentiles over the runs, as the next three."""
    p90: float
    p95: float
    p99: float
    images_a_second: float
    ratio: Ratio


class Resources(Strict):
    """What one entrant takes beside time."""

    device: str
    peak_memory_mb: float | None = None
    """10^6 bytes of its process, Python and libraries included; ``None``: not measured."""
    watts: float | None = None
    """Mean power of the whole board while it works; ``None``: no Jetson."""
    joules_a_image: float | None = None
    """Energy of an image at batch 1."""


class BenchReport(Strict):
    """A benchmark of one bundle on one machine."""

    format: Literal["hvq-edge-bench/1"] = "hvq-edge-bench/1"
    hvq_edge_version: str
    created: str
    """ISO 8601, UTC."""
    bundle: str
    machine: str
    cpus: int
    threads: int | None
    load_before: float
    """Processes that wanted the processor in the minute before."""
    rounds: int
    reference: str
    timings: tuple[Timing, ...]
    """By batch, then in the order of the entrants."""
    resources: dict[str, Resources]
    """What each entrant takes, by its name."""
    idle_watts: float | None = None
    failures: dict[str, str] = Field(default={})
    """Why an entrant, or one of its batches, has no times."""
    warnings: tuple[str, ...] = ()

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes with times."""
        return tuple(dict.fromkeys(timing.batch for timing in self.timings))


def read_bench(path: Path) -> BenchReport:
    """Read ``bench.json`` of this version.

    Raises:
        InputError: it cannot be read, or is of another version.
    """
    return read_record(
        path, BenchReport, InputError, kind="a benchmark", next_step="run hvq-edge bench again"
    )


def timing_of(name: str, batch: int, seconds: Seconds, reference: Seconds) -> Timing:
    """Sum up the times of one entrant at one batch size.

    Args:
        name: the entrant's name.
        batch: images in a call.
        seconds: seconds of its calls.
        reference: seconds of the reference's calls, in the same rounds.
    """
    p50, p90, p95, p99 = (1e3 * float(v) for v in np.percentile(seconds, [50, 90, 95, 99]))
    low, middle, high = ratios(reference, seconds)
    return Timing(
        name=name,
        batch=batch,
        runs=seconds.size,
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        images_a_second=1e3 * batch / p50,
        ratio=Ratio(low=low, median=middle, high=high),
    )
