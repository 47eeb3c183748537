"""Which backend and precision run a bundle: what was asked for, else what is fastest here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.thresholds import set_last
from hvq_edge.bundle.verification import Verdicts, read_all_verdicts
from hvq_edge.common.atomic import sha256_of
from hvq_edge.errors import SettingsError
from hvq_edge.runtime.choice import open_candidate
from hvq_edge.runtime.choice.measured_choice import (
    GRAPH_BACKENDS,
    TIME_LIMIT_S,
    Candidate,
    GraphBackend,
    Measurement,
    key_for,
    measure,
    remember,
    remembered,
)
from hvq_edge.runtime.choice.precision_rules import (
    CPU_ORDER,
    GPU_ORDER,
    usable_precisions,
    why_chosen,
)
from hvq_edge.runtime.contract import check_threads
from hvq_edge.runtime.cpu.onnxruntime_providers import PROVIDERS, may_be_tried
from hvq_edge.runtime.cpu.processor import load_average
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.engine_check import checked
from hvq_edge.runtime.engine_names import AUTO, known_precision, unknown_backend
from hvq_edge.runtime.known_answers import answers_file
from hvq_edge.runtime.tensorrt.engine_file import ENGINES_FOLDER, EngineBackend, engine_backend

if TYPE_CHECKING:
    from hvq_edge.runtime.choice.gpu_candidates import GpuCandidates

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineChoice:
    """What will run a bundle, and why."""

    backend: GraphBackend | EngineBackend
    precision: Precision
    reason: str
    """A sentence for the user; starts with the precision."""
    failed: tuple[str, ...] = ()
    """Ways that were tried and do not run here or compute wrongly, each with its cause."""


def choose(
    bundle: Bundle,
    precision: str = AUTO,
    backend: str = AUTO,
    *,
    threads: int | None = None,
    time_limit: float = TIME_LIMIT_S,
) -> EngineChoice:
    """Choose backend and precision for a bundle.

    ``auto`` is what is fastest for one image on this machine, measured among the installed
    backends and the precisions that may be used: ``fp32``, and ``int8`` unless ``hvq-edge verify``
    rejected it. Where the last change of thresholds set those of some precisions alone, as at a
    camera, these are used if they run here. One that gives other answers than the bundle's known
    ones is left out (:mod:`hvq_edge.runtime.engine_check`). ONNX Runtime's providers for GPUs take
    part where their packages and an NVIDIA GPU are there, but for the one that builds engines; what
    ``hvq-edge verify`` ran on one and did not pass is left out. Engines that
    ``hvq-edge build`` made take part where they run on this machine's GPU and ``hvq-edge verify``
    has passed their precision. At equal speed ``fp32`` comes before ``int8``, OpenVINO before ONNX
    Runtime, and both before engines. The graphs of the float16 precisions are made for GPUs, and
    are taken only where a provider for GPUs was named or the bundle has nothing else. With one
    candidate nothing is measured; otherwise the times are kept in the user's cache folder
    (:mod:`hvq_edge.runtime.choice.measured_choice`).

    Args:
        bundle: the bundle.
        precision: a precision or ``auto``.
        backend: a backend or ``auto``.
        threads: threads of one call, as the engine will be opened.
        time_limit: seconds of timing for each candidate.

    Raises:
        SettingsError: an unknown precision or backend, or less than one thread.
        BundleError: the bundle lacks the precision asked for; or, while measuring, a graph of it
            is changed.
        HvqEdgeError: no candidate could be opened and run: what the first one raised.
    """
    gpu_backend = engine_backend(backend)
    if gpu_backend is not None:
        from hvq_edge.runtime.tensorrt.find_engine import built_precision

        built = built_precision(bundle, gpu_backend, precision)
        return EngineChoice(
            gpu_backend, built, f"{built}: {'as asked' if precision != AUTO else 'built'}"
        )
    chosen, reason, failed = choose_graph(bundle, precision, backend, threads, time_limit)
    return EngineChoice(chosen.backend, chosen.precision, reason, failed)


def choose_graph(
    bundle: Bundle, precision: str, backend: str, threads: int | None, time_limit: float
) -> tuple[Candidate, str, tuple[str, ...]]:
    """Return what runs a bundle where no engine for GPUs was asked for, why, and what failed.

    Takes and raises what :func:`choose` does.
    """
    check_threads(threads)
    backends = _known_backends(backend)
    verdicts, on_providers = read_all_verdicts(bundle)
    if precision == AUTO:
        groups = (GPU_ORDER,) if backend in PROVIDERS else CPU_ORDER
        precisions = usable_precisions(bundle.manifest.models, verdicts, groups)
    else:
        precisions = (known_precision(precision),)
    candidates = [Candidate(library, name) for name in precisions for library in backends]
    failed: list[Candidate] = []
    if AUTO in (precision, backend):
        failed = [one for one in candidates if _passed(one, on_providers) is False]
        candidates = [one for one in candidates if one not in failed] or candidates[:1]
    on_gpu = None
    if backend == AUTO and (bundle.path / ENGINES_FOLDER).is_dir():
        from hvq_edge.runtime.choice.gpu_candidates import gpu_candidates

        on_gpu = gpu_candidates(bundle, None if precision == AUTO else precisions, verdicts)
        candidates += on_gpu.engines
    chosen, times, why = candidates[0], "", "as asked"
    alone = _set_last(bundle, candidates) if precision == AUTO else []
    measured = None
    if alone:
        try:
            measured = _times(bundle, alone, threads, time_limit, on_gpu, failed)
        except Exception as error:  # noqa: BLE001  # of any library: another precision may do
            said = str(error).splitlines()[:1]
            logger.warning("%s has the last thresholds, and does not run here: %s", alone[0], *said)
            alone = []
    if measured is None and len(candidates) > 1:
        measured = _times(bundle, candidates, threads, time_limit, on_gpu, failed)
    if measured is not None:
        chosen, times = measured.fastest(), f"; {measured}"
    if precision == AUTO:
        # Of a provider that was named nothing else can make up for what it failed.
        here = {**verdicts, **{one.precision: False for one in failed if one.backend == backend}}
        why = why_chosen(chosen.precision, bundle.manifest.models, here, measured)
        if alone:
            set_by = bundle.manifest.former_thresholds[-1].why
            said_of_it = f"its thresholds were set last, by {set_by}"
            why = said_of_it if chosen.precision == "fp32" else f"{why}; {said_of_it}"
    verdict = _passed(chosen, on_providers)
    if chosen.backend in PROVIDERS and not verdict:
        why += f"; hvq-edge verify {'has not run' if verdict is None else 'did not pass'} {chosen}"
    without = [f"{one}: hvq-edge verify did not pass it" for one in failed if one != chosen]
    without += on_gpu.left_out if on_gpu else ()
    left_out = "".join(f"; without {reason}" for reason in without)
    reason = f"{chosen.precision}: {why}{times}{left_out}"
    logger.info("%s runs %s, %s", chosen.backend, bundle.path, reason)
    return chosen, reason, tuple(measured.failed()) if measured else ()


def _set_last(bundle: Bundle, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with the last thresholds; empty where that tells none from others."""
    precisions = set_last(bundle.manifest)
    found = [one for one in candidates if one.precision in precisions]
    return found if len(found) < len(candidates) else []


