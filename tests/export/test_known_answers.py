"""Known answers are of every model of a bundle, or there are none, and that is said."""

from __future__ import annotations

import logging
from contextlib import nullcontext

import numpy as np
from helpers.graphs import frames, save_bundle

from hvq_edge.export import known_answers
from hvq_edge.export.known_answers import learn_known_answers
from hvq_edge.runtime.open_engine import open_engine


def test_without_images_there_are_none(tmp_path, caplog):
    bundle = save_bundle(tmp_path / "b")
    assert learn_known_answers(bundle, tmp_path, []) is None
    (said,) = caplog.messages
    assert said.endswith("where it runs: there is no image to learn them from")


def test_a_model_that_runs_on_no_library_leaves_none(tmp_path, caplog, monkeypatch):
    """A file without an answer of it would count as damaged, and no engine would be opened."""
    caplog.set_level(logging.WARNING, "hvq_edge")
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "int8"))
    shown = frames(1)
    with open_engine(bundle, precision="fp32", unchecked=True) as engine:
        right = [engine.run(shown)]
    monkeypatch.setattr(known_answers, "TorchEngine", lambda *_, **__: nullcontext())
    monkeypatch.setattr(known_answers, "_decided", lambda *_: (shown, np.zeros(1, np.int32), right))
    images = [(tmp_path / "part.png", "bolt")]
    learnt = learn_known_answers(bundle, tmp_path, images)
    assert set(learnt.precisions) == {"fp32", "int8"}
    assert not caplog.messages
    (bundle.path / "model.int8.onnx").write_bytes(b"no graph")
    assert learn_known_answers(bundle, tmp_path, images) is None
    (said,) = caplog.messages
    assert said.endswith("int8 runs here neither on openvino nor onnxruntime")
