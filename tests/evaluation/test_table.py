"""The table of metrics, and gates on them."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
from helpers.graphs import CATEGORIES
from helpers.spotted_parts import data, run_evaluation  # noqa: F401  # fixtures
from rich.console import Console

from hvq_edge.errors import SettingsError
from hvq_edge.evaluation.acceptance.gates import Gate, parse_gates
from hvq_edge.evaluation.metrics.results import CategoryMetrics, Evaluation, Metrics
from hvq_edge.evaluation.table import COLUMNS, metrics_tables
from hvq_edge.verdict.judgement import VerdictCounts


def shown(tables, width):
    console = Console(width=width, file=StringIO())
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def test_table_shows_what_is_defined(run_evaluation):
    (table,) = metrics_tables(run_evaluation("auto"), 120)
    headings = [column.header for column in table.columns]
    assert headings[:4] == ["category", "good", "defects", "image\nAUROC"]
    assert headings[6:10] == ["pixel\nAUROC", "pixel\nAP", "pixel\nF1max", "pixel\nAUPRO"]
    assert "missed" not in headings
    assert list(table.columns[3].cells) == ["100.0", "66.7", "83.3"]
    bolt, nut, mean = table.columns[9].cells
    assert nut == "–"
    assert bolt == mean


def test_without_masks_the_table_has_no_pixel_columns(run_evaluation, data):
    for path in (data / "bolt/ground_truth/bright").iterdir():
        path.unlink()
    evaluation = run_evaluation("auto")
    for width in (66, 120):
        (table,) = metrics_tables(evaluation, width)
        assert "pixel" not in "".join(str(column.header) for column in table.columns)


@pytest.mark.parametrize(("width", "tables"), [(54, 3), (80, 2), (110, 1), (140, 1)])
def test_the_table_loses_nothing_at_any_width(run_evaluation, width, tables):
    evaluation = run_evaluation("auto", thresholds=dict.fromkeys(CATEGORIES, 1.0))
    found = metrics_tables(evaluation, width)
    assert len(found) == tables
    text = shown(found, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    wide = shown(metrics_tables(evaluation, 500), 500)
    words = {word for word in wide.split() if word != "–" and not word.startswith("─")}
    assert words <= set(text.split())
    assert {"bolt", "nut", "mean", "66.7", "AUROC", "AUPRO", "rejects", "missed"} <= words


@pytest.mark.parametrize("no_decision", [0, 50])
@pytest.mark.parametrize(
    "category", ["bolt", "solar_cell_mono", "a product with a rather long name"]
)
def test_100_columns_are_enough_for_everything(category, no_decision):
    numbers = dict.fromkeys(Metrics.model_fields, 0.987)
    counts = VerdictCounts(rejected=1234, passed=2345, no_decision=no_decision)
    one = CategoryMetrics(
        category=category,
        good=3579,
        defective=3579,
        image_f1_threshold=None,
        good_verdicts=counts,
        defective_verdicts=counts,
        regions=3,
        **{**numbers, "image_auroc": 1.0},
    )
    evaluation = Evaluation(Path(), False, (), (), (one, one), Metrics(**numbers))
    tables = metrics_tables(evaluation, 100)
    assert len(tables) == 1
    text = shown(tables, 100)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100
    cells = text.split()
    assert (cells.count("1234"), cells.count("2345"), cells.count("3579")) == (2, 2, 4)
    assert (cells.count("98.7"), cells.count("100")) == (9 * 2 + 10, 2)
    assert cells.count("50+50") == (2 if no_decision else 0)
    assert ("undecided: good + defective" in text) == bool(no_decision)
    assert "rec.: recall" in text


def test_a_table_of_pixels_leaves_out_categories_without_masks(run_evaluation):
    evaluation = run_evaluation("auto", thresholds=dict.fromkeys(CATEGORIES, 1.0))
    _, pixels = metrics_tables(evaluation, 80)
    assert list(pixels.columns[0].cells) == ["bolt"]


# --- gates ---------------------------------------------------------------------------------------


def test_gates_are_read():
    assert parse_gates(["0.9", "pixel_aupro=0.85", "image_f1=1"]) == (
        Gate("image_auroc", 0.9),
        Gate("pixel_aupro", 0.85),
        Gate("image_f1", 1.0),
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("95", "not per cent"),
        ("-0.1", "share from 0 to 1"),
        ("nan", "share from 0 to 1"),
        ("much", "'much' is not a number"),
        ("aupro=0.9", "no metric 'aupro'"),
        ("=0.9", "no metric ''"),
        ("pixel_aupro=", "'' is not a number"),
        ("threshold=0.5", "no metric 'threshold'"),
    ],
)
def test_gates_that_cannot_be(text, fault):
    with pytest.raises(SettingsError, match=fault) as caught:
        parse_gates(["0.9", text])
    assert "pixel_aupro" in caught.value.next_step
    assert caught.value.exit_code == 2


def test_all_wrong_gates_are_listed():
    with pytest.raises(SettingsError) as caught:
        parse_gates(["95", "x=0.1"])
    assert caught.value.cause.count("--min") == 2


def test_every_metric_has_a_heading():
    assert set(COLUMNS) == set(Metrics.model_fields)
