"""Which engine is fastest for a bundle on this machine: timed once, then remembered.

Whether OpenVINO or ONNX Runtime is faster, and whether INT8 gains anything, depends on the
processor, the graph and the libraries' versions: no fixed order is right everywhere. So each
candidate judges a few frames of noise in interleaved rounds, and the medians are kept in the
user's cache folder, one readable JSON file for each combination of all that they depend on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Final, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field

from hvq_edge.bundle.manifest import Precision
from hvq_edge.common.atomic import write_text
from hvq_edge.common.cache_folder import default_cache
from hvq_edge.common.records import Strict, kept_record
from hvq_edge.errors import GateFailed, HvqEdgeError, OutputError
from hvq_edge.runtime.cpu.onnxruntime_providers import ONNXRUNTIME, PROVIDERS, provider_version
from hvq_edge.runtime.cpu.processor import processor_name, usable_cpus
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.tensorrt.engine_file import EngineBackend

logger = logging.getLogger(__name__)

GraphBackend = Literal[
    "openvino",
    "onnxruntime",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "onnxruntime-tensorrt-rtx",
]
"""Libraries that run a bundle's graph; of ONNX Runtime each provider for GPUs is one more."""
GRAPH_BACKENDS: tuple[GraphBackend, ...] = get_args(GraphBackend)
CPU_BACKENDS = tuple(one for one in GRAPH_BACKENDS if one not in PROVIDERS)
"""Those that need no GPU."""

TIME_LIMIT_S = 1.0
"""Seconds of timing for each candidate, opening and warming up not counted."""
SAME_SPEED = 1.05
"""Up to this ratio two medians count as equal: a smaller difference may change with the day."""

BUSY = 1.5
"""Load a processor above which times are not kept: they may have crowned the wrong engine."""

FORMAT: Final = "hvq-edge-engine-times/2"
"""In the files' names as well: those of an earlier version are not looked at."""
SETTLE_SECONDS = 0.06
"""Time that a library's threads take to fall asleep."""

_WARM_UPS = 2
_MOST_ROUNDS = 6
_TIMED_A_ROUND = 2
_CLEARLY_SLOWER = 1.5


class Candidate(NamedTuple):
    """A way to run a bundle."""

    backend: GraphBackend | EngineBackend
    precision: Precision

    def __str__(self) -> str:
        return f"{self.precision} on {self.backend}"


class MeasurementKey(Strict):
    """What times depend on: with another key, they are measured again."""

    models: dict[Precision, str]
    """SHA-256 of the graph of each precision that is a candidate."""
    versions: dict[str, str]
    """Versions of hvq-edge, which sets the libraries' options, and of each candidate's backend."""
    processor: str
    cpus: int
    """That this process may use."""
    threads: int | None
    """Threads of one call; ``None`` leaves them to the library."""
    engines: dict[EngineBackend, dict[Precision, str]]
    """SHA-256 of the plan of each engine for GPUs that is a candidate."""
    gpu: str | None
    """Name and driver of the GPU, where such engines are candidates."""
    answers: str | None = None
    """SHA-256 of the bundle's known answers, which put out a candidate that computes wrongly."""
    without: tuple[str, ...] = ()
    """Of these graphs on these backends, those that are no candidates."""


@dataclass(frozen=True)
class Measurement:
    """Times of candidates, and why others have none."""

    milliseconds: Mapping[Candidate, float]
    """Median for one image; not empty, in the candidates' order."""
    failures: Mapping[Candidate, Exception] = field(default_factory=dict)

    def fastest(self) -> Candidate:
        """Return the first candidate that none beats by more than :data:`SAME_SPEED`."""
        limit = SAME_SPEED * min(self.milliseconds.values())
        return next(one for one, time in self.milliseconds.items() if time <= limit)

    def __str__(self) -> str:
        """All of it in words, the fastest first."""
        ranked = sorted(self.milliseconds.items(), key=lambda pair: pair[1])
        (first, least), *others = ranked
        words = [f"{first}: {least:.1f} ms an image", *(f"{one} {t:.1f}" for one, t in others)]
        return "; ".join((f"{', '.join(words)} (measured on this machine)", *self.failed()))

    def failed(self) -> list[str]:
        """Return in words which candidates have no time, each with its cause."""
        return [f"{one} failed: {_cause(error)}" for one, error in self.failures.items()]


