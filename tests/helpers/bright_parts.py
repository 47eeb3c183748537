"""Parts that are judged by their brightness: an engine, a source and a bundle without a model."""

from __future__ import annotations

import time

import numpy as np
import pytest
from helpers.graphs import SIDE, save_bundle
from helpers.thresholds import threshold_at

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.runtime.engine import EngineInfo


class BrightnessEngine:
    """Score: mean brightness of the brightest 16x16 block, 0 to 1. Takes a while if asked to."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls = 0
        self.info = EngineInfo("fake", "fp32", "test", (SIDE, SIDE), ("bolt",), "one")

    def run(self, frames, category=None):
        self.calls += 1
        time.sleep(self.seconds)
        blocks = frames.reshape(len(frames), SIDE // 16, 16, SIDE // 16, 16, 3)
        heat = (blocks.mean((2, 4, 5)) / 255).astype(np.float32)
        zeros = np.zeros(len(frames), np.int32)
        margin = np.full(len(frames), np.inf, np.float32)
        return {
            "score": heat.max((1, 2)),
            "map": heat,
            "codes": np.zeros((len(frames), 1, 16), np.int32),
            "category": zeros,
            "margin": margin,
        }

    def close(self):
        pass


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    saved = save_bundle(tmp_path_factory.mktemp("inspector") / "bundle")
    half = threshold_at(0.5, images=3, rule="largest of held-out good images")
    manifest = saved.manifest.model_copy(update={"thresholds": {"fp32": {"bolt": half}}})
    write_manifest(saved.path, manifest)
    return open_bundle(saved.path)


def sum_of(counts) -> int:
    return counts.passed + counts.rejected + counts.no_decision + counts.dropped
