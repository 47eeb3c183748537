"""Open an engine on a bundle or a training run, choosing backend and precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hvq_edge.atomic import sha256_of
from hvq_edge.bundle import MANIFEST_NAME, Bundle, Precision, open_bundle
from hvq_edge.closing import Closing
from hvq_edge.errors import InputError, SettingsError
from hvq_edge.run_record import RECORD_NAME
from hvq_edge.runtime.check_frames import check_threads, graph_feed
from hvq_edge.runtime.engine import Engine, EngineInfo, EngineOutput, Frames
from hvq_edge.runtime.engine_file import ENGINES_FOLDER, EngineBackend, engine_backend
from hvq_edge.runtime.measured_choice import (
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
from hvq_edge.runtime.precision_rules import read_verdicts, usable_precisions, why_chosen

if TYPE_CHECKING:
    from hvq_edge.runtime.gpu_candidates import GpuCandidates

Backend = Literal[GraphBackend, "torch", EngineBackend]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
AUTO = "auto"

VERIFY_NAME = "verify.json"


@dataclass(frozen=True)
class Choice:
    """What will run a bundle, and why."""

    backend: GraphBackend | EngineBackend
    precision: Precision
    reason: str
    """A sentence for the user; starts with the precision."""


def open_engine(
    target: Path | str | Bundle,
    *,
    precision: str = AUTO,
    backend: str = AUTO,
    category: str | None = None,
    threads: int | None = None,
) -> Engine:
    """Open an engine.

    Where ``auto`` leaves more than one way to run a bundle, the first opening on a machine times
    them, which takes seconds; see :func:`choose`.

    Args:
        target: a bundle's folder, an opened bundle, or a training run's folder (the PyTorch model).
        precision: ``fp32``, ``fp16``, ``int8``, ``int8-fp16``, or ``auto`` (see :func:`choose`).
        backend: ``openvino``, ``onnxruntime``, ``tensorrt`` or ``tensorrt-rtx`` (an engine that
            ``hvq-edge build`` made), ``torch`` (runs only), or ``auto``.
        category: judge every frame as this category. Needs a graph exported with
            ``--category input`` or for this category, or a run; the engine then looks like one
            exported for this category alone.
        threads: threads of one call; ``None`` leaves it to the library.

    Raises:
        BundleError: no bundle there, or it is changed or lacks the precision.
        RunError: the run is not finished.
        SettingsError: an unknown precision or backend, or one that does not fit ``target``; or less
            than one thread.
        InputError: an unknown category, or one given to a graph that chooses itself.
        MissingCapability: the backend's library is not installed.
    """
    engine: Engine
    if is_run(target):
        engine = _open_run(Path(str(target)), precision, backend, threads)
    else:
        bundle = target if isinstance(target, Bundle) else open_bundle(Path(target))
        if category is not None:
            _check_takes_category(bundle, category)  # before seconds of loading
        gpu_backend = engine_backend(backend)
        if gpu_backend is not None:
            from hvq_edge.runtime.find_engine import open_tensorrt

            engine = open_tensorrt(bundle, gpu_backend, precision)
        else:
            chosen, _ = _choose_graph(bundle, precision, backend, threads, TIME_LIMIT_S)
            if engine_backend(chosen.backend) is not None:
                engine = _open_plan(bundle, chosen)
            else:
                model_file = bundle.model_file(chosen.precision)
                engine = _open_graph(bundle, chosen, model_file, threads)
    return engine if category is None else _with_category(engine, category, target)


def is_run(target: Path | str | Bundle) -> bool:
    """Tell whether ``target`` is a training run's folder and not a bundle."""
    if isinstance(target, Bundle):
        return False
    folder = Path(target)
    return (folder / RECORD_NAME).is_file() and not (folder / MANIFEST_NAME).is_file()


