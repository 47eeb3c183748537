"""``hvq-edge calibrate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.options import (
    BackendOption,
    BundleArgument,
    BundleOption,
    ConfidenceOption,
    FalseRejectOption,
    ForceOption,
    JsonOption,
    MethodOption,
    ProviderOption,
    RunOption,
)
from hvq_edge.run.latest import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from hvq_edge.bundle.manifest import Precision
    from hvq_edge.verdict.tolerance_bound import ThresholdRule


def calibrate(
    bundle: BundleArgument = DEFAULT_BUNDLE,
    named: BundleOption = None,  # noqa: ARG001  # it is in the bundle
    good: Annotated[
        Path | None,
        typer.Option(
            "--good",
            help="Folder of images of good parts that the model has not seen: loose, or a folder "
            "a category.",
            show_default=False,
        ),
    ] = None,
    false_reject: FalseRejectOption = None,
    confidence: ConfidenceOption = None,
    method: MethodOption = None,
    operating_point: Annotated[
        str | None,
        typer.Option(
            "--operating-point",
            metavar="POINT",
            help="Choose on labelled test images, defects included: f1, recall=0.95 or "
            "false-reject=0.02.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Labelled test images to evaluate first. Default: those that hvq-edge eval has "
            "judged.",
            show_default=False,
        ),
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Bring back the thresholds before the last change.")
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            "--precision", help="fp32, fp16, int8, int8-fp16, or auto: all that the bundle has."
        ),
    ] = "auto",
    backend: BackendOption = "auto",
    provider: ProviderOption = None,  # noqa: ARG001  # it is in the backend
    run: RunOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set thresholds from images of good parts.

    They keep to a false-reject rate with a stated confidence. Those that would probably let defects
    pass are refused (exit code 1). What replaces what is printed, and kept for --undo. From good
    parts at the camera: hvq-edge stream --calibrate.
    """
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.cli import threshold_changes
    from hvq_edge.evaluation.acceptance.model_card import refresh_card
    from hvq_edge.runtime.open_engine import known_precisions
    from hvq_edge.verdict.calibrate.from_images import Calibrated, calibrate_run

    _check_ways(
        {"--good": good, "--operating-point": operating_point, "--undo": undo or None},
        {
            "--false-reject": false_reject,
            "--confidence": confidence,
            "--method": method,
            "--force": force or None,
            "--data": data if undo else None,
        },
    )
    precisions = known_precisions(precision)
    if operating_point is not None:
        from hvq_edge.evaluation.chosen_threshold import choose_thresholds, read_point

        point = read_point(operating_point)
        before = open_bundle(bundle)
        precisions = precisions or tuple(before.manifest.models)
        _evaluate(bundle, data, precisions, backend)
        done = Calibrated(*choose_thresholds(before, point, precisions))
        refresh_card(bundle)
        threshold_changes.show(done, done.thresholds, as_json=as_json)
    elif undo:
        _undo(bundle, as_json=as_json)
    else:
        assert good is not None
        wanted = asked(false_reject, confidence, method)
        if data is not None:
            _evaluate(
                bundle, data, precisions or tuple(open_bundle(bundle).manifest.models), backend
            )
        with progress_bars() as bars:
            done = calibrate_run(
                bundle,
                good,
                precisions=precisions,
                backend=backend,
                run=run,
                force=force,
                on_progress=bars,
                **wanted,
            )
        refresh_card(bundle)
        threshold_changes.show(done, done.thresholds, as_json=as_json)


def _check_ways(ways: Mapping[str, object], of_good: Mapping[str, object]) -> None:
    """Refuse none or several of the ways to set thresholds, and what only one of them takes."""
    from hvq_edge.errors import SettingsError

    given = [flag for flag, value in ways.items() if value is not None]
    if not given:
        raise SettingsError(
            "no folder with images of good parts is named.",
            next_step="give --good DIR, or show good parts to the camera: "
            "hvq-edge stream --camera 0 --calibrate 500",
        )
    idle = [flag for flag, value in of_good.items() if value is not None]
    if len(given) > 1 or (idle and given != ["--good"]):
        raise SettingsError(
            f"{' and '.join([*given, *idle])} do not go together.",
            next_step="give one of --good, --operating-point and --undo",
        )


def _evaluate(
    bundle: Path, data: Path | None, precisions: Sequence[Precision], backend: str
) -> None:
    """Judge labelled test images, where a folder of them is named."""
    from hvq_edge.evaluation.evaluate_target import evaluate_target

    for precision in precisions if data is not None else ():
        with progress_bars() as bars:
            evaluate_target(bundle, data, precision=precision, backend=backend, on_progress=bars)


def _undo(folder: Path, *, as_json: bool) -> None:
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.bundle.thresholds import undo_thresholds
    from hvq_edge.cli import threshold_changes
    from hvq_edge.evaluation.acceptance.model_card import refresh_card
    from hvq_edge.evaluation.threshold_change import threshold_changes as compare

    before = open_bundle(folder).manifest
    bundle, former = undo_thresholds(folder)
    refresh_card(folder)
    changes = compare(bundle, before, former.thresholds, undone=True)
    left = len(bundle.manifest.former_thresholds)
    if as_json:
        print_json(
            {
                "bundle": str(folder),
                "undone": {"why": former.why, "replaced": former.replaced},
                "changes": threshold_changes.as_values(changes),
                "notes": threshold_changes.signature_notes(bundle),
            }
        )
        return
    results.print(
        f"Undone: {former.why}, {former.replaced}. Earlier changes that --undo can take back: "
        f"{left}.",
        markup=False,
        soft_wrap=True,
    )
    threshold_changes.say(changes, undone=True)
    for note in threshold_changes.signature_notes(bundle):
        messages.print(f"Note: {note}.", markup=False, soft_wrap=True)


class Asked(TypedDict, total=False):
    """What thresholds are to keep to, as far as a user says it."""

    false_reject: float
    confidence: float
    rule: ThresholdRule


def asked(false_reject: float | None, confidence: float | None, method: str | None) -> Asked:
    """Return what was given with ``--false-reject``, ``--confidence`` and ``--method``.

    Raises:
        SettingsError: there is no such method.
    """
    given = Asked()
    if false_reject is not None:
        given["false_reject"] = false_reject
    if confidence is not None:
        given["confidence"] = confidence
    if method is not None:
        given["rule"] = _rule(method)
    return given


def _rule(method: str) -> ThresholdRule:
    """Return the way from scores to a threshold that a name means."""
    from hvq_edge.errors import SettingsError
    from hvq_edge.verdict.calibrate.expected_rate import expected_rate
    from hvq_edge.verdict.tolerance_bound import order_statistic

    if method == "expected-rate":
        return expected_rate
    if method == "order-statistics":
        return order_statistic
    if method == "extreme-value":
        import scipy.stats  # noqa: F401  # before minutes of work: it may not be installed

        from hvq_edge.verdict.extreme_values import extreme_value

        return extreme_value
    raise SettingsError(
        f"method {method!r} is none of expected-rate, order-statistics and extreme-value.",
        next_step="use one of these names",
    )
