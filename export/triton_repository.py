"""A bundle as a model repository of NVIDIA's Triton Inference Server.

Many cameras then share one GPU, or one processor: the server puts frames that come within a
millisecond into one batch. A model is one precision; no ensemble, because normalisation and scores
are in the graph.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from hvq_edge.bundle.manifest import BundleManifest, CategoryMode, Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.precision import FOR_CPUS, FOR_GPUS
from hvq_edge.common.atomic import atomic_folder
from hvq_edge.errors import BundleError, OutputError, SettingsError
from hvq_edge.runtime.contract import CATEGORY, FRAMES, graph_inputs, graph_outputs
from hvq_edge.runtime.cpu.openvino_engine import PROPERTIES
from hvq_edge.runtime.tensorrt.engine_file import read_record
from hvq_edge.runtime.tensorrt.find_engine import engine_files
from hvq_edge.runtime.triton.engine import GRAPH_PARAMETER, model_name

TritonBackend = Literal["native", "python"]
"""``native``: the server's own ONNX Runtime or TensorRT. ``python``: :mod:`.triton_model`."""
TRITON_BACKENDS: tuple[TritonBackend, ...] = get_args(TritonBackend)

CONFIG_NAME = "config.pbtxt"
MAX_BATCH = 8
"""Largest batch of ONNX models; an engine's is what it was built for."""
QUEUE_MICROSECONDS = 1000
"""How long a frame waits for others to share its batch."""
_MODEL_PY = "triton_model.py"


def write_triton_repository(
    bundle: Bundle,
    folder: Path,
    precisions: Sequence[Precision] | None = None,
    *,
    backend: str = "native",
    plan: Path | None = None,
) -> tuple[Path, ...]:
    """Write a bundle's models into a repository, beside what is there already.

    Where the bundle has a TensorRT engine of a precision, that is what the server runs: it must
    have the same TensorRT and GPU. Else the server runs the ONNX graph, on whatever it has.

    Args:
        bundle: the bundle.
        folder: the repository; made where there is none.
        precisions: one model each; ``None``: all that the bundle has, and for ``python`` those for
            processors, where it has one.
        backend: ``native`` (default), or ``python``: a file beside each graph runs it on the
            server's processor, with OpenVINO or ONNX Runtime.
        plan: the engine that the server is to run, where a single precision is asked for;
            ``None``: the newest of each, which may be another machine's.

    Returns:
        The models' folders.

    Raises:
        BundleError: a file is changed, or the bundle lacks a precision.
        OutputError: another model of that name is there, or the folder cannot be written to.
        SettingsError: an unknown backend.
    """
    chosen = known_triton_backend(backend)
    wanted = served_precisions(bundle.manifest, precisions, chosen)
    written = []
    for precision in wanted:
        graph = bundle.model_file(precision)
        engines: list[Path] = []
        if chosen == "native":
            engines = [plan] if plan else engine_files(bundle, "tensorrt", precision)
        target = folder / model_name(precision)
        _check_ours(target)
        digest = bundle.manifest.files[graph.name].sha256
        source, batch = graph, MAX_BATCH
        if engines:
            source, record = engines[0], read_record(engines[0])
            batch = record.options.max_batch
            if record.onnx_sha256 != digest:
                raise BundleError(
                    f"{source.name} was built from another {graph.name} than the bundle has.",
                    next_step=f"run hvq-edge build {bundle.path} --precision {precision}",
                )
        platform = "tensorrt_plan" if engines else "onnxruntime_onnx"
        with atomic_folder(target) as made:
            (made / "1").mkdir()
            shutil.copyfile(source, made / "1" / f"model{source.suffix}")
            if chosen == "python":
                shutil.copyfile(Path(__file__).with_name(_MODEL_PY), made / "1" / "model.py")
            text = config_text(
                bundle,
                precision,
                digest,
                platform=None if chosen == "python" else platform,
                max_batch=batch,
            )
            (made / CONFIG_NAME).write_text(text, encoding="utf-8")
        written.append(target)
    return tuple(written)


