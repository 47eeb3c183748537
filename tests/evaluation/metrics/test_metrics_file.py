"""``metrics.json``: files of other versions, and the page about its fields."""

from __future__ import annotations

import json
import re

import pytest
from helpers.paths import ROOT

pytest.importorskip("onnx")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
from helpers.spotted_parts import bundle, data  # noqa: F401  # fixtures

from hvq_edge.bundle.judged_images import ImageRow
from hvq_edge.errors import InputError
from hvq_edge.evaluation.evaluate_target import evaluate_target
from hvq_edge.evaluation.metrics.metrics_file import (
    EvaluationRecord,
    MetricsFile,
    read_metrics,
)
from hvq_edge.evaluation.metrics.results import CategoryMetrics, Metrics

OLD = """{"format": "hvq-edge-metrics/1", "hvq_edge_version": "0.1.0",
"created": "2026-11-23T20:54:57+00:00", "target": "/r", "data": "/d", "backend": "torch",
"precision": "fp32", "device": "cpu", "evaluations": [{"category": "known",
"mean": {"image_auroc": 0.9, "image_ap": 0.8, "image_f1": 0.7, "pixel_auroc": null,
"pixel_ap": null, "category_accuracy": null},
"categories": [{"image_auroc": 0.9, "image_ap": 0.8, "image_f1": 0.7, "pixel_auroc": null,
"pixel_ap": null, "category_accuracy": null, "category": "bolt", "good": 2, "defective": 1,
"image_f1_threshold": 0.5, "threshold": null, "false_rejects": null, "missed": null}],
"images": [{"path": "bolt/test/good/0.png", "category": "bolt", "judged_as": "bolt",
"good": true, "score": 0.25}], "unreadable": {}}]}"""
"""As 0.1.0 wrote it."""


def names_in(value, place=""):
    """Every key of a JSON document with the keys above it."""
    if isinstance(value, dict) and not place.endswith("unreadable"):
        for key, below in value.items():
            yield f"{place}/{key}"
            yield from names_in(below, f"{place}/{key}")
    elif isinstance(value, list):
        for below in value:
            yield from names_in(below, place)


def test_files_of_0_1_0_can_be_read(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(OLD, encoding="utf-8")
    found = read_metrics(path).evaluations[0]
    assert found.mean.image_auroc == 0.9
    assert found.mean.pixel_aupro is None
    assert found.categories[0].regions is None


def test_readers_of_0_1_0_find_all_they_know(bundle, data):
    """Who read the file by its keys still can."""
    found = evaluate_target(bundle.path, data, precision="fp32", backend="onnxruntime")
    now = set(names_in(json.loads(found.metrics.read_text(encoding="utf-8"))))
    assert set(names_in(json.loads(OLD))) <= now


def test_files_of_later_versions_can_be_read(tmp_path):
    later = json.loads(OLD)
    later["operator"] = "Ada"
    later["evaluations"][0]["mean"]["pixel_spro"] = 0.5
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(later), encoding="utf-8")
    assert read_metrics(path) == MetricsFile.model_validate_json(OLD)


@pytest.mark.parametrize(
    "content", [OLD.replace("metrics/1", "metrics/2"), "{}", "no JSON", "\xff", OLD[:-30]]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match="not a file of metrics"):
        read_metrics(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_metrics(tmp_path / "missing.json")


METRICS_PAGE = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "model", [MetricsFile, EvaluationRecord, ImageRow, Metrics, CategoryMetrics]
)
def test_the_page_about_metrics_has_every_field(model):
    for field in model.model_fields:
        assert f"| `{field}` |" in METRICS_PAGE, (
            f"docs/reference/metrics.md should say what {field} is"
        )


def test_the_page_about_metrics_has_no_field_of_its_own():
    models = (MetricsFile, EvaluationRecord, ImageRow, Metrics, CategoryMetrics)
    known = {field for model in models for field in model.model_fields}
    known |= set(CategoryMetrics.model_computed_fields)
    assert set(re.findall(r"^\| `(\w+)` \|", METRICS_PAGE, re.MULTILINE)) == known
