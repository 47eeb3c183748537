"""The trial of a version before it comes into use."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.graphs import CATEGORIES, expected, frames, save_bundle

from hvq_edge.bundle.integrity.pack import pack_bundle
from hvq_edge.bundle.integrity.self_test import (
    CHECK_NAME,
    KnownAnswer,
    self_test,
    write_known_answer,
)
from hvq_edge.bundle.manifest import open_bundle
from hvq_edge.errors import GateFailed


def test_a_grey_frame_where_there_is_no_known_answer(tmp_path):
    assert "a grey frame" in self_test(save_bundle(tmp_path / "bundle"))


@pytest.fixture(params=["one", "input", "auto"])
def answered(request, tmp_path):
    """A bundle that holds the answer to an image, and what writes another score into it."""
    bundle = save_bundle(tmp_path / "bundle", request.param)
    (bundle.path / "verify").mkdir()
    image = frames(1)
    number = 0 if request.param == "one" else 1
    known = expected(image, request.param, np.array([number]))
    category = int(known["category"][0]) if request.param == "auto" else number

    def answer(error: float = 0.0, name: str | None = None):
        write_known_answer(
            bundle.path / CHECK_NAME,
            KnownAnswer(
                image,
                category if name is None else CATEGORIES.index(name),
                float(known["score"][0]) + error,
                {"fp32": 1e-3},
            ),
        )
        pack_bundle(bundle.path, tmp_path / "b.hvq")
        return open_bundle(bundle.path)

    return answer


def test_the_known_answer(answered):
    assert "the check image" in self_test(answered())
    with pytest.raises(GateFailed, match="right is"):
        self_test(answered(0.01))


def test_the_known_answer_of_another_category(tmp_path):
    bundle = save_bundle(tmp_path / "bundle", "auto")
    (bundle.path / "verify").mkdir()
    known = expected(frames(1), "auto")
    wrong = (int(known["category"][0]) + 1) % 3
    write_known_answer(
        bundle.path / CHECK_NAME,
        KnownAnswer(frames(1), wrong, float(known["score"][0]), {"fp32": 1e-3}),
    )
    pack_bundle(bundle.path, tmp_path / "b.hvq")
    with pytest.raises(GateFailed, match=CATEGORIES[wrong]):
        self_test(open_bundle(bundle.path))


def test_a_graph_that_does_not_load(tmp_path):
    bundle = save_bundle(tmp_path / "bundle")
    (bundle.path / "model.fp32.onnx").write_bytes(b"no graph")
    with pytest.raises(GateFailed, match="does not run here"):
        self_test(bundle)
