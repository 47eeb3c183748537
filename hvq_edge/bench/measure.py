"""A benchmark: entrants are timed side by side, and a report comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib.metadata import version
from time import perf_counter, sleep

from hvq_edge.bench.entrants import Entrant, Opened, call_of
from hvq_edge.bench.report import BenchReport, Resources, Timing, timing_of
from hvq_edge.bench.resources import peak_megabytes, watts_while
from hvq_edge.bench.rounds import WARM_UPS, time_rounds
from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.errors import HvqEdgeError, SettingsError
from hvq_edge.runtime.cpu.processor import load_average, processor_name, usable_cpus

ROUNDS = 20
BATCHES = (1, 4, 8)
BUSY = 0.25
"""Above this load per processor, times are worth little."""


def run_benchmark(
    bundle: Bundle,
    entrants: Sequence[Entrant],
    *,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    memory: bool = True,
    clock: Callable[[], float] = perf_counter,
    on_progress: ProgressCallback = silent,
) -> BenchReport:
    """Time entrants side by side. The first that opens is the reference.

    Args:
        bundle: named in the report.
        entrants: at least one.
        batches: batch sizes.
        rounds: rounds for each batch size.
        memory: measure peak memory too, each entrant in a process of its own.
        clock: gives the time in seconds.
        on_progress: called within every stage.

    Raises:
        SettingsError: no entrant, batch or round.
        HvqEdgeError: none of the entrants could be opened: what the first one raised.
    """
    if not entrants or not batches or min(batches) < 1 or rounds < 1:
        raise SettingsError(
            "a benchmark needs at least one engine, batch size and round.",
            next_step="see hvq-edge bench --help",
        )
    load = load_average()
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        opened = _open(entrants, stack, failures)
        timings: list[Timing] = []
        for batch in batches:
            calls = _calls(opened, batch, failures)
            if not calls:
                continue
            seconds = time_rounds(
                calls,
                rounds,
                warm_ups=0,
                clock=clock,
                stage=f"batch {batch}",
                on_progress=on_progress,
            )
            reference = next(iter(seconds.values()))
            timings += [timing_of(name, batch, times, reference) for name, times in seconds.items()]
        idle = watts_while(lambda: sleep(0.1))
        watts = {
            name: None if idle is None else watts_while(call_of(one, 1))
            for name, one in opened.items()
        }
        devices = {name: _device(one) for name, one in opened.items()}
    resources = {}
    for done, entrant in enumerate((e for e in entrants if e.name in devices), start=1):
        single = next((t for t in timings if t.name == entrant.name and t.batch == 1), None)
        power = watts[entrant.name]
        resources[entrant.name] = Resources(
            device=devices[entrant.name],
            peak_memory_mb=peak_megabytes(entrant) if memory else None,
            watts=power,
            joules_a_image=power * single.p50 / 1e3 if power and single else None,
        )
        if memory:
            on_progress("memory", done, len(devices))
    return BenchReport(
        hvq_edge_version=version("hvq-edge"),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        bundle=str(bundle.path.resolve()),
        machine=processor_name(),
        cpus=usable_cpus(),
        threads=entrants[0].threads,
        load_before=load,
        rounds=rounds,
        reference=next(iter(devices)),
        timings=tuple(timings),
        resources=resources,
        idle_watts=idle,
        failures=failures,
        warnings=busy_warning(load, usable_cpus()),
    )


def busy_warning(load: float, cpus: int) -> tuple[str, ...]:
    """Return a warning where other programs are at work.

    Args:
        load: the machine's load average of the last minute.
        cpus: processors that this process may use.
    """
    if load <= BUSY * cpus:
        return ()
    return (
        f"the machine was busy before the benchmark began (load {load:.1f} on {cpus} processors): "
        "milliseconds are worth nothing then, and ratios little; stop other programs and run it "
        "again",
    )


def _open(
    entrants: Sequence[Entrant], stack: ExitStack, failures: dict[str, str]
) -> dict[str, Opened]:
    """Open all entrants; those that cannot be opened are failures.

    Raises:
        HvqEdgeError: none can be opened.
    """
    opened: dict[str, Opened] = {}
    first: HvqEdgeError | None = None
    for entrant in entrants:
        try:
            opened[entrant.name] = entrant.open()
        except HvqEdgeError as error:
            first = first or error
            failures[entrant.name] = error.cause
        else:
            stack.callback(opened[entrant.name].close)
    if not opened and first is not None:
        raise first
    return opened


def _calls(
    opened: Mapping[str, Opened], batch: int, failures: dict[str, str]
) -> dict[str, Callable[[], object]]:
    """Return warmed-up calls; an entrant that cannot run the batch is a failure of that batch."""
    calls = {}
    for name, one in opened.items():
        try:
            call = call_of(one, batch)
            for _ in range(WARM_UPS):
                call()
        except Exception as error:  # noqa: BLE001  # of any library: the others are timed
            cause = error.cause if isinstance(error, HvqEdgeError) else str(error)
            failures[f"{name}, batch {batch}"] = (cause.splitlines() or ["it failed"])[0]
        else:
            calls[name] = call
    return calls


def _device(opened: Opened) -> str:
    info = getattr(opened, "info", None)
    return str(info.device if info is not None else getattr(opened, "device", ""))
