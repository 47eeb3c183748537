"""``hvq-edge export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.options import FalseRejectOption, JsonOption, RunArgument
from hvq_edge.common.wording import counted
from hvq_edge.run.latest import DEFAULT_RUN

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.bundle.manifest import BundleManifest, GraphRecord
    from hvq_edge.bundle.opened import Bundle

_PARTS = ("int8", "fp16")
"""Options, and what names of precisions are made of."""


def export(
    run: RunArgument = DEFAULT_RUN,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write model.int8.onnx beside model.fp32.onnx.")
    ] = False,
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16", help="Write model.fp16.onnx for GPUs; with --int8 model.int8-fp16.onnx too."
        ),
    ] = False,
    category: Annotated[
        str,
        typer.Option(
            "--category",
            help="auto: the graph chooses it. NAME: fold one category's codebooks in. "
            "input: the caller gives it.",
        ),
    ] = "auto",
    calibration: Annotated[
        Path | None,
        typer.Option("--calib", help="Good images for the INT8 ranges. Default: training images."),
    ] = None,
    ranges: Annotated[
        str,
        typer.Option("--ranges", help="INT8 ranges: minmax, percentile, entropy or mse."),
    ] = "mse",
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", help="Keep the layers in float that this int8-plan.toml of a bundle names."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            min=0,
            help="Search for the fewest layers in float that cost at most so many points of image "
            "AUROC. Default in a search: 0.1.",
        ),
    ] = None,
    min_code_agreement: Annotated[
        float | None,
        typer.Option(
            "--min-code-agreement",
            min=0,
            max=1,
            help="Search as well: at least this share of equal codes. Default in a search: 0.99.",
        ),
    ] = None,
    false_reject: FalseRejectOption = None,
    max_table_mb: Annotated[
        float | None,
        typer.Option(
            "--max-table-mb",
            min=0,
            help="What tables may take in a graph of several categories. Default: 64. "
            "Less: a smaller and slower file.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The bundle's folder. Default: RUN/bundle.")
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(
            "--triton",
            metavar="DIR",
            help="Write the graphs as models of a Triton server's repository too.",
            show_default=False,
        ),
    ] = None,
    triton_backend: Annotated[
        str,
        typer.Option(
            "--triton-backend",
            help="native: the server's ONNX Runtime or TensorRT. python: OpenVINO or ONNX Runtime "
            "on its processor.",
        ),
    ] = "native",
    exemplars: Annotated[
        bool,
        typer.Option(
            "--exemplars",
            help="Put good training images into the bundle, small, for hvq-edge explain on a "
            "device. Whoever gets the bundle sees them.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a bundle that runs without PyTorch.

    It holds ONNX graphs, thresholds and hashes of all files.
    """
    from rich.table import Table

    from hvq_edge.calibration.search.plan import PLAN_NAME
    from hvq_edge.cli import threshold_changes
    from hvq_edge.evaluation.threshold_change import threshold_changes as compare
    from hvq_edge.export.export_bundle import export_bundle
    from hvq_edge.export.fold.code_tables import MAX_TABLE_MB
    from hvq_edge.export.triton_repository import known_triton_backend, served_precisions
    from hvq_edge.run.record import BUNDLE_FOLDER
    from hvq_edge.runtime.triton.engine import model_name
    from hvq_edge.verdict.defaults import FALSE_REJECT
    from hvq_edge.verdict.tolerance_bound import percent

    target = out or run / BUNDLE_FOLDER
    before = _manifest_before(target)
    losses = _losses(target, before)
    with progress_bars() as bars:
        bundle = export_bundle(
            run,
            target,
            int8=int8,
            fp16=fp16,
            category=category,
            calibration=calibration,
            ranges=ranges,
            plan=plan,
            max_drop=max_drop,
            min_code_agreement=min_code_agreement,
            max_table_mb=MAX_TABLE_MB if max_table_mb is None else max_table_mb,
            false_reject=FALSE_REJECT if false_reject is None else false_reject,
            triton=triton,
            triton_backend=triton_backend,
            exemplars=exemplars,
            on_progress=bars,
        )
    manifest = bundle.manifest
    gone = [name for name in before.models if name not in manifest.models] if before else []
    if gone:
        flags = " ".join(f"--{part}" for part in _PARTS if any(part in name for name in gone))
        messages.print(
            f"Warning: {' and '.join(gone)} of the former bundle went with it: hvq-edge export "
            f"{flags} writes such files.",
            soft_wrap=True,
        )
    for loss in losses:
        messages.print(f"Warning: {loss}.", markup=False, soft_wrap=True)
    if before is not None and before.checkpoint_sha256 != manifest.checkpoint_sha256:
        before = None  # scores of another model are on another scale
    changes = compare(bundle, before)
    if as_json:
        changed = threshold_changes.as_values(changes)
        print_json({"bundle": str(target), **manifest.model_dump(mode="json"), "changes": changed})
        return
    table = Table(title=f"Bundle {target}", title_justify="left")
    columns = ("model", "MB", "threshold of", "", "false rejects\nexpected", "at most", "unseen")
    for heading in columns:
        table.add_column(heading, justify="left" if heading.startswith(("m", "t")) else "right")
    for precision, name in manifest.models.items():
        size = f"{manifest.files[name].bytes / 1e6:.1f}"
        learnt = manifest.thresholds.get(precision, {})
        if not learnt:
            table.add_row(name, size, "none: no images on record", "", "", "", "")
        for i, (label, threshold) in enumerate(learnt.items()):
            first = ("", "") if i else (name, size)
            bound = threshold.bound
            rates = () if bound is None else (bound.expected or bound.rate, bound.rate)
            shown = [percent(rate) for rate in rates] or ["", ""]
            table.add_row(*first, label, f"{threshold.value:.3f}", *shown, str(threshold.images))
    results.print(table)
    threshold_changes.say(changes)
    for name, source in _other_sources(manifest).items():
        results.print(f"The threshold of {name} rests on {source}.", markup=False, soft_wrap=True)
    results.print(_graph_table(manifest.graph))
    if manifest.calibration is not None:
        calibrated = manifest.calibration
        results.print(
            f"INT8: {calibrated.method}, from {counted(len(calibrated.images), 'image')}"
            + ("" if calibrated.converged else "; more would still move them"),
            soft_wrap=True,
        )
        results.print(
            f"{counted(calibrated.int8_layers, 'layer')} in int8; {calibrated.float_layers} more "
            f"could be and stay in float: {target / PLAN_NAME} names them and says why",
            markup=False,
            soft_wrap=True,
        )
        _say_what_is_fastest(bundle)
    if manifest.fp16 is not None:
        cast = manifest.fp16
        results.print(
            f"float16: {counted(cast.nodes, 'node')}; the largest value, {cast.amax:.4g}, stays "
            "below the limit of 65504; in float32 for theirs: "
            f"{counted(len(cast.islands), 'node')}",
            soft_wrap=True,
        )
    if triton is not None:
        backend = known_triton_backend(triton_backend)
        for precision in served_precisions(manifest, None, backend):
            model = triton / model_name(precision)
            results.print(f"Triton model {model}", markup=False, soft_wrap=True)
    for note in manifest.notes:
        messages.print(f"Look at {note}.", markup=False, soft_wrap=True)
    threshold_changes.say_notes(threshold_changes.threshold_notes(manifest.thresholds))


