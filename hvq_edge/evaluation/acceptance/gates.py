"""Limits that mean metrics must reach: ``hvq-edge eval --min``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hvq_edge.errors import DatasetError, GateFailed, SettingsError
from hvq_edge.evaluation.metrics.results import Evaluation, Metrics
from hvq_edge.evaluation.table import COLUMNS, way_in_words

DEFAULT_METRIC = "image_auroc"


@dataclass(frozen=True)
class Gate:
    """The least value that the mean of a metric may have."""

    metric: str
    """A field of :class:`~hvq_edge.evaluation.metrics.results.Metrics`."""
    least: float
    """0 to 1."""


def parse_gates(texts: Iterable[str]) -> tuple[Gate, ...]:
    """Read limits as they are written after ``--min``.

    Args:
        texts: each a number (of the image AUROC) or ``METRIC=NUMBER``.

    Raises:
        SettingsError: an unknown metric, or a number that is not from 0 to 1; all are listed.
    """
    gates: list[Gate] = []
    faults: list[str] = []
    for text in texts:
        metric, _, number = text.rpartition("=")
        try:
            gate = Gate(metric if "=" in text else DEFAULT_METRIC, float(number))
        except ValueError:
            faults.append(f"--min {text}: {number!r} is not a number")
            continue
        if gate.metric not in Metrics.model_fields:
            faults.append(f"--min {text}: there is no metric {gate.metric!r}")
        elif not 0.0 <= gate.least <= 1.0:
            faults.append(f"--min {text}: a limit is a share from 0 to 1, not per cent")
        gates.append(gate)
    if faults:
        raise SettingsError(
            "; ".join(faults) + ".",
            next_step="write for example --min 0.95 or --min pixel_aupro=0.9; the metrics are "
            + ", ".join(Metrics.model_fields),
        )
    return tuple(gates)


def hold_gates(evaluations: Sequence[Evaluation], gates: Iterable[Gate], *, next_step: str) -> None:
    """Compare the means of every evaluation that has the metric with their limits.

    Args:
        evaluations: of one engine on one dataset, at least one.
        gates: the limits.
        next_step: what to do when one is not reached.

    Raises:
        GateFailed: a mean is below its limit; all such are listed.
        DatasetError: no evaluation has the metric.
    """
    failed: list[str] = []
    for gate in gates:
        name = COLUMNS[gate.metric]
        measured = [
            (evaluation, mean)
            for evaluation in evaluations
            if (mean := getattr(evaluation.mean, gate.metric)) is not None
        ]
        if not measured:
            why, remedy = _why_missing(gate.metric)
            raise DatasetError(
                f"{evaluations[0].data} gives no {name} to compare with --min: {why}.",
                next_step=f"{remedy}, or leave this --min out",
            )
        failed += [
            f"the mean {name} is {mean:.4f} ({way_in_words(evaluation)}), below {gate.least:g}"
            for evaluation, mean in measured
            if mean < gate.least
        ]
    if failed:
        raise GateFailed("; ".join(failed) + ".", next_step=next_step)


def _why_missing(metric: str) -> tuple[str, str]:
    if metric == "category_accuracy":
        return (
            "the category was given with every image",
            "evaluate a model that chooses the category itself",
        )
    if metric.startswith("pixel_"):
        return (
            "no category has masks of its defective test images",
            "put masks in CATEGORY/ground_truth/DEFECT",
        )
    return (
        "no category has both good and defective test images",
        "add the missing test images",
    )
