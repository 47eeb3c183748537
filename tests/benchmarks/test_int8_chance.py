"""INT8 files that differ in which layers stay in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.int8_chance import image_aurocs, layers_of_file
from hvq_edge.data.dataset import DatasetImage

LAYERS = [f"layer {i}" for i in range(100)]


def test_the_first_file_is_the_exported_one_and_the_others_differ_the_same_way_every_time():
    files = [layers_of_file(number, LAYERS) for number in range(4)]
    assert files[0] == LAYERS
    assert all(75 <= len(file) < 100 for file in files[1:])
    assert all([one for one in LAYERS if one in file] == file for file in files)
    assert len({tuple(file) for file in files}) == 4
    assert files == [layers_of_file(number, LAYERS) for number in range(4)]


def test_a_category_is_ranked_among_its_own_and_one_without_defects_not_at_all():
    kinds = [("a", "good"), ("a", "cut"), ("b", "good"), ("a", "cut")]
    images = [DatasetImage(Path("a.png"), category, "test", kind) for category, kind in kinds]
    found = image_aurocs(np.array([2.0, 3.0, 9.0, 1.0], np.float32), images, ("a", "b"))
    assert found[0] == pytest.approx(50)
    assert np.isnan(found[1])