def _passed(candidate: Candidate, verdicts: Mapping[str, Verdicts]) -> bool | None:
    """Return what ``hvq-edge verify`` says of one on a provider; ``None``: it has not run it."""
    return verdicts.get(candidate.backend, {}).get(candidate.precision)


def _known_backends(backend: str) -> tuple[GraphBackend, ...]:
    """Return the backends that may be used, the preferred one first; at least one.

    Raises:
        SettingsError: an unknown one, or one that runs no bundles.
    """
    if backend == AUTO:
        return graph_backends_here() or ("onnxruntime",)  # opening it says what to install
    for name in GRAPH_BACKENDS:
        if backend == name:
            return (name,)
    if backend == "torch":
        raise SettingsError(
            "backend torch runs a training run, not a bundle.",
            next_step="name the run's folder, or use openvino or onnxruntime",
        )
    raise unknown_backend(backend)


def graph_backends_here() -> tuple[GraphBackend, ...]:
    """Return the backends for graphs that may run here, by what is installed; preferred first."""
    tried = may_be_tried()
    return tuple(
        name
        for name in GRAPH_BACKENDS
        if (name in tried if name in PROVIDERS else find_spec(name) is not None)
    )


def _times(
    bundle: Bundle,
    candidates: list[Candidate],
    threads: int | None,
    time_limit: float,
    on_gpu: GpuCandidates | None,
    failed: Sequence[Candidate],
) -> Measurement:
    """Return the times of candidates: those kept for this machine, else measured now."""
    engines_here = on_gpu.engines if on_gpu else {}
    built = {one: plan for one, plan in engines_here.items() if one in candidates}
    graphs = [one for one in candidates if one not in built]
    precisions = tuple(dict.fromkeys(one.precision for one in graphs))
    engines: dict[EngineBackend, dict[Precision, str]] = {}
    for one, digest in built.items():
        library = engine_backend(one.backend)
        if library is not None:
            engines.setdefault(library, {})[one.precision] = digest
    key = key_for(
        {name: _recorded_hash(bundle, name) for name in precisions},
        tuple(dict.fromkeys(one.backend for one in graphs)),
        threads,
        engines=engines,
        engine_versions=on_gpu.versions if on_gpu else None,
        gpu=on_gpu.gpu if on_gpu else None,
        answers=_recorded_answers(bundle),
        without=failed,
    )
    known = remembered(key)
    if known is None:
        # Outside the measurement: a changed file is an error, not a candidate that drops out.
        files = {name: bundle.read(bundle.model_name(name)) for name in precisions}

        def opener(candidate: Candidate) -> Engine:
            if candidate in built:
                engine = open_candidate.open_built(bundle, candidate)
            else:
                content = files[candidate.precision]
                engine = open_candidate.open_graph(bundle, candidate, content, threads)
            return checked(engine, bundle, candidate=True)

        load = load_average()  # of the others: our own work comes after it
        known = measure(candidates, opener, time_limit=time_limit)
        remember(key, known, load)
    return known


def _recorded_answers(bundle: Bundle) -> str | None:
    name = answers_file(bundle)
    return None if name is None else bundle.manifest.files[name].sha256


def _recorded_hash(bundle: Bundle, precision: Precision) -> str:
    """Return the SHA-256 that the manifest has for a graph; the file is not read.

    Raises:
        BundleError: the bundle has no such precision.
    """
    manifest = bundle.manifest
    record = manifest.files.get(manifest.models.get(precision, ""))
    return record.sha256 if record else sha256_of(bundle.model_file(precision))
