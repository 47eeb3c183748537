"""The nearest-neighbour baseline: by its definition, with loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.accuracy.nearest_neighbour import fit_memory, grid_of
from hvq_edge.errors import InputError
from hvq_edge.model.prototypes import average_neighbours


def raw_features(seed: int, images: int, grid: int, channels: int) -> np.ndarray:
    shape = (images, grid**2, channels)
    return np.random.default_rng(seed).normal(3.0, 2.0, shape).astype(np.float16)


def tensor(raw: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(raw.astype(np.float32))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))
def test_distance_to_every_kept_token_the_smallest_of_them(seed, images, grid, channels):
    fit = raw_features(seed, images, grid, channels)
    memory = fit_memory(fit, vectors=10_000)
    seen = raw_features(seed + 1, 2, grid, channels)
    tokens = fit.reshape(-1, channels).astype(np.float64)
    mean, std = memory.mean.double().numpy(), memory.std.double().numpy()
    for image, found in zip(seen, memory.distance(tensor(seen)), strict=True):
        for token, distance in zip(image.astype(np.float64), found.flatten(), strict=True):
            expected = min(np.linalg.norm((token - other) / std) for other in tokens)
            assert float(distance) == pytest.approx(expected, rel=1e-3, abs=2e-2)
    np.testing.assert_allclose(mean, tokens.mean(0), rtol=1e-5)


def test_images_in_the_memory_have_no_distance_and_channels_count_by_their_spread():
    fit = raw_features(0, 3, 4, 5)
    fit[..., 0] *= 100  # without standardisation it would decide alone
    memory = fit_memory(fit, vectors=10_000)
    assert memory.distance(tensor(fit)).max() < 0.02
    standardised = memory.vectors
    torch.testing.assert_close(standardised.std(0, correction=0), torch.ones(5), rtol=1e-3, atol=0)


def test_a_channel_that_never_varies_is_not_blown_up():
    fit = raw_features(0, 3, 4, 5)
    fit[..., 2] = 1.5
    other = fit.copy()
    other[..., 2] = 1.501
    distance = fit_memory(fit, vectors=10_000).distance(tensor(other))
    assert torch.isfinite(distance).all()
    assert distance.max() < 1.0


def test_tokens_that_are_all_the_same_have_finite_distances():
    fit = np.full((2, 4, 3), 1.5, np.float16)
    distance = fit_memory(fit).distance(tensor(fit) + 1)
    torch.testing.assert_close(distance, torch.full((2, 2, 2), 3**0.5))


def test_the_memory_keeps_so_many_vectors_of_the_tokens_chosen_by_the_seed():
    fit = raw_features(0, 4, 5, 3)
    few, same, other = (fit_memory(fit, vectors=20, seed=seed) for seed in (1, 1, 2))
    assert few.vectors.shape == (20, 3)
    assert torch.equal(few.vectors, same.vectors)
    assert not torch.equal(few.vectors, other.vectors)
    tokens = fit_memory(fit, vectors=10_000).vectors
    assert tokens.shape == (100, 3)
    assert all((tokens == vector).all(1).any() for vector in few.vectors)
    assert len(few.vectors.unique(dim=0)) == 20


def test_pooling_averages_the_neighbours_that_are_there():
    raw = tensor(raw_features(3, 2, 4, 3))
    pooled = average_neighbours(raw, 3).view(2, 4, 4, 3)
    image = raw.view(2, 4, 4, 3)
    for row in range(4):
        for column in range(4):
            around = image[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            torch.testing.assert_close(pooled[:, row, column], around.mean((1, 2)))


def test_a_pooled_memory_pools_what_it_judges():
    fit = raw_features(0, 3, 4, 5)
    memory = fit_memory(fit, pooled=True, vectors=10_000)
    assert memory.distance(tensor(fit)).max() < 0.02
    plain = fit_memory(fit, vectors=10_000)
    seen = tensor(raw_features(9, 1, 4, 5))
    assert not torch.allclose(memory.distance(seen), plain.distance(seen))


def test_maps_are_row_major():
    fit = np.zeros((1, 9, 2), np.float16)
    fit[0, :, 0] = np.linspace(-0.1, 0.1, 9)
    fit[0, :, 1] = np.linspace(0.1, -0.1, 9)
    seen = np.zeros((1, 9, 2), np.float16)
    seen[0, 5] = 50.0  # row 1, column 2
    distance = fit_memory(fit).distance(tensor(seen))
    assert distance.shape == (1, 3, 3)
    assert distance[0].argmax() == 5
    assert distance[0, 1, 2] > 10 * distance[0, 2, 1]
    assert grid_of(tensor(seen)) == 3


def test_no_image_is_no_memory():
    with pytest.raises(InputError, match="at least one image"):
        fit_memory(np.zeros((0, 4, 3), np.float16))
