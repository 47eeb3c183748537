"""Trainings of a small net: its settings, features of noise, and a run of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hvq_edge.model import HVQTrans
from hvq_edge.run.settings import load_settings
from hvq_edge.training.train_run import continue_run, start_run

SMALL = {"input_side": 64, "width": 16, "heads": 2, "feedforward": 32, "layers": 2, "codes": 16}


def small_settings(**training):
    return load_settings(
        "tiny", model=SMALL, training={"epochs": 3, "batch_size": 4, "versions": 1, **training}
    )


def small_model(categories: int = 2) -> HVQTrans:
    torch.manual_seed(0)
    return HVQTrans(small_settings().model, categories)


def features_of(model: HVQTrans, images: int, seed: int = 0) -> np.ndarray:
    shape = (images, model.settings.grid**2, model.raw_channels)
    return np.random.default_rng(seed).normal(3.0, 2.0, shape).astype(np.float16)


def train_here(data: Path, run: Path, **training) -> Path:
    start_run(data, run, small_settings(**training))
    continue_run(run, device="cpu")
    return run
