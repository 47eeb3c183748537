"""``hvq-edge bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.options import BundleArgument, BundleOption, JsonOption
from hvq_edge.run.latest import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.bench.report import BenchReport


def bench(
    bundle: BundleArgument = DEFAULT_BUNDLE,
    named: BundleOption = None,  # noqa: ARG001  # it is in the bundle
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            help="The run it came from, whose PyTorch model is the reference. Default: BUNDLE's "
            "parent, where it is that.",
            show_default=False,
        ),
    ] = None,
    backends: Annotated[
        str,
        typer.Option(
            "--backends",
            help="Separated by commas: torch, openvino, onnxruntime, tensorrt, tensorrt-rtx. "
            "Default: all that can run here.",
            show_default=False,
        ),
    ] = "",
    precisions: Annotated[
        str,
        typer.Option(
            "--precisions",
            help="Separated by commas. Default: fp32 and int8; for TensorRT what was built.",
            show_default=False,
        ),
    ] = "",
    batch: Annotated[
        str, typer.Option("--batch", help="Images of a call, separated by commas.")
    ] = "1,4,8",
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="For each batch size; engines take turns.")
    ] = 20,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Of one call. Default: each library's own choice."),
    ] = None,
    peers: Annotated[
        list[Path] | None,
        typer.Option(
            "--peers",
            metavar="FILE.onnx",
            help="Another graph with one image as input, such as an anomalib export. May be "
            "repeated.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Measure each engine's peak memory.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The JSON file; the image goes beside it. Default: bench.json in the bundle.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time all engines of this machine side by side.

    It shows percentiles, throughput, memory and ratios to PyTorch, and power where a Jetson's
    tegrastats tells it. Stop other programs first.
    """
    from hvq_edge.bench.chart import write_bench
    from hvq_edge.bench.entrants import entrants_of
    from hvq_edge.bench.measure import busy_warning, run_benchmark
    from hvq_edge.bench.report import BENCH_NAME
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.errors import SettingsError
    from hvq_edge.runtime.cpu.processor import load_average, usable_cpus
    from hvq_edge.runtime.open_engine import known_precisions

    sizes = [size.strip() for size in batch.split(",")]
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise SettingsError(
            f"batch sizes {batch!r} are not whole numbers.", next_step="give --batch 1,4,8"
        )
    opened = open_bundle(bundle)
    entrants = entrants_of(
        opened,
        run=run,
        backends=_listed(backends),
        precisions=[one for name in _listed(precisions) for one in known_precisions(name)],
        peers=peers or [],
        threads=threads,
    )
    for warning in busy_warning(load_average(), usable_cpus()):
        messages.print(f"Warning: {warning}.", markup=False, soft_wrap=True)
    with progress_bars() as bars:
        report = run_benchmark(
            opened,
            entrants,
            batches=list(dict.fromkeys(map(int, sizes))),
            rounds=rounds,
            memory=memory,
            on_progress=bars,
        )
    target = out or bundle / BENCH_NAME
    write_bench(report, target)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        results.print(bench_table(report))
        results.print(f"{target} and {target.with_suffix('.svg')}", markup=False, soft_wrap=True)
    for name, cause in report.failures.items():
        messages.print(f"Not timed: {name}: {cause}", markup=False, soft_wrap=True)
    for warning in report.warnings:
        messages.print(f"Warning: {warning}.", markup=False, soft_wrap=True)


def bench_table(report: BenchReport) -> Table:
    """Show times, a row an engine and batch, within 100 columns."""
    from rich.table import Table

    table = Table(
        title=f"{report.machine}, {report.cpus} processors; milliseconds of a batch",
        title_justify="left",
        box=None,
        padding=(0, 1),
        pad_edge=False,
    )
    table.add_column("engine", overflow="fold")
    power = any(one.watts is not None for one in report.resources.values())
    headings = ["batch", "p50", "p90", "p95", "p99", "a second", "× reference", "MB"]
    for heading in (*headings, *(["W", "J an image"] if power else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for timing in report.timings:
        resources, ratio = report.resources[timing.name], timing.ratio
        first = timing.batch == report.batches[0]
        peak = resources.peak_memory_mb
        row = [timing.name, str(timing.batch)]
        row += [f"{value:.1f}" for value in (timing.p50, timing.p90, timing.p95, timing.p99)]
        row.append(f"{timing.images_a_second:.1f}")
        row.append(
            "reference"
            if timing.name == report.reference
            else f"{ratio.median:.2f} ({ratio.low:.2f} … {ratio.high:.2f})"
        )
        row.append(f"{peak:.0f}" if first and peak is not None else "")
        if power:
            row.append(f"{resources.watts:.1f}" if first and resources.watts else "")
            joules = resources.joules_a_image
            row.append(f"{joules:.3f}" if first and joules else "")
        table.add_row(*row)
    return table


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