def choose(
    bundle: Bundle,
    precision: str = AUTO,
    backend: str = AUTO,
    *,
    threads: int | None = None,
    time_limit: float = TIME_LIMIT_S,
) -> Choice:
    """Choose backend and precision for a bundle.

    ``auto`` is what is fastest for one picture on this machine, measured among the installed
    backends and the precisions that may be used: ``fp32``, and ``int8`` unless ``hvq-edge verify``
    has found it wanting. Engines that ``hvq-edge build`` made take part where they run on this
    machine's GPU and ``hvq-edge verify`` has passed their precision. At equal speed ``fp32`` comes
    before ``int8``, OpenVINO before ONNX Runtime, and both before engines. The graphs of the
    float16 precisions are made for GPUs, and are taken only where the bundle has nothing else. With
    one candidate nothing is measured; otherwise the times are kept in the
    user's cache folder (:mod:`hvq_edge.runtime.measured_choice`).

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
        from hvq_edge.runtime.find_engine import built_precision

        built = built_precision(bundle, gpu_backend, precision)
        return Choice(
            gpu_backend, built, f"{built}: {'as asked' if precision != AUTO else 'built'}"
        )
    chosen, reason = _choose_graph(bundle, precision, backend, threads, time_limit)
    return Choice(chosen.backend, chosen.precision, reason)


class FixedCategoryEngine(Closing):
    """An engine with category input that judges every frame as one category.

    Args:
        engine: an engine that takes ``category``; closed together with this one.
        index: the category's index in ``engine``.
    """

    def __init__(self, engine: Engine, index: int) -> None:
        self._engine = engine
        self._index = index
        name = engine.info.categories[index]
        self.info: EngineInfo = replace(engine.info, categories=(name,), category_mode="one")

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch; see :meth:`hvq_edge.runtime.engine.Engine.run`."""
        checked: NDArray[Any] = graph_feed(frames, category, self.info)["frames"]
        output = self._engine.run(checked, np.full(len(checked), self._index, dtype=np.int32))
        output["category"] = np.zeros(len(checked), dtype=np.int32)
        return output

    def close(self) -> None:
        """Close the engine beneath; calling it twice is fine."""
        self._engine.close()


def _choose_graph(
    bundle: Bundle, precision: str, backend: str, threads: int | None, time_limit: float
) -> tuple[Candidate, str]:
    """Return what runs a bundle where no engine for GPUs was asked for; see :func:`choose`."""
    check_threads(threads)
    backends = _known_backends(backend)
    verdicts = read_verdicts(bundle.path / VERIFY_NAME)
    if precision == AUTO:
        precisions = usable_precisions(bundle.manifest.models, verdicts)
    else:
        precisions = (_known_precision(precision),)
    candidates = [Candidate(library, name) for name in precisions for library in backends]
    on_gpu = None
    if backend == AUTO and (bundle.path / ENGINES_FOLDER).is_dir():
        from hvq_edge.runtime.gpu_candidates import gpu_candidates

        on_gpu = gpu_candidates(bundle, None if precision == AUTO else precisions, verdicts)
        candidates += on_gpu.plans
    chosen, times, why = candidates[0], "", "as asked"
    measured = None
    if len(candidates) > 1:
        measured = _times(bundle, candidates, threads, time_limit, on_gpu)
        chosen, times = measured.fastest(), f"; {measured}"
    if precision == AUTO:
        why = why_chosen(chosen.precision, bundle.manifest.models, verdicts, measured)
    left_out = "".join(f"; without {reason}" for reason in (on_gpu.left_out if on_gpu else ()))
    return chosen, f"{chosen.precision}: {why}{times}{left_out}"


def _known_backends(backend: str) -> tuple[GraphBackend, ...]:
    """Return the backends that may be used, the preferred one first; at least one.

    Raises:
        SettingsError: an unknown one, or one that runs no bundles.
    """
    if backend == AUTO:
        installed = tuple(name for name in GRAPH_BACKENDS if find_spec(name))
        return installed or ("onnxruntime",)  # opening it says what to install
    for name in GRAPH_BACKENDS:
        if backend == name:
            return (name,)
    if backend == "torch":
        raise SettingsError(
            "backend torch runs a training run, not a bundle.",
            next_step="name the run's folder, or use openvino or onnxruntime",
        )
    raise _unknown_backend(backend)


def known_precisions(name: str) -> tuple[Precision, ...]:
    """Return the one precision of a name; none for ``auto``.

    Raises:
        SettingsError: an unknown one.
    """
    return () if name == AUTO else (_known_precision(name),)