def _other_sources(manifest: BundleManifest) -> dict[str, str]:
    """Return what thresholds rest on that do not rest on a random share, by category."""
    from hvq_edge.verdict.calibrate.gathering import HELD_OUT

    return {
        name: threshold.bound.source
        for learnt in manifest.thresholds.values()
        for name, threshold in learnt.items()
        if threshold.bound is not None and threshold.bound.source != HELD_OUT
    }


def _manifest_before(folder: Path) -> BundleManifest | None:
    """Return the manifest of a bundle that will be replaced; ``None``: there is none to read."""
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.errors import BundleError

    try:
        return open_bundle(folder).manifest
    except BundleError:
        return None


def _losses(folder: Path, before: BundleManifest | None) -> list[str]:
    """Return what goes with a bundle that will be replaced and is in no run, a sentence each."""
    from shlex import quote

    from hvq_edge.bundle.integrity.content import SIGNATURE_NAME
    from hvq_edge.runtime.tensorrt.engine_file import ENGINES_FOLDER

    bundle, losses = quote(str(folder)), []
    if any((folder / ENGINES_FOLDER).glob("*.plan")):
        losses.append(
            "the engines of the former bundle are gone: run hvq-edge build "
            f"{bundle} again, on the device of each"
        )
    losses += [
        f"{added.category}, which the former bundle got by --on-device, is gone: run hvq-edge "
        f"add-category {quote(added.category)} --good DIR, without --on-device, and export that run"
        for added in (before.added if before else ())
    ]
    learnt = sorted({one.category for one in before.learnt}) if before else []
    if learnt:
        losses.append(
            f"what the former bundle had learnt of {', '.join(learnt)} is gone: run hvq-edge "
            f"learn {bundle} --good DIR again"
        )
    if (folder / SIGNATURE_NAME).exists():
        losses.append(
            f"the signature of the former bundle is gone: run hvq-edge sign {bundle} again"
        )
    return losses


def _say_what_is_fastest(bundle: Bundle) -> None:
    """Time the files of a CPU as an engine ``auto`` would, and say whether INT8 wins here."""
    from hvq_edge.errors import HvqEdgeError
    from hvq_edge.runtime.open_engine import choose

    try:
        chosen = choose(bundle)
    except HvqEdgeError as error:  # the bundle is written; another machine may run it
        messages.print(f"No engine could be timed: {error}", markup=False, soft_wrap=True)
        return
    if chosen.precision == "int8":
        said = f"On this machine INT8 wins. {chosen.reason}"
    else:
        said = (
            f"On this machine INT8 does not win: use --precision {chosen.precision} "
            f"--backend {chosen.backend} (auto takes it). {chosen.reason}"
        )
    results.print(said, markup=False, soft_wrap=True)


def _graph_table(graph: GraphRecord) -> Table:
    from rich.table import Table

    table = Table(title="Float32 graph", title_justify="left")
    table.add_column("")
    for heading in ("nodes", "weights", "in tables", "MB", "multiply-adds an image"):
        table.add_column(heading, justify="right")
    for name, numbers in (("nothing folded", graph.plain), ("exported", graph.exported)):
        table.add_row(
            name,
            str(numbers.nodes),
            f"{numbers.weights / 1e6:.2f} M",
            f"{numbers.tables / 1e6:.2f} M",
            f"{numbers.bytes / 1e6:.1f}",
            f"{numbers.multiply_adds / 1e6:.0f} M",
        )
    return table
