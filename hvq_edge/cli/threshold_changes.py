"""New thresholds and what they change, printed alike by every command that sets some."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from shlex import quote
from typing import TYPE_CHECKING, Any

from hvq_edge.cli.console import messages, print_json, results
from hvq_edge.common.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.bundle.manifest import Precision
    from hvq_edge.bundle.opened import Bundle
    from hvq_edge.evaluation.threshold_change import BeforeAndNow, ThresholdChange
    from hvq_edge.stream.calibrate_from_stream import StreamCalibration
    from hvq_edge.verdict.calibrate.from_images import Calibrated
    from hvq_edge.verdict.threshold import Threshold
    from hvq_edge.verdict.tolerance import Share

_NAMED = 5
"""Rejected good images that are named."""
_AT_PRECISION = re.compile(r"(?<=\bat )(?:int8-fp16|int8|fp16|fp32)\b")


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
    from hvq_edge.evaluation.threshold_change import threshold_changes

    notes, rejected = _remarks(done, thresholds)
    changes = threshold_changes(done.bundle, before_last_change(done.bundle.manifest), thresholds)
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
                "changes": as_values(changes),
                "look": losses(changes, done.bundle),
                "rejected": rejected,
                "notes": notes,
            }
        )
        return
    results.print(thresholds_table(thresholds, f"Thresholds of {done.bundle.path}"))
    say(changes)
    for loss in losses(changes, done.bundle):
        messages.print(f"Look: {loss}.", markup=False, soft_wrap=True)
    for name, every in rejected.items():
        learnt = [one[name] for one in thresholds.values() if name in one]
        apart = {image for threshold in learnt for image in threshold.set_aside}
        images = [one for one in every if one not in apart]  # those have a note of their own
        if not images:
            continue
        more = f" and {len(images) - _NAMED} more" if len(images) > _NAMED else ""
        messages.print(
            f"Look at the good images of {name} that are rejected now: "
            f"{', '.join(images[:_NAMED])}{more}.",
            markup=False,
            soft_wrap=True,
        )
    say_notes(notes)


def say_notes(notes: Sequence[str]) -> None:
    """Print notes; one that says the same at several precisions once, with all of them."""
    precisions: dict[tuple[str, ...], list[str]] = {}
    for note in notes:
        found = _AT_PRECISION.search(note)
        parts = (note[: found.start()], note[found.end() :]) if found else (note,)
        precisions.setdefault(parts, []).append(found[0] if found else "")
    for around, named in precisions.items():
        said = " and ".join(dict.fromkeys(named)).join(around)
        messages.print(f"Note: {said}.", markup=False, soft_wrap=True)


def thresholds_table(thresholds: Mapping[Precision, Mapping[str, Threshold]], title: str) -> Table:
    """Show thresholds and their upper bounds, a row each, within 100 columns."""
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
            bound = threshold.bound
            if bound is None:
                table.add_row(name, precision, f"{threshold.value:.4g}", "", "", "", "", "")
                continue
            short = f"needs {bound.needed} for {percent(bound.asked or 0)}"
            table.add_row(
                name,
                precision,
                f"{threshold.value:.4g}",
                str(bound.images),
                "–" if bound.expected is None else percent(bound.expected),
                percent(bound.rate),
                f"{100 * bound.confidence:.4g} %",
                "" if bound.met else short,
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
            frames = counted(sum(done.unusable.values()), "frame")
            notes.append(f"{frames} led to no decision: {missed}")
        if done.copies:
            was = "was a copy of another" if done.copies == 1 else "were copies of others"
            notes.append(f"{counted(done.copies, 'frame')} {was}: each counts once")
    notes += threshold_notes(thresholds)
    served = done.bundle.manifest.categories
    for precision, learnt in thresholds.items():
        without = [name for name in served if name not in learnt]
        if without:
            notes.append(f"no good part of {', '.join(without)} was seen at {precision}")
    others = [name for name in done.bundle.manifest.models if name not in thresholds]
    if others:
        notes.append(
            f"the thresholds of {', '.join(others)} stay as they were: without --precision the "
            f"line takes {' or '.join(thresholds)} from now on"
        )
    notes += signature_notes(done.bundle)
    return notes, {name: images for name, images in rejected.items() if images}


def signature_notes(bundle: Bundle) -> list[str]:
    """Say that new thresholds ended a signature; nothing where they did not."""
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


def as_values(changes: Sequence[ThresholdChange]) -> list[dict[str, Any]]:
    """Return changes as JSON values."""
    return [asdict(change) for change in changes]


def say(changes: Sequence[ThresholdChange], *, undone: bool = False) -> None:
    """Print each change: old and new threshold, good parts lost, defects found, and what set it."""
    shown = "those that set the one before" if undone else "those that set it"
    for one in changes:
        by = f", set by {one.set_by}" if one.set_by else ""
        _print(
            f"{one.category}, {one.precision}: threshold {_value(one.old)} → {_value(one.new)}{by}"
        )
        _print(f"  good parts lost, of {shown}: {_counts(one.good_shown)}")
        if one.defects.now or one.defects.before:
            _print(f"  defects found, of the test images: {_counts(one.defects)}")
            _print(f"  good test images rejected: {_counts(one.good_tested)}")
        if one.known_defects.now or one.known_defects.before:
            _print(f"  known defects found, by cross-validation: {_counts(one.known_defects)}")
    for why in dict.fromkeys(one.untested for one in changes if one.untested):
        messages.print(f"Defects found are not known: {why}", markup=False, soft_wrap=True)


def losses(changes: Sequence[ThresholdChange], bundle: Bundle) -> list[str]:
    """Say where fewer defects are found than before: a sentence each without its full stop."""
    return [
        f"{one.category} at {one.precision} finds {one.defects.now.count} of "
        f"{counted(one.defects.now.total, 'defective test image')}, and found "
        f"{one.defects.before.count} before: if that is too few, hvq-edge calibrate "
        f"{quote(str(bundle.path))} --undo brings the thresholds back"
        for one in changes
        if one.defects.before is not None
        and one.defects.now is not None
        and one.defects.now.count < one.defects.before.count
    ]


def _counts(numbers: BeforeAndNow) -> str:
    return f"{_share(numbers.before)} → {_share(numbers.now)}"


def _share(share: Share | None) -> str:
    if share is None:
        return "–"
    low, high = 100 * share.interval.low, 100 * share.interval.high
    return f"{share.count} of {share.total} ({low:.1f} to {high:.1f} %)"


def _value(threshold: float | None) -> str:
    return "none" if threshold is None else f"{threshold:.4g}"


def _print(line: str) -> None:
    results.print(line, markup=False, highlight=False, soft_wrap=True)
