"""What is fitted in closed form: each by its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.model import HVQTrans
from hvq_edge.model.image_score import image_level
from hvq_edge.run.settings import LARGEST_LEVEL, load_settings
from hvq_edge.training import statistics
from hvq_edge.training.batches import Images, standardised, to_tensor
from hvq_edge.training.closed_form import LEVEL_REACH, RIDGE, inverse_root, scale_of_parts
from hvq_edge.training.fit_prototypes import fit_prototypes
from hvq_edge.training.statistics import (
    fit_classifier,
    fit_feature_statistics,
    fit_level,
    fit_map_scale,
    fit_residual_whitening,
)

SMALL = {"input_side": 64, "width": 16, "heads": 2, "feedforward": 32, "layers": 2, "codes": 16}


def small_model(categories: int = 2, **model) -> HVQTrans:
    torch.manual_seed(0)
    return HVQTrans(load_settings("tiny", model={**SMALL, **model}).model, categories)


def features_of(model: HVQTrans, images: int) -> np.ndarray:
    shape = (images, model.settings.grid**2, model.raw_channels)
    return np.random.default_rng(0).normal(3.0, 2.0, shape).astype(np.float16)


def test_feature_statistics_standardise():
    model = small_model()
    features = features_of(model, 6)
    features[:, :, 3] = 5.0  # a dead channel must not be blown up
    fit_feature_statistics(model, features)
    raw = torch.from_numpy(features.astype(np.float32))
    scaled = model.coarse(model.standardise(raw))
    alive = [c for c in range(scaled.shape[2]) if c != 3]
    torch.testing.assert_close(scaled.mean((0, 1)), torch.zeros(model.channels), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        scaled.flatten(0, 1).std(0, correction=0)[alive],
        torch.ones(len(alive)),
        atol=1e-3,
        rtol=0,
    )
    assert scaled[:, :, 3].abs().max() < 1


@pytest.mark.parametrize("categories", [1, 2, 3])
def test_classifier_tells_shifted_features_apart(categories):
    model = small_model(categories)
    category = np.arange(24) % categories
    features = features_of(model, 24) + category[:, None, None].astype(np.float16)
    fit_classifier(model, features[:16], category[:16], features[16:], category[16:])
    chosen, margin = model.classify(standardised(model, features))
    np.testing.assert_array_equal(chosen.numpy(), category)
    assert margin[16:].min() >= 0.5 - 1e-4  # half way to the reach at most, by its definition
    unknown = (features + 100).astype(np.float16)
    assert (model.classify(standardised(model, unknown)).margin < 0).all()


# Whitening.


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_the_inverse_root_whitens_but_for_the_ridge(seed, channels):
    mixing = np.random.default_rng(seed).normal(size=(channels, channels))
    moment = torch.from_numpy(mixing @ mixing.T)
    root = torch.from_numpy(inverse_root(moment.numpy()))
    ridge = RIDGE * moment.trace() / channels * torch.eye(channels, dtype=torch.float64)
    torch.testing.assert_close(root, root.T)
    white = root @ (moment + ridge) @ root
    torch.testing.assert_close(white, torch.eye(channels, dtype=torch.float64))
    # The ridge only shrinks: no direction of good images is blown up beyond unit variance.
    assert torch.linalg.eigvalsh(root @ moment @ root).max() <= 1 + 1e-6


def test_the_inverse_root_of_features_that_hardly_vary_stays_finite():
    moment = torch.diag(torch.tensor([4.0, 1.0, 0.0, 1e-12]))
    moment[2:, 2:] -= 1e-9  # rounding: not quite positive
    root = torch.from_numpy(inverse_root(moment.double().numpy())).float()
    assert torch.isfinite(root).all()
    assert root.abs().max() <= (RIDGE * 5 / 4) ** -0.5 * 1.01
    assert np.isfinite(np.float32(inverse_root(np.zeros((3, 3))))).all()


def test_residuals_of_good_images_are_white_after_fitting():
    model = small_model()
    category = np.arange(24) % 2
    features = features_of(model, 24) * np.linspace(0.5, 2, model.raw_channels)
    features = features.astype(np.float16)
    fit_feature_statistics(model, features)
    fit_residual_whitening(model, Images(features, category))
    with torch.inference_mode():
        for k in range(2):
            batch = to_tensor(model, features[category == k])  # normalised
            label = torch.full((len(batch),), k)
            residual = (model.reconstruct(batch, label).features - batch).flatten(0, 1).double()
            white = residual @ model.residual_whitening[k].double()
            variances = torch.linalg.eigvalsh(white.T @ white / len(white))
            plain = torch.linalg.eigvalsh(residual.T @ residual / len(residual))
            # v -> v / (v + ridge), ascending as v is.
            expected = plain / (plain + RIDGE * plain.mean())
            torch.testing.assert_close(variances, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(model.residual_whitening[0], model.residual_whitening[1])


def test_the_map_measures_in_whitened_residuals():
    model = small_model().eval()
    category = torch.tensor([1])
    batch = torch.randn(1, 16, model.raw_channels)
    features = model.normalise(batch)
    rebuilt = model.reconstruct(features, category)
    model.residual_whitening[1] *= 3
    distance = (rebuilt.features - features).norm(dim=2)
    torch.testing.assert_close(model.map_parts(batch, rebuilt, category)[0], 3 * distance)


# Scale of the map.


@pytest.mark.parametrize(
    "changed", [{}, {"transport_weight": 0.5}, {"prototypes": 0, "whiten_distance": False}]
)
def test_map_scale_is_the_mean_of_two_standardisations(changed):
    """By category and by position, with the position's variance pooled half and half."""
    model = small_model(**{"prototypes": 8, **changed})
    category = np.arange(20) % 2
    features = features_of(model, 20)
    features[:, 3] *= 3  # a position unlike the others
    fit_feature_statistics(model, features)
    fit_prototypes(model, features, category, seed=0)
    if model.settings.whiten_distance:
        fit_residual_whitening(model, Images(features, category))
    fit_map_scale(model, Images(features, category))
    with torch.inference_mode():
        batch, label = standardised(model, features), torch.from_numpy(category)
        rebuilt = model.reconstruct(model.normalise(batch), label)
        parts = model.map_parts(batch, rebuilt, label)
        scaled = (parts - model.map_centre[:, label]) / model.map_spread[:, label]
        joined = model.anomaly_map(batch, rebuilt, label).flatten(1)
    used = [part for part in range(len(parts)) if model.part_weights[part]]
    for part in used:
        for k in range(2):
            value = parts[part, category == k].numpy().astype(np.float64)
            by_category = (value - value.mean()) / value.std()
            variance = value.var(0)
            pooled = np.sqrt((variance + variance.mean()) / 2)
            by_position = (value - value.mean(0)) / pooled
            expected = (by_category + by_position) / 2
            np.testing.assert_allclose(scaled[part, category == k], expected, rtol=0, atol=2e-3)
    weighted = sum(model.part_weights[part] * scaled[part] for part in used)
    torch.testing.assert_close(joined, weighted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("by", ["category", "position"])
def test_either_standardisation_can_be_had_alone(by):
    parts = np.random.default_rng(0).gamma(2.0, np.arange(1, 10), (3, 20, 9))
    centre, spread = (one[:, None] for one in scale_of_parts(parts, [by]))
    of_category = {"axis": (1, 2), "keepdims": True}
    expected = (parts - parts.mean(**of_category)) / parts.std(**of_category)
    if by == "position":
        variance = parts.var(1, keepdims=True)
        pooled = np.sqrt((variance + variance.mean(2, keepdims=True)) / 2)
        expected = (parts - parts.mean(1, keepdims=True)) / pooled
    np.testing.assert_allclose((parts - centre) / spread, expected, rtol=0, atol=1e-9)


def test_groups_of_images_count_as_one():
    model, other = small_model(), small_model()
    category = np.arange(20) % 2
    features = features_of(model, 20)
    for one in (model, other):
        fit_feature_statistics(one, features)
    groups = [Images(features[:6], category[:6]), Images(features[6:], category[6:])]
    for fit in (fit_residual_whitening, fit_map_scale):
        fit(model, Images(features, category))
        fit(other, *groups)
        fit(small := small_model(), groups[0])
    for name in ("residual_whitening", "map_centre", "map_spread"):
        torch.testing.assert_close(getattr(model, name), getattr(other, name), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(getattr(model, name), getattr(small, name), rtol=1e-2)


def test_a_part_that_never_varies_leaves_the_map_finite():
    """Every token of few images is its own prototype: the part is nearly nothing."""
    model = small_model(prototypes=200)
    features, category = features_of(model, 2), np.arange(2)
    fit_feature_statistics(model, features)
    fit_prototypes(model, features, category, seed=0)
    fit_map_scale(model, Images(features, category))
    with torch.inference_mode():
        batch, label = standardised(model, features), torch.from_numpy(category)
        rebuilt = model.reconstruct(model.normalise(batch), label)
        joined = model.anomaly_map(batch, rebuilt, label)
    assert torch.isfinite(joined).all()
    assert joined.abs().max() < 100


@pytest.mark.parametrize("slope", [-0.4, 0.0, 0.3, 0.8, 1.0, 1.7])
def test_the_share_of_the_level_is_the_slope_of_good_images(slope, monkeypatch):
    """Held-out images score higher, all alike, and a few are odd: neither moves the slope."""
    model = small_model(image_level="learnt").eval()
    rng = np.random.default_rng(0)
    level = {"fit": rng.normal(1, 0.5, 60), "held_out": rng.normal(1.2, 0.5, 12)}
    window = {
        name: slope * one + 3 + rng.normal(0, 0.05, len(one)) + (name == "held_out")
        for name, one in level.items()
    }
    window["fit"][:4] += 5
    found = iter([np.stack([level[name], window[name]], axis=1) for name in level] * 2)
    monkeypatch.setattr(statistics, "_level_and_window", lambda *_: next(found))
    nothing = Images(np.zeros((0, 16, 1), np.float16), np.zeros(0, np.int64))
    fit_level(model, nothing, nothing)
    assert model.level_share[0].item() == pytest.approx(np.clip(slope, 0, 1), abs=0.05)
    spread = 1.4826 * np.median(np.abs(level["fit"] - np.median(level["fit"])))
    limit = np.median(level["held_out"]) + LEVEL_REACH * spread
    assert model.level_limit[0].item() == pytest.approx(limit, rel=0.1)


def test_too_few_images_say_nothing_of_the_level():
    few = small_model(image_level="learnt").eval()
    channels = few.raw_channels
    images = Images(np.ones((2, 16, channels), np.float16), np.zeros(2, np.int64))
    fit_level(few, images, images)
    assert few.level_share.tolist() == [1.0] * few.categories
    assert few.level_limit.min() == LARGEST_LEVEL


def test_a_level_beyond_the_limit_is_a_defect():
    model = small_model(image_level="learnt").eval()
    model.level_share.fill_(1.0)
    model.level_limit.fill_(2.0)
    maps = torch.ones(2, 4, 4) * torch.tensor([1.0, 7.0])[:, None, None]
    score = model.score(maps, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(score, torch.tensor([0.0, 5.0]), atol=1e-5, rtol=0)


def test_an_image_s_own_level_leaves_the_score_and_stays_in_the_map():
    """Its lower quartile; as published the score keeps it too."""
    level = torch.arange(16.0).flip(0)[None]
    assert image_level(level).tolist() == [[3.0]]
    assert image_level(level + 7).tolist() == [[10.0]]
    found = {}
    for how in ("kept", "subtracted"):
        model = small_model(image_level=how).eval()
        label = torch.tensor([0, 1])
        batch = torch.linspace(0, 9, 32 * model.raw_channels).sin().view(2, 16, -1)
        with torch.inference_mode():
            found[how] = model.judge(batch, label)
    kept, subtracted = found["kept"], found["subtracted"]
    assert torch.equal(kept["map"], subtracted["map"])
    own_level = image_level(kept["map"].flatten(1))[:, 0]
    torch.testing.assert_close(subtracted["score"], kept["score"] - own_level)
    assert own_level.abs().min() > 0.1