def key_for(
    models: Mapping[Precision, str],
    backends: Sequence[str],
    threads: int | None,
    *,
    engines: Mapping[EngineBackend, Mapping[Precision, str]] | None = None,
    engine_versions: Mapping[EngineBackend, str] | None = None,
    gpu: str | None = None,
    answers: str | None = None,
    without: Sequence[Candidate] = (),
) -> MeasurementKey:
    """Return the key of a measurement on this machine.

    Args:
        models: SHA-256 of the graph of each candidate precision.
        backends: names of the candidate backends' modules, which are not imported.
        threads: of one call; ``None`` leaves it to the library.
        engines: SHA-256 of the plan of each candidate engine.
        engine_versions: of those engines' libraries.
        gpu: that they run on, and its driver.
        answers: SHA-256 of the bundle's known answers.
        without: of these graphs on these backends, those that are no candidates.
    """
    versions = {name: _version_of(name) for name in ("hvq_edge", *backends)}
    return MeasurementKey(
        models=dict(models),
        versions={**versions, **(engine_versions or {})},
        processor=processor_name(),
        cpus=usable_cpus(),
        threads=threads,
        engines={backend: dict(plans) for backend, plans in (engines or {}).items()},
        gpu=gpu,
        answers=answers,
        without=tuple(map(str, without)),
    )


def measure(
    candidates: Sequence[Candidate],
    opener: Callable[[Candidate], Engine],
    *,
    time_limit: float = TIME_LIMIT_S,
    clock: Callable[[], float] = perf_counter,
) -> Measurement:
    """Time candidates on single frames, as a camera gives them.

    All are open at once and take turns, so that a busy moment of the machine meets each of them.
    One that is clearly slower than the leader is dropped early. A candidate that cannot be opened
    or run is left out.

    Args:
        candidates: in order of preference.
        opener: opens the engine of a candidate; it is closed again.
        time_limit: seconds for each candidate; at least one round is timed.
        clock: seconds.

    Raises:
        Exception: no candidate could be opened and run: what the first one raised.
    """
    failures: dict[Candidate, Exception] = {}
    runs: dict[Candidate, Callable[[], object]] = {}
    with ExitStack() as opened:
        for candidate in candidates:
            try:
                run = _single_run(opened.enter_context(opener(candidate)))
                for _ in range(_WARM_UPS):
                    run()
            except Exception as error:  # noqa: BLE001  # of any library: another candidate may do
                failures[candidate] = error
                logger.info("%s does not run here: %s", candidate, _cause(error))
            else:
                runs[candidate] = run
        if not runs:
            raise next(iter(failures.values()))
        seconds = _race(runs, time_limit, clock)
    return Measurement({one: 1e3 * median(times) for one, times in seconds.items()}, failures)


def remembered(key: MeasurementKey) -> Measurement | None:
    """Return the times kept under a key; ``None`` where there are none that can be read."""
    path = _place(key)
    kept = kept_record(path, _Kept) if path is not None else None
    if kept is None:
        return None
    candidates = [
        Candidate(backend, precision)
        for precision in key.models
        for backend in GRAPH_BACKENDS
        if backend in key.versions and str(Candidate(backend, precision)) not in key.without
    ]
    candidates += [Candidate(name, one) for name, plans in key.engines.items() for one in plans]
    times = {one: kept.milliseconds.get(one.backend, {}).get(one.precision) for one in candidates}
    known = {one: time for one, time in times.items() if time is not None}
    wrong = {
        one: GateFailed(kept.wrong[one.backend][one.precision])
        for one in candidates
        if one.precision in kept.wrong.get(one.backend, {})
    }
    complete = len(known) + len(wrong) == len(times)
    return Measurement(known, wrong) if kept.key == key and known and complete else None


