"""The trial of a version before it comes into use."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.graphs import CATEGORIES, frames, save_bundle
from helpers.known_answers import answers_of, compute_wrongly, give_answers, take_in

from hvq_edge.bundle.integrity.pack import pack_bundle
from hvq_edge.bundle.integrity.self_test import self_test
from hvq_edge.bundle.integrity.staged_update import install_bundle
from hvq_edge.errors import GateFailed
from hvq_edge.runtime.known_answers import CHECK_NAME, write_known_answers

MODES = ["one", "input", "auto"]


def test_a_grey_frame_where_there_is_no_known_answer(tmp_path):
    assert "a grey frame" in self_test(save_bundle(tmp_path / "bundle"))


@pytest.mark.parametrize("mode", MODES)
def test_known_answers(tmp_path, mode):
    bundle = give_answers(save_bundle(tmp_path / "bundle", mode))
    assert "right on 3 known images: 100.0% of codes equal" in self_test(bundle)
    with pytest.raises(GateFailed, match="computes wrongly on 3 known images: the map is off"):
        self_test(compute_wrongly(bundle))


def test_a_precision_that_computes_wrongly_here_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = give_answers(save_bundle(tmp_path / "bundle", precisions=("fp32", "int8")))
    said = self_test(compute_wrongly(bundle, "int8"))
    assert said.startswith("fp32 on ")
    assert "; int8 on onnxruntime failed: int8 on onnxruntime computes wrongly" in said


@pytest.mark.parametrize("mode", MODES)
def test_known_answers_that_verify_left(tmp_path, mode):
    bundle = save_bundle(tmp_path / "bundle", mode)
    (bundle.path / CHECK_NAME).parent.mkdir()
    write_known_answers(bundle.path / CHECK_NAME, answers_of(bundle))
    bundle = take_in(bundle, CHECK_NAME)
    assert "right on 3 known images" in self_test(bundle)
    with pytest.raises(GateFailed, match="computes wrongly on 3 known images"):
        self_test(compute_wrongly(bundle))


def test_a_file_of_another_form_is_no_known_answer(tmp_path):
    bundle = save_bundle(tmp_path / "bundle")
    (bundle.path / CHECK_NAME).parent.mkdir()
    np.savez_compressed(bundle.path / CHECK_NAME, frames=frames(1), category=0, score=0.5)
    with pytest.raises(GateFailed, match=r"check\.npz holds no known answers: it lacks 'format'"):
        self_test(take_in(bundle, CHECK_NAME))


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
    answers = answers_of(bundle)
    wrong = (answers.category + 1) % len(CATEGORIES)
    with pytest.raises(GateFailed, match="another category"):
        self_test(give_answers(bundle, answers_of(bundle, category=wrong.astype(np.int32))))


def test_a_graph_that_does_not_load(tmp_path):
    bundle = save_bundle(tmp_path / "bundle")
    (bundle.path / "model.fp32.onnx").write_bytes(b"no graph")
    with pytest.raises(GateFailed, match="does not run here"):
        self_test(bundle)
