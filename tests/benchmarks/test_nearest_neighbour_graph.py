"""The nearest-neighbour baseline as a graph gives what its definition gives, and can be timed."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from helpers.small_graphs import SIDE, small_model

from benchmarks.accuracy.nearest_neighbour import fit_memory
from benchmarks.speed import nearest_neighbour_graph
from benchmarks.speed.nearest_neighbour_graph import export_memory
from hvq_edge.bench.peer_graph import open_peer


def test_the_graph_gives_distances_to_the_memory(tmp_path, capsys):
    model = small_model()
    frames = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    with torch.inference_mode():
        raw = model.raw_features(torch.from_numpy(frames))
        memory = fit_memory(raw[:2].numpy().astype(np.float16), vectors=20)
        wanted = memory.distance(raw)
        score = model.score_window @ wanted @ model.score_window.T
    path = tmp_path / "peer.onnx"
    export_memory(model, memory, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = dict(zip(("score", "map"), session.run(None, {"frames": frames}), strict=True))
    np.testing.assert_allclose(found["map"], wanted.numpy(), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(found["score"], score.amax((1, 2)).numpy(), rtol=1e-3, atol=1e-2)
    assert found["map"].max() > 0.1
    with open_peer(path, "onnxruntime", 1, SIDE) as peer:
        peer.call(1)()
        peer.call(2)()
    arguments = [str(tmp_path / "no run"), "--category", "bolt", "--out", str(path)]
    assert nearest_neighbour_graph.main(arguments) == 2
    assert "no training run" in capsys.readouterr().err
