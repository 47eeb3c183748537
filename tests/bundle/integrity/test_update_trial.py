"""The trial of a version before it comes into use."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.graphs import CATEGORIES, expected, frames, save_bundle
from helpers.known_answers import compute_wrongly, give_answers, take_in

from hvq_edge.bundle.integrity.pack import pack_bundle
from hvq_edge.bundle.integrity.self_test import self_test
from hvq_edge.bundle.integrity.staged_update import install_bundle
from hvq_edge.errors import GateFailed
from hvq_edge.runtime.known_answers import CHECK_NAME

MODES = ["one", "input", "auto"]


def test_a_grey_frame_where_there_is_no_known_answer(tmp_path):
    assert "a grey frame" in self_test(save_bundle(tmp_path / "bundle"))


@pytest.mark.parametrize("mode", MODES)
def test_known_answers(tmp_path, mode):
    bundle = give_answers(save_bundle(tmp_path / "bundle", mode))
    assert "right on 3 known images: 100.0% of codes equal" in self_test(bundle)
    with pytest.raises(GateFailed, match="computes wrongly on 3 known images: the map is off"):
        self_test(compute_wrongly(bundle))


@pytest.fixture(params=MODES)
def formerly_answered(request, tmp_path):
    """A bundle of hvq-edge 0.1: one image with its score, and what changes a part of that."""
    bundle = save_bundle(tmp_path / "bundle", request.param)
    (bundle.path / "verify").mkdir()
    image = frames(1)
    number = 0 if request.param == "one" else 1
    known = expected(image, request.param, np.array([number]))
    category = int(known["category"][0]) if request.param == "auto" else number
    right = {
        "frames": image,
        "category": category,
        "score": float(known["score"][0]),
        "tolerance_fp32": 1e-3,
    }

    def answer(**changes: object):
        np.savez_compressed(bundle.path / CHECK_NAME, **{**right, **changes})
        return take_in(bundle, CHECK_NAME)

    return answer


def test_the_one_known_answer_of_a_former_bundle(formerly_answered):
    assert "right on 1 known image: " in self_test(formerly_answered())
    with pytest.raises(GateFailed, match="the score is off by"):
        self_test(formerly_answered(score=0.01))


@pytest.mark.parametrize("name", ["score", "tolerance_fp32"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number_passes_nothing(formerly_answered, name, value):
    with pytest.raises(GateFailed, match="not finite"):
        self_test(formerly_answered(**{name: value}))


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": np.zeros((1, 8, 8, 3), np.uint8)},
        {"frames": np.zeros((1, 64, 64, 3), np.float32)},
        {"category": 7},
        {"category": -1},
        {"score": np.zeros(2)},
        {"tolerance_fp32": np.zeros(2)},
        {"frames": np.array([{}])},
    ],
    ids=repr,
)
def test_a_bad_answer_is_named(formerly_answered, changes):
    with pytest.raises(GateFailed, match=r"check\.npz holds no known answers"):
        self_test(formerly_answered(**changes))


def test_a_small_pack_that_unpacks_to_gigabytes_is_not_installed(tmp_path):
    bundle = save_bundle(tmp_path / "bundle")
    (bundle.path / "verify").mkdir()
    # As numpy wrote it: frames that are all zero, 5 GB of them in 5 MB; here a hundredth.
    zeros = np.zeros((7000, 64, 64, 3), np.uint8)
    np.savez_compressed(bundle.path / CHECK_NAME, frames=zeros)
    pack_bundle(take_in(bundle, CHECK_NAME).path, tmp_path / "b.hvq")
    assert (tmp_path / "b.hvq").stat().st_size < zeros.nbytes / 100
    with pytest.raises(GateFailed, match="it unpacks to"):
        install_bundle(tmp_path / "b.hvq", tmp_path / "device", test=self_test)
    assert not (tmp_path / "device" / "current").exists()


def test_the_known_answer_of_another_category(tmp_path):
    bundle = save_bundle(tmp_path / "bundle", "auto")
    (bundle.path / "verify").mkdir()
    known = expected(frames(1), "auto")
    wrong = (int(known["category"][0]) + 1) % len(CATEGORIES)
    np.savez_compressed(
        bundle.path / CHECK_NAME,
        frames=frames(1),
        category=wrong,
        score=float(known["score"][0]),
        tolerance_fp32=1e-3,
    )
    with pytest.raises(GateFailed, match="another category"):
        self_test(take_in(bundle, CHECK_NAME))


def test_a_graph_that_does_not_load(tmp_path):
    bundle = save_bundle(tmp_path / "bundle")
    (bundle.path / "model.fp32.onnx").write_bytes(b"no graph")
    with pytest.raises(GateFailed, match="does not run here"):
        self_test(bundle)
