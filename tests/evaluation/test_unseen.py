"""Good test images of a kind that no training image shows: how many, which, at what cost."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
from typer.testing import CliRunner

from hvq_edge.bundle.opened import open_bundle
from hvq_edge.cli.app import app
from hvq_edge.data.dataset import DatasetImage
from hvq_edge.evaluation.acceptance.limits_of_use import limits_of_use
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.metrics_file import read_metrics
from hvq_edge.evaluation.unseen import UNSEEN_MARGIN, UnseenGood, is_unseen, unseen_good


def result(score: float, margin: float, defect: str = "good") -> ImageResult:
    image = DatasetImage(Path(f"{score}.png"), "bolt", "test", defect)
    return ImageResult(image, "bolt", score, np.zeros((4, 4), np.float32), margin)


def test_only_good_images_far_from_all_that_was_learnt_count():
    seen = [result(1.0, 0.7), result(2.0, UNSEEN_MARGIN)]
    strange = [result(9.0, UNSEEN_MARGIN - 0.01), result(8.0, -3.0)]
    defective = [result(3.0, 0.8, "dent"), result(4.0, -3.0, "dent")]  # a defect may look strange
    results = [*seen, *strange, *defective]
    assert [is_unseen(one) for one in results] == [False, False, True, True, False, False]
    assert unseen_good(results) == UnseenGood(images=2, image_auroc=1.0)
    assert unseen_good([*seen, *defective]) == UnseenGood(images=0, image_auroc=1.0)


def test_single_odd_images_are_no_kind():
    assert [UnseenGood(images=n, image_auroc=None).is_kind(60) for n in (0, 2, 3)] == [
        False,
        False,
        True,
    ]
    assert UnseenGood(images=1, image_auroc=None).is_kind(5)
    assert not UnseenGood(images=0, image_auroc=None).is_kind(5)


def test_nothing_is_known_where_the_category_was_given():
    assert unseen_good([result(1.0, np.inf), result(2.0, np.inf, "dent")]) is None
    assert unseen_good([]) is None


def test_a_category_whose_good_images_are_all_unseen_has_no_auroc_without_them():
    found = unseen_good([result(1.0, -1.0), result(2.0, 0.5, "dent")])
    assert found == UnseenGood(images=1, image_auroc=None)
    note = found.note("bolt", 1, 1.0)
    assert note.startswith("bolt: 1 of 1 good test image is unlike every good image learnt ")
    assert "AUROC" not in note
    assert unseen_good([result(1.0, -1.0)]) == UnseenGood(images=1, image_auroc=None)


def test_the_command_says_which_and_what_they_cost(small_bundle, solar_cells, tmp_path):
    """Cells of another kind, as another module maker's are: lines the other way, twice as many."""
    data = tmp_path / "cells"
    category = "solar_cell_mono"
    shutil.copytree(solar_cells / category, data / category)
    good = sorted((data / category / "test/good").iterdir())
    for path in good[:3]:
        cell = cv2.imread(str(path))
        half = cv2.resize(cell, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        other = np.rot90(np.tile(half, (2, 2, 1)))
        cv2.imwrite(str(path.with_name(f"other {path.name}")), np.ascontiguousarray(255 - other))
    out = tmp_path / "out"
    arguments = ["eval", str(small_bundle), "--data", str(data), "--out", str(out)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    content = read_metrics(out / "metrics.json")
    (evaluation,) = content.evaluations
    (measured,) = evaluation.categories
    low = [row.path for row in evaluation.images if row.good and row.margin < UNSEEN_MARGIN]
    assert measured.unseen_good is not None
    assert measured.unseen_good.images == len(low) >= 3
    assert sum("/other " in path for path in low) == 3
    note = measured.unseen_good.note(category, measured.good, measured.image_auroc)
    assert f"Note: {note}" in " ".join(done.output.split())
    page = (out / "report.html").read_text(encoding="utf-8")
    assert note in page
    assert "unlike all learnt from" in page
    limits = limits_of_use(open_bundle(small_bundle).manifest, evaluation)
    (limit,) = [text for text in limits if "learnt from" in text]
    assert limit.startswith(f"{category}: {len(low)} of {measured.good} good test images are ")
