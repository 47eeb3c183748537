"""What is learnt of a new category: codes go to its tokens, the projection is the best one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.small_graphs import SMALL

from hvq_edge.model import HVQTrans
from hvq_edge.run.settings import ModelSettings, TrainingSettings
from hvq_edge.training.batches import Images, to_tensor
from hvq_edge.training.categories import learn
from hvq_edge.training.categories.learn import fit_output_projection, learn_codes

NEW = 1


@pytest.fixture
def model() -> HVQTrans:
    torch.manual_seed(0)
    return HVQTrans(ModelSettings(**SMALL), 2).eval().requires_grad_(False)


@pytest.fixture
def images(model) -> Images:
    shape = (6, model.settings.grid**2, model.raw_channels)
    features = np.random.default_rng(0).normal(3.0, 2.0, shape).astype(np.float16)
    return Images(features, np.full(6, NEW))


def rebuilt(model: HVQTrans, images: Images) -> tuple[float, float]:
    """Squared error of the features, and of tokens from their codes."""
    tokens = to_tensor(model, images.features)
    found = model.reconstruct(tokens, torch.from_numpy(images.category))
    return (found.features - tokens).square().mean().item(), found.commitment.item()


def test_no_other_projection_rebuilds_the_images_better(model, images):
    fit_output_projection(model, NEW, images, 1e-9)
    best, _ = rebuilt(model, images)
    for part in (model.output_weight, model.output_bias):
        kept = part[NEW].clone()
        for seed in range(4):
            torch.manual_seed(seed)
            part[NEW] = kept + 0.02 * torch.randn_like(kept)
            assert rebuilt(model, images)[0] > best
        part[NEW] = kept


def test_where_images_say_nothing_the_projection_is_that_of_the_others(model, images):
    fit_output_projection(model, NEW, images, 1e12)
    torch.testing.assert_close(model.output_weight[NEW], model.output_weight[0])
    torch.testing.assert_close(model.output_bias[NEW], model.output_bias[0])


def test_codes_move_to_the_tokens(model, images, monkeypatch):
    settings = TrainingSettings()
    before = [books.codes[0].clone() for books in model.codebooks]
    found = []
    for epochs in (0, learn.EPOCHS):
        monkeypatch.setattr(learn, "EPOCHS", epochs)
        learn_codes(model, NEW, images, settings)
        found.append(rebuilt(model, images)[1])
    assert found[1] < 0.9 * found[0]
    for books, codes in zip(model.codebooks, before, strict=True):
        assert torch.equal(books.codes[0], codes)
