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
    ConfidenceOption,
    FalseRejectOption,
    ForceOption,
    JsonOption,
    MethodOption,
    RunOption,
)
from hvq_edge.run.latest import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.bundle.manifest import Bundle, Precision
    from hvq_edge.stream.calibrate import StreamCalibration
    from hvq_edge.verdict.calibrate.from_images import Calibrated
    from hvq_edge.verdict.threshold import Threshold
    from hvq_edge.verdict.tolerance_bound import ThresholdRule

_NAMED = 5
"""Rejected good images that are named."""


def calibrate(
    bundle: BundleArgument = DEFAULT_BUNDLE,
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
    run: RunOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set thresholds from images of good parts, for a false-reject rate with a stated confidence.

    Thresholds that would probably let defects pass are refused (exit code 1). What replaces what is
    printed, and kept for --undo. From good parts at the camera: hvq-edge stream --calibrate.
    """
    from hvq_edge.bundle.manifest import open_bundle
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
        show(done, done.thresholds, as_json=as_json)
    elif undo:
        _undo(bundle, as_json=as_json)
    else:
        assert good is not None
        promise = asked(false_reject, confidence, method)
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
                **promise,
            )
        show(done, done.thresholds, as_json=as_json)


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
    from hvq_edge.bundle.manifest import open_bundle
    from hvq_edge.bundle.thresholds import undo_thresholds
    from hvq_edge.cli import threshold_changes
    from hvq_edge.evaluation.threshold_change import threshold_changes as compare

    before = open_bundle(folder).manifest
    bundle, former = undo_thresholds(folder)
    changes = compare(bundle, before, former.thresholds)
    left = len(bundle.manifest.former_thresholds)
    if as_json:
        print_json(
            {
                "bundle": str(folder),
                "undone": {"why": former.why, "replaced": former.replaced},
                "changes": threshold_changes.as_json(changes),
                "notes": _signature_notes(bundle),
            }
        )
        return
    results.print(
        f"Undone: {former.why}, {former.replaced}. Earlier changes that --undo can take back: "
        f"{left}.",
        markup=False,
        soft_wrap=True,
    )
    threshold_changes.say(changes)
    for note in _signature_notes(bundle):
        messages.print(f"Note: {note}.", markup=False, soft_wrap=True)


class Asked(TypedDict, total=False):
    """What thresholds are to promise, as far as a user says it."""

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


def show(
    done: Calibrated | StreamCalibration,
    thresholds: Mapping[Precision, Mapping[str, Threshold]],
    *,
    as_json: bool = False,
) -> None:
    """Print what was learnt; ``hvq-edge stream --calibrate`` prints the same.

    Args:
        done: the calibration.
        thresholds: the new ones.
        as_json: as one JSON document on standard output.
    """
    from hvq_edge.bundle.thresholds import before_last_change
    from hvq_edge.cli import threshold_changes
    from hvq_edge.evaluation.threshold_change import threshold_changes as compare

    notes, rejected = _remarks(done, thresholds)
    changes = compare(done.bundle, before_last_change(done.bundle.manifest), thresholds)
    if as_json:
        named = {
            precision: {
                name: threshold.model_dump(mode="json", exclude={"calibration_scores"})
                for name, threshold in learnt.items()
            }
            for precision, learnt in thresholds.items()
        }
        print_json(
            {
                "bundle": str(done.bundle.path),
                "thresholds": named,
                "changes": threshold_changes.as_json(changes),
                "rejected": rejected,
                "notes": notes,
            }
        )
        return
    results.print(thresholds_table(thresholds, f"Thresholds of {done.bundle.path}"))
    threshold_changes.say(changes)
    for name, images in rejected.items():
        more = f" and {len(images) - _NAMED} more" if len(images) > _NAMED else ""
        messages.print(
            f"Look at the good images of {name} that are rejected now: "
            f"{', '.join(list(images)[:_NAMED])}{more}.",
            markup=False,
            soft_wrap=True,
        )
    for note in notes:
        messages.print(f"Note: {note}.", markup=False, soft_wrap=True)


def thresholds_table(thresholds: Mapping[Precision, Mapping[str, Threshold]], title: str) -> Table:
    """Show thresholds with their promises, a row each, within 100 columns."""
    from rich.table import Table

    from hvq_edge.verdict.tolerance_bound import percent

    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    for heading in ("category", "model"):
        table.add_column(heading, no_wrap=True)
    headings = ("threshold", "good\nparts", "false rejects\nexpected", "at most", "at confidence")
    for heading in headings:
        table.add_column(heading, justify="right", vertical="bottom")
    table.add_column("", no_wrap=True)
    for precision, learnt in thresholds.items():
        for name, threshold in learnt.items():
            promise = threshold.bound
            if promise is None:
                table.add_row(name, precision, f"{threshold.value:.4g}", "", "", "", "", "")
                continue
            short = f"needs {promise.needed} for {percent(promise.asked or 0)}"
            table.add_row(
                name,
                precision,
                f"{threshold.value:.4g}",
                str(promise.images),
                "–" if promise.expected is None else percent(promise.expected),
                percent(promise.rate),
                f"{100 * promise.confidence:.4g} %",
                "" if promise.met else short,
            )
    return table


def _remarks(
    done: Calibrated | StreamCalibration,
    thresholds: Mapping[Precision, Mapping[str, Threshold]],
) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Return notes, and the good images that are rejected now."""
    from hvq_edge.verdict.calibrate.from_images import Calibrated

    notes = list(done.notes)
    rejected = done.rejected if isinstance(done, Calibrated) else {}
    if not isinstance(done, Calibrated):
        if done.unusable:
            missed = ", ".join(f"{count} {why}" for why, count in done.unusable.items())
            notes.append(f"{sum(done.unusable.values())} frames led to no decision: {missed}")
        if done.copies:
            notes.append(f"{done.copies} frames were copies of others: each counts once")
    notes += threshold_notes(thresholds)
    served = done.bundle.manifest.categories
    for precision, learnt in thresholds.items():
        without = [name for name in served if name not in learnt]
        if without:
            notes.append(f"no good part of {', '.join(without)} was seen at {precision}")
    notes += _signature_notes(done.bundle)
    return notes, {name: images for name, images in rejected.items() if images}


def _signature_notes(bundle: Bundle) -> list[str]:
    from hvq_edge.bundle.integrity.signature import doubts_without_key

    if not doubts_without_key(bundle):  # not signed, or undone to what was signed
        return []
    return [
        "the bundle was signed, and its signature no longer holds, because its thresholds "
        f"changed: run hvq-edge sign {bundle.path} --key FILE again"
    ]


def threshold_notes(thresholds: Mapping[Precision, Mapping[str, Threshold]]) -> list[str]:
    """Say why thresholds may not hold, and name what was set aside once for all precisions."""
    found: dict[str, list[str]] = {}
    notes: list[str] = []
    for precision, learnt in thresholds.items():
        for name, threshold in learnt.items():
            found.setdefault(name, []).extend(threshold.set_aside)
            warnings = threshold.bound.warnings if threshold.bound else ()
            notes += [f"{name} at {precision}: {warning}" for warning in warnings]
    return notes + [
        f"the scores of the other good images do not explain that of {', '.join(images)} "
        f"({name}): set aside. If that part is not good, take it out of the good images"
        for name, several in found.items()
        if (images := list(dict.fromkeys(several)))
    ]


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
