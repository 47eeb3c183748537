"""A run's statistics fitted to disturbed copies too: the weights stay, and it is a run again."""

from __future__ import annotations

import pytest
import torch

from benchmarks.accuracy import varied_copies
from hvq_edge.model.checkpoint import load_run

pytest.importorskip("elpv_dataset")


def test_weights_stay_and_statistics_change(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(varied_copies, "COPIES", varied_copies.COPIES[1:3])
    varied_copies.main([str(small_run), str(tmp_path / "varied")])
    before, record = load_run(small_run)
    after, made = load_run(tmp_path / "varied")
    assert made.images == record.images
    changed = {
        name
        for name, tensor in after.state_dict().items()
        if not torch.equal(tensor, before.state_dict()[name])
    }
    assert any("prototypes" in name for name in changed)
    assert not changed & dict(after.named_parameters()).keys()