def remember(key: MeasurementKey, measurement: Measurement, load: float = 0.0) -> None:
    """Keep times for the next opening, where the cache folder can be written to.

    A measurement with failures is not kept: a library that is repaired has the same version. But
    one that computes wrongly is no failure to open, and its cause is kept. Nor
    is one of a busy machine: it would stand for ever. ``load``: :func:`load_average` before it.
    """
    path = _place(key)
    wrong: dict[GraphBackend | EngineBackend, dict[Precision, str]] = {}
    for (backend, precision), error in measurement.failures.items():
        if not isinstance(error, GateFailed):
            return
        wrong.setdefault(backend, {})[precision] = error.cause
    if path is None or load > BUSY * key.cpus:
        return
    times: dict[GraphBackend | EngineBackend, dict[Precision, float]] = {}
    for (backend, precision), time in measurement.milliseconds.items():
        times.setdefault(backend, {})[precision] = float(f"{time:.4g}")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    kept = _Kept(key=key, measured=now, milliseconds=times, wrong=wrong)
    try:
        write_text(path, kept.model_dump_json(indent=2) + "\n")
    except (OutputError, OSError) as error:
        logger.info("times of engines are not kept, and measured again next time: %s", error)


class _Kept(Strict):
    """The content of a file in the cache."""

    format: Literal["hvq-edge-engine-times/2"] = FORMAT
    measured: str
    """ISO 8601, UTC."""
    milliseconds: dict[
        GraphBackend | EngineBackend,
        dict[Precision, Annotated[float, Field(ge=0)]],
    ]
    """Median for one image."""
    wrong: dict[GraphBackend | EngineBackend, dict[Precision, str]] = Field(default={})
    """Why a candidate that computes wrongly has no time."""
    key: MeasurementKey


def _place(key: MeasurementKey) -> Path | None:
    """Return the file for a key; ``None`` where the user has no home, as in some containers."""
    name = hashlib.sha256(f"{FORMAT} {key.model_dump_json()}".encode()).hexdigest()[:16]
    try:
        return default_cache() / "engine-times" / f"{name}.json"
    except RuntimeError:
        return None


def _version_of(module: str) -> str:
    """Return the version of an installed module, or a provider's, without importing it."""
    if module in PROVIDERS:
        return f"{_version_of(ONNXRUNTIME)}, {provider_version(module)}"
    try:
        return version(module)
    except PackageNotFoundError:  # another build's package brings the module, as onnxruntime-gpu
        names = sorted(set(packages_distributions().get(module, ())))
        return ", ".join(f"{name} {version(name)}" for name in names) or "unknown"


def _single_run(engine: Engine) -> Callable[[], object]:
    """Return a call that judges one frame of noise."""
    frames = np.random.default_rng(0).integers(
        0, 256, (1, *engine.info.frame_shape, 3), dtype=np.uint8
    )
    given = np.zeros(1, dtype=np.int32) if engine.info.category_mode == "input" else None
    return partial(engine.run, frames, given)


def settle(run: Callable[[], object], clock: Callable[[], float] = perf_counter) -> None:
    """Run untimed, at least once, until the threads of what ran before have gone to sleep.

    Those of ONNX Runtime wait for work without sleeping, some 40 ms long, and take a core from
    whatever is timed meanwhile.

    Args:
        run: what is timed next.
        clock: seconds.
    """
    end = clock() + SETTLE_SECONDS
    run()
    while clock() < end:
        run()


def _race(
    runs: Mapping[Candidate, Callable[[], object]], time_limit: float, clock: Callable[[], float]
) -> dict[Candidate, list[float]]:
    """Return the seconds of each timed run; fewer for candidates that were dropped."""
    seconds: dict[Candidate, list[float]] = {one: [] for one in runs}
    racing = list(runs)
    began = clock()
    for done in range(1, _MOST_ROUNDS + 1):
        for one in racing:
            settle(runs[one], clock)
            for _ in range(_TIMED_A_ROUND):
                start = clock()
                runs[one]()
                seconds[one].append(clock() - start)
        if (clock() - began) * (done + 1) / done > time_limit * len(runs):
            break
        leader = min(median(seconds[one]) for one in racing)
        # Its fastest run counts: one disturbance must not put out a good candidate.
        racing = [one for one in racing if min(seconds[one]) <= _CLEARLY_SLOWER * leader]
        if len(racing) == 1:
            break
    return seconds


def _cause(error: Exception) -> str:
    text = error.cause if isinstance(error, HvqEdgeError) else f"{error}"
    return (text.splitlines() or [type(error).__name__])[0].rstrip(". ")
