"""The table of ``hvq-edge eval``, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import Console
from rich.table import Table

from hvq_edge.evaluation.metrics.results import CategoryMetrics, Evaluation
from hvq_edge.verdict.judgement import VerdictCounts

COLUMNS: dict[str, str] = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1": "image F1max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1": "pixel F1max",
    "pixel_aupro": "pixel AUPRO",
    "category_accuracy": "category right",
    "image_recall_at_5": "recall 5%",
    "image_recall_at_1": "recall 1%",
}
"""Headings by field of :class:`~hvq_edge.evaluation.metrics.results.Metrics`."""

_SHORT = {
    "defects": "def.",
    "recall 5%": "rec. 5%",
    "recall 1%": "rec. 1%",
    "false rejects": "false rej.",
    "missed": "mis- sed",
    "undecided": "unde- cided",
}
_SHORT_IN_WORDS = "def.: defects; rec.: recall; rej.: rejects"
_UNDECIDED_IN_WORDS = "; undecided: good + defective"


@dataclass(frozen=True)
class _Column:
    heading: str
    cell: Callable[[CategoryMetrics], str]
    mean: str = ""


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


def metrics_tables(evaluation: Evaluation, width: int) -> tuple[Table, ...]:
    """Lay out an evaluation: a row a category, and the mean.

    Args:
        evaluation: the results.
        width: of the terminal, in characters.

    Returns:
        One table where it fits: spaced out if possible, else with shorter headings, for which 100
        columns are enough. Else one about images; one about pixels,
        with the categories that have masks; and, where it does not fit beside the images, one
        about the decisions. Each then takes 54 characters beside a category's name of 15.
    """
    columns = columns_of(evaluation)
    title = f"Test images, {way_in_words(evaluation)} (%)"
    counts = [
        _Column("good", lambda one: str(one.good)),
        _Column("defects", lambda one: str(one.defective)),
    ]
    decisions = [
        _Column("false rejects", lambda one: _count(one.false_rejects)),
        _Column("missed", lambda one: _count(one.missed)),
    ]
    undecided = [
        _undecided(heading, of)
        for heading, of in (
            ("good undecided", lambda one: one.good_verdicts),
            ("defects undecided", lambda one: one.defective_verdicts),
        )
        if any(found.no_decision for found in map(of, evaluation.categories) if found)
    ]
    both = [_Column("undecided", _undecided_of_both)] if undecided else []
    short = [*decisions, *both]
    decisions += undecided
    if all(one.false_rejects is None for one in evaluation.categories):
        decisions = short = []
    recalls = {field: name for field, name in columns.items() if "recall" in field}
    columns = {field: name for field, name in columns.items() if field not in recalls}
    decisions = [*_metrics(evaluation, recalls), *decisions]
    short = [*_metrics(evaluation, recalls), *short]

    def table(title: str, columns: Sequence[_Column], padding: int = 0) -> Table:
        return _table(title, evaluation.categories, columns, padding)

    everything = [*counts, *_metrics(evaluation, columns), *decisions]
    for padding in (1, 0):
        whole = table(title, everything, padding)
        if _fits(whole, width):
            return (whole,)
    shortened = map(_shortened, [*counts, *_metrics(evaluation, columns), *short])
    whole = table(title, list(shortened))
    whole.caption = _SHORT_IN_WORDS + _UNDECIDED_IN_WORDS * bool(both)
    whole.caption_justify = "left"
    if Console(width=10_000).measure(whole).minimum <= width:  # long names of categories fold
        return (whole,)
    of_pixels = {field: name for field, name in columns.items() if field.startswith("pixel_")}
    of_images = {field: name for field, name in columns.items() if field not in of_pixels}
    about_images = [*counts, *_metrics(evaluation, of_images)]
    tables = [table(title, [*about_images, *decisions])]
    if decisions and not _fits(tables[0], width):
        decided = table("Recall (%), decisions at the thresholds", [*counts, *decisions])
        tables = [table(title, about_images), decided]
    if of_pixels:
        masked = [one for one in evaluation.categories if one.regions is not None]
        about_pixels = _metrics(evaluation, of_pixels)
        tables.insert(1, _table("Pixels, where there are masks (%)", masked, about_pixels, 0))
    return tuple(tables)


_COMPARED = ("image_auroc", "pixel_auroc", "image_recall_at_5", "image_recall_at_1")
"""Metrics that tell whether a precision loses anything."""


def comparison_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """Lay out evaluations of the same images beside each other.

    Args:
        evaluations: by precision, at least one.

    Returns:
        A table that takes 65 characters beside a category's name, where counts have two digits.
    """
    some = next(iter(evaluations.values()))
    metrics = {field: COLUMNS[field] for field in _COMPARED if field in columns_of(some)}
    table = Table(
        title=f"Test images, {way_in_words(some)} (%)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("category", overflow="fold", min_width=12)
    table.add_column("precision", no_wrap=True)
    headings = (*metrics.values(), "false rejects", "missed", "un- decided")
    for heading in headings:
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    rows: dict[str, dict[str, CategoryMetrics]] = {}
    for precision, evaluation in evaluations.items():
        for one in evaluation.categories:
            rows.setdefault(one.category, {})[precision] = one
    for category, found in rows.items():
        for precision, one in found.items():
            counts = (one.good_verdicts, one.defective_verdicts)
            undecided = [counted.no_decision for counted in counts if counted is not None]
            table.add_row(
                category if one is next(iter(found.values())) else "",
                precision,
                *(percent(getattr(one, field)) for field in metrics),
                _of(one.false_rejects, one.good),
                _of(one.missed, one.defective),
                _of(sum(undecided) if undecided else None, one.good + one.defective),
            )
    if len(rows) > 1:
        table.add_section()
        for number, (precision, evaluation) in enumerate(evaluations.items()):
            means = [percent(getattr(evaluation.mean, field)) for field in metrics]
            table.add_row("" if number else "mean", precision, *means, style="bold")
    return table


def _of(count: int | None, total: int) -> str:
    return "–" if count is None else f"{count}/{total}"


def _undecided(heading: str, of: Callable[[CategoryMetrics], VerdictCounts | None]) -> _Column:
    """Return the column of images that the line decides nothing on."""
    return _Column(heading, lambda one: str(counts.no_decision) if (counts := of(one)) else "–")


def _undecided_of_both(one: CategoryMetrics) -> str:
    """Return the images that the line decides nothing on, as good + defective ones."""
    counts = (one.good_verdicts, one.defective_verdicts)
    return "+".join("–" if found is None else str(found.no_decision) for found in counts)


def _shortened(column: _Column) -> _Column:
    """Return a column with a short heading, without the decimal of what is all."""

    def cell(one: CategoryMetrics) -> str:
        return _short_cell(column.cell(one))

    heading = _SHORT.get(column.heading, column.heading)
    return replace(column, heading=heading, cell=cell, mean=_short_cell(column.mean))


def _short_cell(cell: str) -> str:
    return "100" if cell == "100.0" else cell


def _fits(table: Table, width: int) -> bool:
    return Console(width=10_000).measure(table).maximum <= width


def _metrics(evaluation: Evaluation, columns: Mapping[str, str]) -> list[_Column]:
    def column(field: str, heading: str) -> _Column:
        mean = percent(getattr(evaluation.mean, field))
        return _Column(heading, lambda one: percent(getattr(one, field)), mean)

    return [column(field, heading) for field, heading in columns.items()]


def _table(
    title: str,
    rows: Sequence[CategoryMetrics],
    columns: Sequence[_Column],
    padding: int,
) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, padding, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("category", overflow="fold", min_width=12)
    for column in columns:
        two_lines = column.heading.replace("category right", "cat. right").replace(" ", "\n")
        table.add_column(two_lines, justify="right", no_wrap=True)
    for one in rows:
        table.add_row(one.category, *(column.cell(one) for column in columns))
    if len(rows) > 1 and any(column.mean for column in columns):
        table.add_section()
        table.add_row("mean", *(column.mean for column in columns), style="bold")
    return table


def _count(value: int | None) -> str:
    return "–" if value is None else str(value)