def known_triton_backend(name: str) -> TritonBackend:
    """Return the backend of a name.

    Raises:
        SettingsError: an unknown one.
    """
    for known in TRITON_BACKENDS:
        if name == known:
            return known
    raise SettingsError(
        f"Triton backend {name!r} is none of {', '.join(TRITON_BACKENDS)}.",
        next_step="use one of these names",
    )


def served_precisions(
    manifest: BundleManifest, precisions: Sequence[Precision] | None, backend: TritonBackend
) -> list[Precision]:
    """Return the precisions that become models: those asked for, else what fits the backend."""
    wanted = [one for one in FOR_GPUS if one in (precisions or manifest.models)]
    if precisions is None and backend == "python":
        return [one for one in wanted if one in FOR_CPUS] or wanted
    return wanted


def config_text(
    bundle: Bundle, precision: Precision, digest: str, *, platform: str | None, max_batch: int
) -> str:
    """Return a model's ``config.pbtxt``.

    Args:
        bundle: the bundle.
        precision: of the model.
        digest: SHA-256 of the ONNX file.
        platform: ``onnxruntime_onnx`` or ``tensorrt_plan``; ``None``: the Python backend.
        max_batch: largest batch that the server makes.
    """
    manifest = bundle.manifest
    shapes = _shapes(manifest)
    mode: CategoryMode = manifest.category_mode
    named = platform is not None
    inputs = ",\n".join(_tensor(name, *shapes[name], named) for name in graph_inputs(mode))
    outputs = ",\n".join(_tensor(name, *shapes[name], named) for name in graph_outputs(mode))
    preferred = f"  preferred_batch_size: [ {max_batch} ]\n" if max_batch > 1 else ""
    text = (
        f'name: "{model_name(precision)}"\n'
        + (f'platform: "{platform}"\n' if named else 'backend: "python"\n')
        + f"max_batch_size: {max_batch}\n"
        f"input [\n{inputs}\n]\n"
        f"output [\n{outputs}\n]\n"
        f"dynamic_batching {{\n{preferred}"
        f"  max_queue_delay_microseconds: {QUEUE_MICROSECONDS}\n}}\n"
        + _parameter(GRAPH_PARAMETER, digest)
    )
    if named:
        return text
    properties = json.dumps(PROPERTIES).replace('"', r"\"")
    return (
        text
        + _parameter("hvq_edge.openvino", properties)
        + "instance_group [ { kind: KIND_CPU } ]\n"
    )


def _parameter(key: str, value: str) -> str:
    return f'parameters {{\n  key: "{key}"\n  value {{ string_value: "{value}" }}\n}}\n'


def _shapes(manifest: BundleManifest) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of a frame's part of each tensor (docs/explanation/architecture.md)."""
    tiling = manifest.tiling
    return {
        FRAMES: ("UINT8", (*tiling.frame_shape, 3)),
        CATEGORY: ("INT32", ()),
        "score": ("FP32", ()),
        "map": ("FP32", tiling.map_shape),
        "codes": ("INT32", (manifest.levels, tiling.tokens)),
        "margin": ("FP32", ()),
    }


def _tensor(name: str, kind: str, shape: tuple[int, ...], reshaped: bool) -> str:
    # A configuration cannot say "one number a frame": it says one of length 1, which the server
    # reshapes to none for its ONNX Runtime and TensorRT, and cannot for the Python backend.
    dims = ", ".join(map(str, shape or (1,)))
    reshape = " reshape { shape: [ ] }" if reshaped and not shape else ""
    return f'  {{ name: "{name}" data_type: TYPE_{kind} dims: [ {dims} ]{reshape} }}'


def _check_ours(target: Path) -> None:
    """Refuse to replace a model that this did not write.

    Raises:
        OutputError: it is somebody else's.
    """
    if not target.exists():
        return
    config = target / CONFIG_NAME
    if config.is_file() and GRAPH_PARAMETER in config.read_text(encoding="utf-8", errors="replace"):
        return
    raise OutputError(
        f"{target} exists and is not a model of hvq-edge; it is left as it is.",
        next_step="name another folder with --triton",
    )
