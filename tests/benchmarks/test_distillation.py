"""A backbone that learns to tell a larger one's features keeps all that other taps see."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.accuracy.distillation import distil, first_taught
from hvq_edge.model.backbone import Backbone
from hvq_edge.model.hvq_trans import resize_tap

FRAMES = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def test_distilling_changes_the_last_tap_alone_and_lessens_what_is_untold():
    torch.manual_seed(0)
    student, teacher = Backbone("efficientnet_lite0", 64), Backbone("efficientnet_lite0", 64)
    taps = teacher(torch.from_numpy(FRAMES))
    told = torch.cat([resize_tap(tap, 4, "average") for tap in taps], 1)
    told = told.flatten(2).transpose(1, 2).numpy().astype(np.float16)
    before = student(torch.from_numpy(FRAMES))
    kept = {name: value.clone() for name, value in student.state_dict().items()}

    left = distil(student, [FRAMES[:5], FRAMES[5:]], told, epochs=6)

    assert left[-1] < left[0]
    after = student(torch.from_numpy(FRAMES))
    assert all(torch.equal(one, other) for one, other in zip(before[:-1], after[:-1], strict=True))
    assert not torch.equal(before[-1], after[-1])
    changed = {
        name for name, value in student.state_dict().items() if not torch.equal(value, kept[name])
    }
    first = first_taught(student)
    assert changed
    assert all(name.endswith("conv.weight") for name in changed)
    assert all(int(name.split(".")[1]) >= first for name in changed)
    assert not any(weight.requires_grad for weight in student.parameters())
