"""What a change of thresholds does, printed alike by every command that sets some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hvq_edge.cli.console import messages, results

if TYPE_CHECKING:
    from hvq_edge.evaluation.metrics.intervals import Share
    from hvq_edge.evaluation.threshold_change import BeforeAndNow, ThresholdChange


def as_json(changes: Sequence[ThresholdChange]) -> list[dict[str, Any]]:
    """Return changes as JSON values."""
    return [asdict(change) for change in changes]


def say(changes: Sequence[ThresholdChange]) -> None:
    """Print each change: old and new threshold, good parts lost, defects found, and what set it."""
    for one in changes:
        by = f", set by {one.set_by}" if one.set_by else ""
        _print(
            f"{one.category}, {one.precision}: threshold {_value(one.old)} → {_value(one.new)}{by}"
        )
        _print(f"  good parts lost, of those it was learnt from: {_counts(one.good_shown)}")
        if one.defects.now or one.defects.before:
            _print(f"  defects found, of the test images: {_counts(one.defects)}")
            _print(f"  good test images rejected: {_counts(one.good_tested)}")
    for why in dict.fromkeys(one.untested for one in changes if one.untested):
        messages.print(f"Defects found are not known: {why}", markup=False, soft_wrap=True)


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
