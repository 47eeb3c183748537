"""Features before the network and prototypes of the features: by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.model.backbone import FINE_TAP
from hvq_edge.model.hvq_trans import HVQTrans, normalise_tokens, resize_tap
from hvq_edge.model.prototypes import (
    FeaturePrototypes,
    average_neighbours,
    nearest_distance,
)
from hvq_edge.run.settings import load_settings
from hvq_edge.training.batches import standardised
from hvq_edge.training.fit_prototypes import fit_prototypes
from hvq_edge.training.statistics import fit_feature_statistics

SMALL = {"input_side": 64, "width": 16, "heads": 2, "feedforward": 32, "layers": 2, "codes": 16}


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def model_with(prototypes: int, categories: int = 2, fine: int = 0) -> HVQTrans:
    torch.manual_seed(0)
    counts = {"prototypes": prototypes, "fine_prototypes": fine}
    chosen = load_settings("tiny", model={**SMALL, **counts})
    return HVQTrans(chosen.model, categories).eval()


def features_of(model: HVQTrans, images: int) -> np.ndarray:
    shape = (images, model.settings.grid**2, model.raw_channels)
    return np.random.default_rng(0).normal(3.0, 2.0, shape).astype(np.float16)


# Distances.


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 30), st.floats(0.01, 100))
def test_the_nearest_distance_is_the_smallest_of_all(seed, centres, channels, scale):
    tokens, places = (
        scale * random(seed, 2, 9, channels),
        scale * random(seed + 1, 2, centres, channels),
    )
    expected = torch.cdist(tokens.double(), places.double()).amin(2).float()
    # The squares cancel where a token lies at a centre: what is left of them is rounding.
    torch.testing.assert_close(
        nearest_distance(tokens, places), expected, rtol=1e-3, atol=5e-3 * scale
    )


def test_a_token_at_a_centre_has_no_distance_and_none_is_negative():
    places = 50 * random(0, 1, 20, 200)
    distance = nearest_distance(places, places)
    assert torch.isfinite(distance).all()
    assert distance.max() < 1e-3 * places.norm(dim=2).mean()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 10))
def test_each_image_meets_the_prototypes_of_its_own_category(seed, count, channels):
    prototypes = FeaturePrototypes(3, count, channels)
    for i, buffer in enumerate(prototypes.buffers()):
        buffer.copy_(random(seed + i, *buffer.shape))
    features, category = random(seed + 9, 4, 5, channels), torch.tensor([2, 0, 2, 1])
    found = prototypes(features, category)
    for i, k in enumerate(category):
        white = features[i] @ prototypes.whitening[k] + prototypes.shift[k]
        expected = torch.cdist(white.double(), prototypes.centres[k].double()).amin(1).float()
        torch.testing.assert_close(found[i], expected, rtol=1e-3, atol=1e-2)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 7), st.sampled_from([1, 3, 5]))
def test_neighbours_are_averaged_where_they_are(seed, grid, window):
    tokens = random(seed, 2, grid**2, 3)
    found = average_neighbours(tokens, window).view(2, grid, grid, 3)
    image, reach = tokens.view(2, grid, grid, 3), window // 2
    for row in range(grid):
        for column in range(grid):
            rows = slice(max(0, row - reach), row + reach + 1)
            columns = slice(max(0, column - reach), column + reach + 1)
            expected = image[:, rows, columns].mean((1, 2))
            torch.testing.assert_close(found[:, row, column], expected)


# Where prototypes come from.


@pytest.mark.parametrize("prototypes", [48, 60])
def test_with_fewer_tokens_than_prototypes_each_is_its_own(prototypes):
    """Three images of 16 tokens in each category."""
    model = model_with(prototypes)
    category = np.arange(6) % 2
    features = features_of(model, 6)
    fit_prototypes(model, features, category, seed=0)
    own = model.prototypes(standardised(model, features), torch.from_numpy(category))
    other = model.prototypes(standardised(model, features), torch.from_numpy(1 - category))
    assert own.max() < 0.1
    assert other.min() > 5


def test_with_more_tokens_prototypes_are_centres_of_them():
    model = model_with(4, categories=1)
    features = features_of(model, 8)
    # Four kinds of token, far apart.
    kinds = 20 * np.random.default_rng(1).normal(size=(4, features.shape[2]))
    features = (0.1 * features + kinds[np.arange(features.shape[1]) % 4]).astype(np.float16)
    category = np.zeros(8, np.int64)
    fit_prototypes(model, features, category, seed=0)
    near = model.prototypes(standardised(model, features), torch.from_numpy(category))
    spread = torch.cdist(model.prototypes.centres[0], model.prototypes.centres[0])
    assert spread[~torch.eye(4, dtype=torch.bool)].min() > 3 * near.max()


def test_prototypes_see_a_tokens_length():
    """Twice a good token is a good direction, and far from every prototype all the same."""
    model = model_with(60)
    features, category = features_of(model, 6), np.arange(6) % 2
    fit_feature_statistics(model, features)
    fit_prototypes(model, features, category, seed=0)
    whole, label = standardised(model, features), torch.from_numpy(category)
    torch.testing.assert_close(model.normalise(2 * whole), model.normalise(whole))
    near, far = (
        model.map_parts(x, model.reconstruct(model.normalise(x), label), label)[2]
        for x in (whole, 2 * whole)
    )
    assert near.max() < 0.1
    assert far.min() > 5


def test_prototypes_follow_the_seed_and_know_only_their_category():
    fitted = []
    for seed, shift in ((0, 0), (0, 1), (1, 0)):
        model = model_with(10)
        features = features_of(model, 12)
        features[1::2] += np.float16(shift)  # the second category
        fit_prototypes(model, features, np.arange(12) % 2, seed)
        fitted.append(model.prototypes.centres.clone())
    first, shifted, other_seed = fitted
    assert torch.equal(first[0], shifted[0])
    assert not torch.equal(first[1], shifted[1])
    assert not torch.equal(first[0], other_seed[0])


def test_a_model_without_prototypes_is_left_alone():
    model = model_with(0)
    fit_prototypes(model, features_of(model, 4), np.arange(4) % 2, seed=0)
    assert model.prototypes is None
    batch = standardised(model, features_of(model, 4))
    category = torch.arange(4) % 2
    rebuilt = model.reconstruct(model.normalise(batch), category)
    parts = model.map_parts(batch, rebuilt, category)
    assert parts.shape == (3, 4, 16)
    assert parts[2].abs().max() == 0


# Fine prototypes.


def test_fine_tokens_are_the_four_cells_of_the_tap_under_a_token():
    model = model_with(4, fine=4)
    frames = torch.randint(0, 256, (2, 64, 64, 3), generator=torch.Generator().manual_seed(0))
    raw = model.raw_features(frames.to(torch.uint8))
    assert raw.shape == (2, 16, model.raw_channels)
    tap = model.backbone(frames)[FINE_TAP]
    cell = tap[:, :, 4:6, 2:4]  # under the token of row 2 and column 1
    found = model.fine(raw)[:, 4 * 9 : 4 * 10]
    torch.testing.assert_close(found, cell.flatten(2).transpose(1, 2))
    mean = model.of_fine_tap(model.coarse(raw))
    torch.testing.assert_close(mean[:, 9], cell.mean((2, 3)))


def test_a_fine_token_is_standardised_as_its_mean_is():
    model = model_with(4, fine=4)
    features = features_of(model, 8)
    fit_feature_statistics(model, features)
    assert len(model.feature_mean) == model.channels
    same = torch.zeros(1, 16, model.raw_channels)
    same[..., : model.channels] = torch.arange(model.channels)
    four = model.of_fine_tap(model.coarse(same)).repeat_interleave(4, dim=2)
    same[..., model.channels :] = four
    whole = model.standardise(same)
    expected = model.of_fine_tap(model.coarse(whole)).repeat_interleave(4, dim=1)
    torch.testing.assert_close(model.fine(whole), expected)


def test_one_odd_fine_token_marks_its_own_token_alone():
    model = model_with(4, fine=60)
    features, category = features_of(model, 6), np.arange(6) % 2
    fit_feature_statistics(model, features)
    fit_prototypes(model, features, category, seed=0)
    odd = features[:1].copy()
    odd[0, 5, model.channels + 3 :: 4] += 100  # the last of the token's four
    parts = []
    for one in (features[:1], odd):
        whole, label = standardised(model, one), torch.zeros(1, dtype=torch.int64)
        rebuilt = model.reconstruct(model.normalise(whole), label)
        parts.append(model.map_parts(whole, rebuilt, label))
    usual, found = parts
    assert len(found) == len(model.part_weights) == 4
    assert torch.equal(found[:3], usual[:3])
    changed = (found[3] != usual[3])[0].nonzero().flatten()
    assert changed.tolist() == [5]
    assert found[3, 0, 5] > 2 * usual[3].max()


def test_fine_prototypes_leave_the_others_as_they_are():
    fitted = []
    for fine in (0, 8):
        model = model_with(10, fine=fine)
        features = features_of(model_with(10, fine=8), 8)
        fit_feature_statistics(model, features)
        fit_prototypes(model, features, np.arange(8) % 2, seed=0)
        fitted.append(model)
    without, with_fine = fitted
    assert without.fine_prototypes is None
    assert torch.equal(without.feature_mean, with_fine.feature_mean)
    assert torch.equal(without.prototypes.centres, with_fine.prototypes.centres)
    assert with_fine.fine_prototypes.centres.abs().amax((1, 2)).min() > 0


# Tokens.


def test_average_resize_is_the_mean_of_each_cell():
    tap = random(0, 2, 3, 12, 12)
    small = resize_tap(tap, 4, "average")
    expected = tap.unflatten(3, (4, 3)).unflatten(2, (4, 3)).mean((3, 5))
    torch.testing.assert_close(small, expected)
    assert torch.equal(resize_tap(small, 4, "average"), small)


def test_bilinear_resize_keeps_the_corners_as_published():
    tap = random(1, 1, 2, 8, 8)
    small = resize_tap(tap, 4, "bilinear")
    torch.testing.assert_close(small[..., 0, 0], tap[..., 0, 0])
    torch.testing.assert_close(small[..., 3, 3], tap[..., 7, 7])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 60), st.floats(0.1, 1000))
def test_normalised_tokens_have_one_length_whatever_the_contrast(seed, channels, contrast):
    tokens = random(seed, 2, 5, channels)
    tokens = tokens / tokens.norm(dim=2, keepdim=True).clamp_min(1e-3)
    found = normalise_tokens(contrast * tokens)
    length = torch.full((2, 5), channels**0.5)
    torch.testing.assert_close(found.norm(dim=2), length, rtol=1e-3, atol=0)
    torch.testing.assert_close(found, normalise_tokens(tokens), rtol=1e-3, atol=1e-3)


def test_a_token_of_zeros_stays_zeros():
    assert torch.equal(normalise_tokens(torch.zeros(1, 2, 7)), torch.zeros(1, 2, 7))


@pytest.mark.parametrize("normalise", [True, False])
def test_the_setting_decides_about_normalising(normalise):
    chosen = load_settings("tiny", model={**SMALL, "normalise_tokens": normalise})
    model = HVQTrans(chosen.model, 1)
    tokens = 5 * random(0, 1, 16, model.raw_channels)
    found = model.normalise(model.standardise(tokens))
    own = model.coarse(tokens)
    assert torch.equal(found, normalise_tokens(own) if normalise else own)
