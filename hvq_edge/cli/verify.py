"""``hvq-edge verify``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import print_json, progress_bars, results
from hvq_edge.cli.options import BundleArgument, BundleOption, JsonOption, RunOption
from hvq_edge.common.wording import counted
from hvq_edge.run.latest import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.bundle.opened import Bundle
    from hvq_edge.bundle.verification import Bisection, SideVerdict, Verification
    from hvq_edge.errors import GateFailed


def verify(
    bundle: BundleArgument = DEFAULT_BUNDLE,
    named: BundleOption = None,  # noqa: ARG001  # it is in the bundle
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder with test images. Default: the training data's."),
    ] = None,
    run: RunOption = None,
    images: Annotated[
        int, typer.Option("--images", min=1, help="Compare at most so many, balanced.")
    ] = 96,
    max_changed: Annotated[
        float | None,
        typer.Option(
            "--max-changed",
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Share of the images, of all and of each category, whose decision may change. "
            "Default: 0 for float32, 0.05 for reduced precision.",
            show_default=False,
        ),
    ] = None,
    bisect: Annotated[
        bool,
        typer.Option(
            "--bisect", help="Name the first layer that differs, of each precision that fails."
        ),
    ] = False,
    providers: Annotated[
        list[str] | None,
        typer.Option(
            "--provider",
            help="Run this provider of ONNX Runtime too: cuda, tensorrt or tensorrt-rtx; may be "
            "repeated. Default: those that auto would try here.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare every graph with the PyTorch model on images.

    Polygraphy runs them. Ends with exit code 1 when an output, the codes or the decisions are
    outside their limits.
    """
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.errors import RunError
    from hvq_edge.export.verify.verify import verify_bundle
    from hvq_edge.run.record import RECORD_NAME, recorded_data

    open_bundle(bundle)  # a folder that holds none is named, not the run that would be around it
    around = bundle.resolve().parent
    if run is None and not (around / RECORD_NAME).exists():
        raise RunError(
            f"{bundle} stands alone: the PyTorch model that it is compared with is in its run.",
            next_step="name the run with --run; where there is none, "
            f"hvq-edge doctor --bundle {bundle} holds it to its known answers",
        )
    run = run or around
    if data is None:
        data = recorded_data(run)
    with progress_bars() as bars:
        verification = verify_bundle(
            bundle,
            run,
            data,
            most_images=images,
            max_changed=max_changed,
            bisect=bisect,
            providers=providers or (),
            on_progress=bars,
        )
    if as_json:
        print_json(verification.model_dump(mode="json"))
    else:
        results.print(verify_table(verification))
        for line in remarks(verification):
            results.print(line, markup=False, soft_wrap=True)
        for bisection in verification.bisections:
            results.print()
            results.print(bisection_table(bisection))
    if not verification.passed:
        raise failure(verification, open_bundle(bundle), bisected=bisect)


def failure(verification: Verification, bundle: Bundle, *, bisected: bool) -> GateFailed:
    """Say what failed, and what helps: a layer is not at fault where thresholds are unlike."""
    from hvq_edge.bundle.thresholds import changed_by_thresholds
    from hvq_edge.errors import GateFailed

    faults = [f"{precision} on {fault}" for precision, fault in verification.faults]
    cause = "the bundle differs from the PyTorch model by more than is allowed: "
    cause += "; ".join(faults) + "."
    next_step = f"see {bundle.path / 'verify.json'} for every number"
    unlike = changed_by_thresholds(verification, bundle.manifest)
    if unlike:
        for precision, names in unlike.items():
            cause += (
                f" The thresholds of {precision} were not learnt as those of fp32 were "
                f"({', '.join(names)}), which alone changes decisions."
            )
        next_step = (
            f"run hvq-edge calibrate {bundle.path} --good DIR, which sets those of every "
            f"precision, then verify again; {next_step}"
        )
    elif not bisected:
        next_step += "; hvq-edge verify --bisect names the layer"
    return GateFailed(cause, next_step=next_step)


def verify_table(verification: Verification) -> Table:
    """Show each comparison as a row, within 80 columns."""
    from rich.table import Table

    table = Table(
        title=f"Against PyTorch on {counted(verification.images, 'image')}",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("model", vertical="bottom", no_wrap=True)
    # A provider's name takes two lines.
    table.add_column("engine", vertical="bottom", min_width=12)
    headings = (
        "map\nerror",
        "corre-\nlation",
        "score error\np50/p95/max",
        "equal\ncodes",
        "equal\ncat.",
        "verdicts\nchanged",
    )
    for heading in headings:
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    table.add_column("", vertical="bottom", no_wrap=True)
    for row in verification.comparisons:
        errors = (row.score_error_median, row.score_error_p95, row.score_error_max)
        table.add_row(
            row.precision,
            row.runner,
            _short(row.map_error),
            f"{row.map_correlation:.5f}",
            "/".join(map(_short, errors)),
            f"{min(row.code_agreement):.1%}",
            f"{row.category_agreement:.0%}",
            f"{len(row.decisions_changed)}",
            "passed" if row.passed else "FAILED",
        )
    return table


def _short(error: float) -> str:
    return f"{error:.1g}".replace("e-0", "e-")


def remarks(verification: Verification) -> Iterator[str]:
    """Say which decisions changed, what was not run, and how to repeat it, a line each."""
    seen: set[tuple[str, str]] = set()
    for row in verification.comparisons:
        for category in row.decisions:
            for one in category.changed:
                if (row.precision, one.image) in seen:
                    continue
                seen.add((row.precision, one.image))
                words = [side.verdict.replace("_", " ") for side in (one.reference, one.other)]
                yield (
                    f"{row.precision}, {category.category}: {one.image} "
                    f"({'good' if one.good else 'defective'}) was {words[0]} at "
                    f"{_score(one.reference)}, is {words[1]} at {_score(one.other)}"
                )
    for missing in verification.not_run:
        what = f"{missing.precision} on " if missing.precision else ""
        yield f"Not run here: {what}{missing.runner}: {missing.reason}"
    for precision, command in verification.commands.items():
        yield f"To repeat {precision} with Polygraphy alone:\n  {command}"


def _score(side: SideVerdict) -> str:
    threshold = "no threshold" if side.threshold is None else f"{side.threshold:.4g}"
    return f"{side.score:.4g} (threshold {threshold})"


def bisection_table(bisection: Bisection) -> Table:
    """Show the first tensor outside the tolerance, and those before it."""
    from rich.table import Table

    first = bisection.first
    if first is None:
        title = (
            f"{bisection.precision}: none of {bisection.compared} tensors is further than "
            f"{bisection.tolerance:g} from {bisection.against}; the worst:"
        )
    else:
        title = (
            f"{bisection.precision}: leaves {bisection.against} at {first.module} "
            f"({bisection.compared} tensors, tolerance {bisection.tolerance:g}, "
            f"{bisection.image})"
        )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    for heading in ("module", "operator", "tensor"):
        table.add_column(heading)
    table.add_column("error", justify="right")
    table.add_column("")
    for one in bisection.before:
        table.add_row(one.module, one.operator, one.tensor, f"{one.error:.1e}", "")
    if first is not None:
        cells = (first.module, first.operator, first.tensor, f"{first.error:.1e}")
        table.add_row(*cells, "<- first outside", style="bold")
    return table
