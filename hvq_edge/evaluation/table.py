"""The table of ``hvq-edge eval``, for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from hvq_edge.evaluation.results import Evaluation, Metrics

COLUMNS: dict[str, str] = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1": "image F1max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "category_accuracy": "category right",
}
"""Headings by field of :class:`~hvq_edge.evaluation.results.Metrics`."""


def columns_of(evaluation: Evaluation) -> dict[str, str]:
    """Return the headings of the metrics that are defined for at least one category."""
    return {
        field: heading
        for field, heading in COLUMNS.items()
        if getattr(evaluation.mean, field) is not None or field == "image_auroc"
    }


def percent(value: float | None) -> str:
    """Return a share as per cent with one decimal, ``–`` where it is not defined."""
    return "–" if value is None else f"{100 * value:.1f}"


def way_in_words(evaluation: Evaluation) -> str:
    """Say whether the category was given or chosen."""
    return "category known" if evaluation.known_category else "category chosen by the model"


def metrics_table(evaluation: Evaluation, *, wide: bool = False) -> Table:
    """Lay out an evaluation: a row a category, and the mean.

    Args:
        evaluation: the results.
        wide: space the columns out; else the table fits into 80 characters.
    """
    decided = any(one.false_rejects is not None for one in evaluation.categories)
    columns = columns_of(evaluation)
    table = Table(
        title=f"Test pictures, {way_in_words(evaluation)} (%)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1 if wide else 0, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("category", overflow="fold", min_width=12)
    extra = ("false rejects", "missed") if decided else ()
    for heading in ("good", "defects", *columns.values(), *extra):
        two_lines = heading.replace("category right", "cat. right").replace(" ", "\n")
        table.add_column(two_lines, justify="right", no_wrap=True)

    def shares(metrics: Metrics) -> list[str]:
        return [percent(getattr(metrics, field)) for field in columns]

    for one in evaluation.categories:
        counts = [_count(one.false_rejects), _count(one.missed)] if decided else []
        table.add_row(one.category, str(one.good), str(one.defective), *shares(one), *counts)
    if len(evaluation.categories) > 1:
        table.add_section()
        mean = shares(evaluation.mean)
        table.add_row("mean", "", "", *mean, *[""] * len(extra), style="bold")
    return table


def _count(value: int | None) -> str:
    return "–" if value is None else str(value)
