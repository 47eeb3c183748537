"""Forms of a trained model's map: the model's own is one of them, the others are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.accuracy.map_forms import BY_POSITION, FORMS, LEVELLED, MapForms
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.image_score import image_level
from hvq_edge.run.settings import load_settings
from hvq_edge.training.batches import Images
from hvq_edge.training.fit_prototypes import fit_prototypes
from hvq_edge.training.statistics import (
    fit_feature_statistics,
    fit_map_scale,
    fit_residual_whitening,
)

SMALL = {"input_side": 64, "width": 16, "heads": 2, "feedforward": 32, "layers": 2, "codes": 16}
PLAINER = {"prototypes": 0, "image_level": "kept"}
CATEGORY = np.repeat([0, 1], 6)


def features(seed: int, images: int = 12) -> np.ndarray:
    """Tokens whose channels vary together, as a backbone's do."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(192, 192))
    return (3 + rng.normal(size=(images, 16, 192)) @ mix / 8).astype(np.float16)


def fitted(**changes: object) -> HVQTrans:
    """A model as a training run leaves it, only with random weights."""
    torch.manual_seed(0)
    chosen = load_settings("tiny", model={**SMALL, "prototypes": 8, **changes}).model
    model = HVQTrans(chosen, 2).eval().requires_grad_(False)
    fit = features(0)[..., : len(model.feature_mean)]
    fit_feature_statistics(model, fit)
    fit_prototypes(model, fit, CATEGORY, 0)
    if chosen.whiten_distance:
        fit_residual_whitening(model, Images(fit, CATEGORY))
    if chosen.map_scale == "good_images":
        fit_map_scale(model, Images(fit, CATEGORY))
    return model


def forms_of(model: HVQTrans) -> MapForms:
    return MapForms(model, [Images(features(0)[..., : len(model.feature_mean)], CATEGORY)], 0)


def seen(model: HVQTrans) -> torch.Tensor:
    raw = features(1, 3)[..., : len(model.feature_mean)].astype(np.float32)
    return torch.from_numpy(raw)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("whitened + prototypes / 2, by position, level subtracted", {}),
        ("whitened + prototypes / 2, by position", {"image_level": "kept"}),
        ("distance + prototypes / 2, by position, level subtracted", {"whiten_distance": False}),
        ("whitened distance, by position", PLAINER),
        ("whitened + transport / 2, by position", {**PLAINER, "transport_weight": 0.5}),
        ("whitened + prototypes / 2, by position, level subtracted", {"normalise_tokens": False}),
    ],
)
def test_the_models_own_map_is_one_of_the_forms(name, changes):
    model = fitted(**changes)
    raw = seen(model)
    for k in range(2):
        own = model.judge(model.standardise(raw), torch.full((3,), k))
        found = forms_of(model)(raw, k)[name]
        torch.testing.assert_close(found.map, own["map"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.score, own["score"], rtol=1e-4, atol=1e-4)


def test_every_form_comes_by_category_and_position_with_and_without_level():
    model = fitted()
    found = forms_of(model)(seen(model), 0)
    ends = ("", LEVELLED, BY_POSITION, BY_POSITION + LEVELLED)
    assert set(found) == {name + end for name in FORMS for end in ends}
    for name, verdict in found.items():
        assert verdict.map.shape == (3, 4, 4)
        if not name.endswith(LEVELLED):
            level = image_level(verdict.map.flatten(1))[:, 0]
            torch.testing.assert_close(found[name + LEVELLED].score, verdict.score - level)
            assert found[name + LEVELLED].map is verdict.map


def test_forms_are_sums_of_scaled_parts():
    model = fitted()
    found = {name: one.map for name, one in forms_of(model)(seen(model), 1).items()}
    for end in ("", BY_POSITION):
        expected = found["whitened distance" + end] + found["prototypes" + end] / 2
        torch.testing.assert_close(found["whitened + prototypes / 2" + end], expected)
        half = found["whitened + transport / 2" + end] - found["whitened distance" + end]
        torch.testing.assert_close(half, found["transport" + end] / 2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("part", ["distance", "whitened distance", "transport", "prototypes"])
def test_parts_are_standardised_on_good_images_of_the_category(part):
    model = fitted()
    forms = forms_of(model)
    fit = torch.from_numpy(features(0)[..., : len(model.feature_mean)].astype(np.float32))
    for k in range(2):
        values = forms(fit[k == CATEGORY], k)[part].map
        assert float(values.mean()) == pytest.approx(0, abs=1e-3)
        assert float(values.std(correction=0)) == pytest.approx(1, abs=1e-3)


def test_the_model_stays_as_it_is():
    model = fitted(prototypes=0, whiten_distance=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    forms_of(model)(seen(model), 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
