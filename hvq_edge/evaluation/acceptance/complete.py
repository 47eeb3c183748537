"""Do what an acceptance report asks for, as far as commands alone can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hvq_edge.bench.chart import write_bench
from hvq_edge.bench.entrants import entrants_of
from hvq_edge.bench.measure import run_benchmark
from hvq_edge.bench.report import BENCH_NAME
from hvq_edge.common.extras import needed
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.errors import HvqEdgeError, MissingCapability
from hvq_edge.evaluation.acceptance.acceptance import Acceptance, Step, collect
from hvq_edge.evaluation.evaluate_target import evaluate_target
from hvq_edge.run.record import recorded_data
from hvq_edge.runtime.cuda.device import cuda_device

_ORDER = ("verify", "eval", "bench")
"""What verify finds decides which precision runs; bench is worth most when all else is done."""


@dataclass(frozen=True)
class NotDone:
    """What could not be done here."""

    what: str
    why: str
    remedy: str = ""


@dataclass(frozen=True)
class Completion:
    """What was done for a report, and what was not."""

    done: tuple[Step, ...]
    not_done: tuple[NotDone, ...]


def complete(
    target: Path,
    data: Path | None = None,
    run: Path | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
    on_progress: ProgressCallback = silent,
) -> Completion:
    """Measure what an acceptance report would name as not measured.

    Each step leaves its file when it is done, so a second call goes on where the first was stopped,
    and what is there is not done again.

    Args:
        target: a bundle's folder, or the run's that has it.
        data: test images; ``None``: those of the run.
        run: that the bundle came from; ``None``: the folder it stands in.
        on_step: told before each step.
        on_progress: called within every step.

    Raises:
        BundleError: no bundle there.
    """
    found = collect(target)
    steps = {one.closed_by for one in found.open_points if one.closed_by is not None}
    precisions = list(found.bundle.manifest.models)
    done, not_done = [], []
    for step in sorted(
        steps,
        key=lambda one: (
            _ORDER.index(one.command),
            precisions.index(one.precision) if one.precision else 0,
        ),
    ):
        on_step(step)
        try:
            _carry_out(step, found, data, run, on_progress)
        except HvqEdgeError as error:
            not_done.append(NotDone(str(step), error.cause, error.next_step))
        else:
            done.append(step)
    return Completion(tuple(done), (*not_done, *_without_gpu(collect(target))))


def _carry_out(
    step: Step,
    found: Acceptance,
    data: Path | None,
    run: Path | None,
    on_progress: ProgressCallback,
) -> None:
    bundle = found.bundle
    if step.command == "bench":
        report = run_benchmark(bundle, entrants_of(bundle), on_progress=on_progress)
        write_bench(report, bundle.path / BENCH_NAME)
        return
    if data is None and run is not None:
        data = recorded_data(run)
    if step.command == "verify":
        with needed("verify", "train"):
            from hvq_edge.export.verify.verify import verify_bundle
        run = run or bundle.path.resolve().parent
        verify_bundle(bundle.path, run, data or recorded_data(run), on_progress=on_progress)
    elif step.precision is not None:
        evaluate_target(bundle.path, data, precision=step.precision, on_progress=on_progress)


def _without_gpu(found: Acceptance) -> Iterator[NotDone]:
    """Name engines for GPUs that nothing of this was measured on, and why."""
    missing = [] if found.verification is None else found.verification.not_run
    for one in missing:
        if not one.runner.startswith("TensorRT"):
            continue
        why, remedy = f"{one.reason}.", "run hvq-edge build, verify and bench, then report again"
        try:
            cuda_device()
        except MissingCapability as error:
            why = f"{why} {error.cause[:1].upper()}{error.cause[1:]}"
            remedy = f"on the machine with the GPU {remedy}"
        name = f"{one.precision or ''} {one.runner}".strip()
        yield NotDone(name, f"{why[:1].upper()}{why[1:]}", remedy)
