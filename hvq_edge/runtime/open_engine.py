"""Open an engine on a bundle or a training run, choosing backend and precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hvq_edge.bundle.opened import Bundle, is_run, open_bundle
from hvq_edge.errors import SettingsError
from hvq_edge.runtime.choice import open_candidate
from hvq_edge.runtime.choice.choose_graph import EngineChoice, choose, choose_graph
from hvq_edge.runtime.choice.measured_choice import TIME_LIMIT_S
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.engine_check import checked
from hvq_edge.runtime.engine_names import (
    AUTO,
    BACKENDS,
    Backend,
    known_precision,
    known_precisions,
    unknown_backend,
)
from hvq_edge.runtime.fixed_category import (
    FixedCategoryEngine,
    check_takes_category,
    with_category,
)
from hvq_edge.runtime.tensorrt.engine_file import engine_backend

# What an engine is opened with is imported from here as well.
__all__ = [
    "AUTO",
    "BACKENDS",
    "Backend",
    "EngineChoice",
    "FixedCategoryEngine",
    "choose",
    "is_run",
    "known_precisions",
    "open_engine",
    "runs_torch",
]


def open_engine(
    target: Path | str | Bundle,
    *,
    precision: str = AUTO,
    backend: str = AUTO,
    category: str | None = None,
    threads: int | None = None,
    on_choice: Callable[[str], None] | None = None,
    unchecked: bool = False,
) -> Engine:
    """Open an engine, and see that it computes as it should.

    The first opening on a machine holds it against the bundle's known answers, which takes a few
    frames' time (:mod:`hvq_edge.runtime.engine_check`).

    Where ``auto`` leaves more than one way to run a bundle, the first opening on a machine times
    them, which takes seconds; see :func:`choose`.

    Args:
        target: a bundle's folder, an opened bundle, or a training run's folder: the PyTorch model,
            or the bundle in it where a precision or backend is named that only a bundle has.
        precision: ``fp32``, ``fp16``, ``int8``, ``int8-fp16``, or ``auto`` (see :func:`choose`).
        backend: ``openvino``, ``onnxruntime``, ``tensorrt`` or ``tensorrt-rtx`` (an engine that
            ``hvq-edge build`` made), ``torch`` (runs only), or ``auto``.
        category: judge every frame as this category. Needs a graph exported with
            ``--category input`` or for this category, or a run; the engine then looks like one
            exported for this category alone.
        threads: threads of one call; ``None`` leaves it to the library.
        on_choice: told why a bundle runs so, as :attr:`EngineChoice.reason`; not of a backend that
            is an engine for GPUs.
        unchecked: do not hold it against the known answers: for whoever does so himself.

    Raises:
        GateFailed: it gives other answers than the known ones, or these cannot be read.
        BundleError: no bundle there, or it is changed or lacks the precision.
        RunError: the run is not finished.
        SettingsError: an unknown precision or backend, or one that does not fit ``target``; or less
            than one thread.
        InputError: an unknown category, or one given to a graph that chooses itself.
        MissingCapability: the backend's library is not installed.
    """
    engine: Engine
    if runs_torch(target, precision, backend):
        from hvq_edge.runtime.cpu.torch_engine import TorchEngine

        engine = TorchEngine(Path(str(target)), threads=threads)
    else:
        bundle = target if isinstance(target, Bundle) else open_bundle(Path(target))
        if category is not None:
            check_takes_category(bundle, category)  # before seconds of loading
        gpu_backend = engine_backend(backend)
        if gpu_backend is not None:
            from hvq_edge.runtime.tensorrt.find_engine import open_tensorrt

            engine = open_tensorrt(bundle, gpu_backend, precision)
        else:
            chosen, reason, _ = choose_graph(bundle, precision, backend, threads, TIME_LIMIT_S)
            if on_choice is not None:
                on_choice(reason)
            if engine_backend(chosen.backend) is not None:
                engine = open_candidate.open_built(bundle, chosen)
            else:
                content = bundle.read(bundle.model_name(chosen.precision))
                engine = open_candidate.open_graph(bundle, chosen, content, threads)
        if not unchecked:
            engine = checked(engine, bundle)
    return engine if category is None else with_category(engine, category, target)


def runs_torch(target: Path | str | Bundle, precision: str = AUTO, backend: str = AUTO) -> bool:
    """Tell whether a target is opened as a training run's PyTorch model.

    A run stands for the bundle in it where a precision or backend is named that only a bundle has.

    Args:
        target: as for :func:`open_engine`.
        precision: likewise.
        backend: likewise.

    Raises:
        SettingsError: an unknown precision or backend, or PyTorch with another precision than fp32.
    """
    if isinstance(target, Bundle) or not is_run(target):
        return False
    if backend not in (AUTO, *BACKENDS):
        raise unknown_backend(backend)
    reduced = precision != AUTO and known_precision(precision) != "fp32"
    if reduced and backend == "torch":
        raise SettingsError(
            f"the training run {target} runs in fp32 only with PyTorch, not in {precision}.",
            next_step="leave out the backend: the bundle in the run's folder is taken then",
        )
    return backend in (AUTO, "torch") and not reduced
