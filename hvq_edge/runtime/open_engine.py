"""Open an engine on a bundle or a training run, choosing backend and precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from hvq_edge.bundle import MANIFEST_NAME, Bundle, Precision, open_bundle
from hvq_edge.closing import Closing
from hvq_edge.errors import InputError, SettingsError
from hvq_edge.run_record import RECORD_NAME
from hvq_edge.runtime.check_frames import graph_feed
from hvq_edge.runtime.engine import Engine, EngineInfo, EngineOutput, Frames

Backend = Literal["openvino", "onnxruntime", "torch"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
AUTO = "auto"

VERIFY_NAME = "verify.json"


@dataclass(frozen=True)
class Choice:
    """What will run a bundle, and why."""

    backend: Backend
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

    Args:
        target: a bundle's folder, an opened bundle, or a training run's folder (the PyTorch model).
        precision: ``fp32``, ``fp16``, ``int8``, ``int8-fp16``, or ``auto`` (see :func:`choose`).
        backend: ``openvino``, ``onnxruntime``, ``torch`` (runs only), or ``auto``.
        category: judge every frame as this category. Needs a graph exported with
            ``--category input`` or for this category, or a run; the engine then looks like one
            exported for this category alone.
        threads: threads of one call; ``None`` leaves it to the library.

    Raises:
        BundleError: no bundle there, or it is changed or lacks the precision.
        RunError: the run is not finished.
        SettingsError: an unknown precision or backend, or one that does not fit ``target``.
        InputError: an unknown category, or one given to a graph that chooses itself.
        MissingCapability: the backend's library is not installed.
    """
    engine: Engine
    if is_run(target):
        engine = _open_run(Path(str(target)), precision, backend, threads)
    else:
        bundle = target if isinstance(target, Bundle) else open_bundle(Path(target))
        engine = _open_bundle(bundle, choose(bundle, precision, backend), category, threads)
    return engine if category is None else _with_category(engine, category, target)


def is_run(target: Path | str | Bundle) -> bool:
    """Tell whether ``target`` is a training run's folder and not a bundle."""
    if isinstance(target, Bundle):
        return False
    folder = Path(target)
    return (folder / RECORD_NAME).is_file() and not (folder / MANIFEST_NAME).is_file()


def choose(bundle: Bundle, precision: str = AUTO, backend: str = AUTO) -> Choice:
    """Choose backend and precision for a bundle.

    ``auto`` backend is OpenVINO where it is installed, else ONNX Runtime. ``auto`` precision is
    ``int8`` where the bundle has it, OpenVINO runs it and ``hvq-edge verify`` has not found it
    wanting; else ``fp32``. ONNX Runtime runs NVIDIA-style INT8 right, but slower than ``fp32``.

    Raises:
        SettingsError: an unknown precision or backend.
        BundleError: the bundle lacks the precision asked for.
    """
    chosen = _choose_backend(backend)
    available = bundle.manifest.models
    if precision != AUTO:
        asked = _known_precision(precision)
        return Choice(chosen, asked, f"{asked}: as asked")
    if "int8" not in available:
        reason = "the bundle has no int8 model"
    elif chosen != "openvino":
        reason = f"{chosen} runs this kind of int8 slower than fp32"
    else:
        passed = _int8_passed(bundle.path / VERIFY_NAME)
        if passed is not False:
            how = "verified" if passed else "not verified yet: run hvq-edge verify"
            return Choice(chosen, "int8", f"int8: {how}")
        reason = "hvq-edge verify did not pass int8"
    fallback: Precision = "fp32" if "fp32" in available else next(iter(available), "fp32")
    return Choice(chosen, fallback, f"{fallback}: {reason}")


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


def _choose_backend(backend: str) -> Backend:
    if backend == AUTO:
        return "openvino" if find_spec("openvino") else "onnxruntime"
    if backend == "openvino":
        return "openvino"
    if backend == "onnxruntime":
        return "onnxruntime"
    if backend == "torch":
        raise SettingsError(
            "backend torch runs a training run, not a bundle.",
            next_step="name the run's folder, or use openvino or onnxruntime",
        )
    raise _unknown_backend(backend)


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


def _open_bundle(
    bundle: Bundle, choice: Choice, category: str | None, threads: int | None
) -> Engine:
    if category is not None:
        bundle.category_index(category)  # before seconds of loading
        if bundle.manifest.category_mode == "auto":
            raise InputError(
                f"category {category!r} was given, but the bundle {bundle.path} chooses the "
                "category itself (category mode auto).",
                next_step=f"leave it out, or run hvq-edge export --category {category} "
                "(or --category input)",
            )
    from hvq_edge.runtime.onnxruntime_engine import OnnxRuntimeEngine
    from hvq_edge.runtime.openvino_engine import OpenVinoEngine

    opener = OpenVinoEngine if choice.backend == "openvino" else OnnxRuntimeEngine
    return opener(
        bundle.model_file(choice.precision),
        precision=choice.precision,
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


class _PrecisionVerdict(BaseModel):
    model_config = ConfigDict(extra="ignore")
    passed: bool


class _Verdict(BaseModel):
    model_config = ConfigDict(extra="ignore")
    precisions: dict[str, _PrecisionVerdict]


def _int8_passed(verify_file: Path) -> bool | None:
    """Return what ``verify.json`` says of int8: ``None`` where there is no verdict on it.

    A file that cannot be read counts as not passed: int8 is used by default only on good evidence.
    """
    try:
        verdict = _Verdict.model_validate_json(verify_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError):
        return False
    int8 = verdict.precisions.get("int8")
    return int8.passed if int8 else None