def _known_precision(name: str) -> Precision:
    for precision in PRECISIONS:
        if name == precision:
            return precision
    raise SettingsError(
        f"precision {name!r} is none of {', '.join((AUTO, *PRECISIONS))}.",
        next_step="use one of these names",
    )


def _unknown_backend(backend: str) -> SettingsError:
    return SettingsError(
        f"backend {backend!r} is none of {', '.join((AUTO, *BACKENDS))}.",
        next_step="use one of these names",
    )


def _open_run(run: Path, precision: str, backend: str, threads: int | None) -> Engine:
    if backend not in (AUTO, "torch"):
        if backend not in BACKENDS:
            raise _unknown_backend(backend)
        raise SettingsError(
            f"backend {backend} runs a bundle, and {run} is a training run.",
            next_step=f"run hvq-edge export {run}, then name the bundle it wrote",
        )
    if precision != AUTO and _known_precision(precision) != "fp32":
        raise SettingsError(
            f"the training run {run} runs in fp32 only, not {precision}.",
            next_step=f"run hvq-edge export {run}, then name the bundle it wrote",
        )
    from hvq_edge.runtime.torch_engine import TorchEngine

    return TorchEngine(run, threads=threads)


def _check_takes_category(bundle: Bundle, category: str) -> None:
    bundle.category_index(category)
    if bundle.manifest.category_mode == "auto":
        raise InputError(
            f"category {category!r} was given, but the bundle {bundle.path} chooses the "
            "category itself (category mode auto).",
            next_step=f"leave it out, or run hvq-edge export --category {category} "
            "(or --category input)",
        )


def _times(
    bundle: Bundle,
    candidates: list[Candidate],
    threads: int | None,
    time_limit: float,
    on_gpu: GpuCandidates | None,
) -> Measurement:
    """Return the times of candidates: those kept for this machine, else measured now."""
    plans = on_gpu.plans if on_gpu else {}
    graphs = [one for one in candidates if one not in plans]
    precisions = tuple(dict.fromkeys(one.precision for one in graphs))
    engines: dict[EngineBackend, dict[Precision, str]] = {}
    for one, digest in plans.items():
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
    )
    known = remembered(key)
    if known is None:
        # Outside the measurement: a changed file is an error, not a candidate that drops out.
        files = {name: bundle.model_file(name) for name in precisions}

        def opener(candidate: Candidate) -> Engine:
            if candidate in plans:
                return _open_plan(bundle, candidate)
            return _open_graph(bundle, candidate, files[candidate.precision], threads)

        known = measure(candidates, opener, time_limit=time_limit)
        remember(key, known)
    return known


def _recorded_hash(bundle: Bundle, precision: Precision) -> str:
    """Return the SHA-256 that the manifest has for a graph; the file is not read.

    Raises:
        BundleError: the bundle has no such precision.
    """
    manifest = bundle.manifest
    record = manifest.files.get(manifest.models.get(precision, ""))
    return record.sha256 if record else sha256_of(bundle.model_file(precision))


def _open_plan(bundle: Bundle, candidate: Candidate) -> Engine:
    from hvq_edge.runtime.find_engine import open_tensorrt

    library = engine_backend(candidate.backend)
    if library is None:
        raise _unknown_backend(candidate.backend)
    return open_tensorrt(bundle, library, candidate.precision)


def _open_graph(
    bundle: Bundle, candidate: Candidate, model_file: Path, threads: int | None
) -> Engine:
    from hvq_edge.runtime.onnxruntime_engine import OnnxRuntimeEngine
    from hvq_edge.runtime.openvino_engine import OpenVinoEngine

    opener = OpenVinoEngine if candidate.backend == "openvino" else OnnxRuntimeEngine
    return opener(
        model_file,
        precision=candidate.precision,
        input_side=bundle.manifest.input_side,
        categories=bundle.manifest.categories,
        category_mode=bundle.manifest.category_mode,
        threads=threads,
    )


def _with_category(engine: Engine, category: str, target: Path | str | Bundle) -> Engine:
    if engine.info.category_mode == "one" and engine.info.categories == (category,):
        return engine
    if category not in engine.info.categories:
        engine.close()
        raise InputError(
            f"{target} has no category {category!r}; it has {', '.join(engine.info.categories)}.",
            next_step="use one of these names",
        )
    return FixedCategoryEngine(engine, engine.info.categories.index(category))
