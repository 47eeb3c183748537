"""``hvq-edge build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.options import BundleArgument, BundleOption, JsonOption
from hvq_edge.run.latest import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.runtime.tensorrt.engine_file import EngineRecord


def build(
    bundle: BundleArgument = DEFAULT_BUNDLE,
    named: BundleOption = None,  # noqa: ARG001  # it is in the bundle
    backend: Annotated[
        str,
        typer.Option(
            "--backend", help="tensorrt, tensorrt-rtx, or auto: the first that is installed."
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="int8-fp16, fp16, int8, fp32, or auto: the first of these that the bundle has and "
            "verify has not found wanting.",
        ),
    ] = "auto",
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-capability",
            metavar="N.N",
            help="GPU to build for with tensorrt-rtx: 8.6, 8.9, 12.0 ... May be repeated. "
            "Default: this machine's.",
            show_default=False,
        ),
    ] = None,
    opt_batch: Annotated[
        int, typer.Option("--opt-batch", min=1, help="Batch to be fastest for.")
    ] = 1,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Largest batch.")] = 8,
    hardware: Annotated[
        str,
        typer.Option(
            "--hardware-compatibility",
            help="Which other GPUs it runs on: none, ampere+ (any from compute capability 8.0 on) "
            "or same-compute-capability.",
        ),
    ] = "none",
    version_compatible: Annotated[
        bool,
        typer.Option("--version-compatible", help="Run in newer TensorRT versions too; slower."),
    ] = False,
    dla: Annotated[
        int | None,
        typer.Option("--dla", min=0, help="Put on this DLA core what it can compute."),
    ] = None,
    tf32: Annotated[
        bool,
        typer.Option("--tf32", help="Faster float32 products of 10 bits; codes may change."),
    ] = False,
    level: Annotated[
        int | None,
        typer.Option("--level", min=0, max=5, help="Higher: a longer build, a faster engine."),
    ] = None,
    workspace_mb: Annotated[
        int | None,
        typer.Option(
            "--workspace-mb",
            min=1,
            help="MiB that the engine may use as workspace. Default: from free memory, checked.",
        ),
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(
            "--triton",
            metavar="DIR",
            help="Write the engine into a Triton server's repository too (TensorRT only).",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build even where the same engine is there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the engine of a GPU into the bundle, once.

    Ends with exit code 3 when the library, the driver, the GPU or memory is missing.
    """
    from pydantic import ValidationError

    from hvq_edge.common.records import faults_of
    from hvq_edge.errors import SettingsError
    from hvq_edge.export.build.run import build_run
    from hvq_edge.runtime.tensorrt.engine_file import BuildOptions

    if triton is not None and _resolved(backend) == "tensorrt-rtx":
        raise SettingsError(
            "a Triton server runs TensorRT engines, not those of TensorRT-RTX.",
            next_step="leave out --triton: hvq-edge export --triton gives it the ONNX graphs",
        )
    try:
        options = BuildOptions.model_validate(
            {
                "opt_batch": opt_batch,
                "max_batch": max_batch,
                "version_compatible": version_compatible,
                "hardware": hardware,
                "dla_core": dla,
                "tf32": tf32,
                "optimisation_level": level,
            }
        )
    except ValidationError as error:
        faults = "; ".join(faults_of(error, BuildOptions))
        raise SettingsError(f"{faults}.", next_step="see hvq-edge build --help") from error
    with progress_bars() as bars:
        result = build_run(
            bundle,
            backend=backend,
            precision=precision,
            capabilities=compute_capability or (),
            options=options,
            workspace=None if workspace_mb is None else workspace_mb << 20,
            force=force,
            on_progress=bars,
        )
    if triton is not None:
        from hvq_edge.bundle.opened import open_bundle
        from hvq_edge.export.triton_repository import write_triton_repository

        write_triton_repository(
            open_bundle(bundle), triton, [result.record.precision], plan=result.engine_file
        )
    if as_json:
        content = result.record.model_dump(mode="json")
        print_json({"engine": str(result.engine_file), "reason": result.reason, **content})
        return
    results.print(f"Engine {result.engine_file}", markup=False, soft_wrap=True)
    results.print(record_table(result.record))
    if not result.reason:
        messages.print("It was there already; --force builds it again.")
    elif result.reason != "there was none":
        messages.print(f"Built again: {result.reason}.", markup=False, soft_wrap=True)


def _resolved(backend: str) -> str:
    """Return what a build will take: for ``auto`` the first library that is installed, if any."""
    from importlib.util import find_spec

    from hvq_edge.runtime.engine_names import AUTO
    from hvq_edge.runtime.tensorrt.engine_file import ENGINE_BACKENDS
    from hvq_edge.runtime.tensorrt.library import MODULES

    if backend != AUTO:
        return backend
    return next((one for one in ENGINE_BACKENDS if find_spec(MODULES[one])), backend)


def record_table(record: EngineRecord) -> Table:
    """Show an engine's record, a line a field."""
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column()
    library = "TensorRT-RTX" if record.backend == "tensorrt-rtx" else "TensorRT"
    gpu = f" ({record.gpu_name})" if record.gpu_name else ""
    rows = {
        "library": f"{library} {record.backend_version}",
        "for": f"compute capability {', '.join(record.compute_capabilities)}{gpu}",
        "batch": f"1 to {record.options.max_batch}, fastest at {record.options.opt_batch}",
        "size": f"{record.bytes / 1e6:.1f} MB",
        "build": f"{record.build_seconds:.1f} s",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
