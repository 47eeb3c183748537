"""What the ablations try beyond the settings does what its name says, and ends when it is left."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.accuracy.ablation_variants import (
    averaged_weights,
    cosine_loss,
    far_from_each_other,
    hard_tokens,
    jittered_features,
    kmeans_start,
    masked_tokens,
    neighbours_masked,
    noisy_features,
    pooled_keys,
    taps_alike,
    without_odd_tokens,
    worst_tokens,
)
from benchmarks.accuracy.flips import FLIP_TOLERANCE, allowed_flips, flip_distances, with_flips
from hvq_edge.errors import InputError
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.transformer import Attention, EncoderLayer
from hvq_edge.run.settings import TrainingSettings, load_settings
from hvq_edge.training import trainer
from hvq_edge.training.batches import Images, to_tensor
from hvq_edge.training.codebook_start import start_codebooks
from hvq_edge.training.trainer import Losses

SMALL = {"width": 16, "heads": 2, "feedforward": 32, "layers": 2, "codes": 12, "prototypes": 4}
CATEGORY = np.repeat([0, 1], 6)


def small_model(side: int = 80) -> HVQTrans:
    torch.manual_seed(0)
    return HVQTrans(load_settings("tiny", model={**SMALL, "input_side": side}).model, 2)


def features(model: HVQTrans, images: int = 12, seed: int = 0) -> np.ndarray:
    shape = (images, model.settings.grid**2, model.raw_channels)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float16)


# Averaged weights.


def test_weights_become_the_moving_average_over_the_steps():
    model = small_model()
    weight = model.input_projection.weight
    codes = cast("Codebooks", model.codebooks[0]).codes
    optimizer = torch.optim.SGD([weight], lr=1.0)
    averages = [weight.detach().double().clone(), codes.double().clone()]
    other = model.decoder_norm.weight.detach().clone()
    with averaged_weights(model, decay=0.2):
        for step in range(1, 5):
            weight.grad = torch.full_like(weight, 0.1 * step)
            codes += 0.5
            optimizer.step()
            kept = min(0.2, (1 + step) / (10 + step))  # 2/11 in the first step
            for i, value in enumerate((weight.detach(), codes)):
                averages[i] = kept * averages[i] + (1 - kept) * value.double()
        last = weight.detach().clone()
    torch.testing.assert_close(weight.detach(), averages[0].float())
    torch.testing.assert_close(codes, averages[1].float())
    assert not torch.allclose(weight, last)
    torch.testing.assert_close(model.decoder_norm.weight.detach(), other)


def test_averaging_ends_when_it_is_left_and_a_failed_training_keeps_its_weights():
    model = small_model()
    weight = model.input_projection.weight
    optimizer = torch.optim.SGD([weight], lr=1.0)
    weight.grad = torch.ones_like(weight)
    before = weight.detach().clone()

    def broken_training() -> None:
        with averaged_weights(model):
            optimizer.step()
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        broken_training()
    torch.testing.assert_close(weight.detach(), before - 1)
    with averaged_weights(model):
        pass
    optimizer.step()  # the hooks are gone
    torch.testing.assert_close(weight.detach(), before - 2)


# Feature jitter.


def test_noise_has_the_length_of_the_token_and_the_scale():
    model = small_model()
    model.train()
    seen = []
    model.input_projection.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    clean = torch.from_numpy(features(model, 40).astype(np.float32))
    clean[:, ::2] *= 10
    with jittered_features(model, scale=20.0):
        model.encode(clean)
    channels = clean.shape[2]
    noise = (seen[0] - clean).square().mean(2).sqrt()
    expected = 20 * clean.norm(dim=2) / channels
    assert noise.mean() / expected.mean() == pytest.approx(1, abs=0.01)
    assert noise[:, ::2].mean() / expected[:, ::2].mean() == pytest.approx(1, abs=0.02)
    assert noise[:, 1::2].mean() / expected[:, 1::2].mean() == pytest.approx(1, abs=0.02)


def test_noise_is_rebuilt_from_never_to():
    """With an output that is always the clean image, the loss is nothing, noise or not."""
    model = small_model()
    model.train()
    clean = torch.zeros(2, 25, model.raw_channels)
    clean += torch.linspace(-1, 1, clean.shape[2])  # every token the same
    with torch.no_grad():
        model.output_weight.zero_()
        model.output_bias.copy_(clean[0, :1].expand(2, -1))
    with jittered_features(model):
        loss = Losses(model, TrainingSettings())(clean, torch.tensor([0, 1])).feature
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_noise_is_for_training_only_and_ends_when_it_is_left():
    model = small_model()
    clean = torch.from_numpy(features(model, 2).astype(np.float32))
    expected = model.eval().encode(clean)
    with jittered_features(model):
        torch.testing.assert_close(model.encode(clean), expected, rtol=0, atol=0)
        assert not torch.equal(model.train().encode(clean)[-1], expected[-1])
    torch.testing.assert_close(model.encode(clean), expected, rtol=0, atol=0)


def test_noise_of_a_deviation_is_the_same_for_every_token():
    model = small_model().train()
    seen = []
    model.input_projection.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    clean = torch.from_numpy(features(model, 40).astype(np.float32))
    clean[:, ::2] *= 10
    with noisy_features(model, 0.5):
        model.encode(clean)
        model.eval().encode(clean)
    noise = (seen[0] - clean).square().mean((0, 2)).sqrt()
    assert noise.numpy() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(seen[1], clean)


def test_masked_tokens_are_hidden_whole_and_rebuilt_all_the_same():
    model = small_model().train()
    seen = []
    model.input_projection.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    clean = torch.from_numpy(features(model, 40).astype(np.float32))
    with masked_tokens(model, 0.25):
        Losses(model, TrainingSettings())(clean, torch.zeros(40, dtype=torch.int64))
        model.eval().encode(clean)
    hidden = (seen[0] == 0).all(2)
    assert hidden.float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert torch.equal(seen[0][~hidden], clean[~hidden])
    assert torch.equal(seen[1], clean)


# Losses.


def test_errors_count_by_what_the_loss_is_of():
    """An image whose tokens are off by 0, 1, 2 and 3, each in all of its channels."""
    model = small_model()
    channels = len(model.feature_mean)
    features = torch.ones(1, 4, channels)
    rebuilt = features + torch.arange(4.0)[None, :, None]
    losses = {
        (hard_tokens, 1.0): (0 + 1 + 16 + 81) / 14,  # squared errors 0, 1, 4, 9
        (hard_tokens, 0.0): 14 / 4,
        (worst_tokens, 0.5): 13 / 2,
        (without_odd_tokens, 0.25): 5 / 3,
    }
    for (variant, value), expected in losses.items():
        with variant(model, value):
            assert trainer.feature_loss(rebuilt, features).item() == pytest.approx(expected)
    with cosine_loss(model):
        assert trainer.feature_loss(rebuilt, features).item() == pytest.approx(0, abs=1e-5)
        assert trainer.feature_loss(-rebuilt, features).item() == pytest.approx(4)
    off = features.clone()
    off[..., :16] += 1  # the first of four taps
    with taps_alike(model):
        assert trainer.feature_loss(off, features).item() == pytest.approx(1 / 4)
    assert trainer.feature_loss(off, features).item() == pytest.approx(16 / channels)


def test_the_training_learns_by_the_loss_that_stands_in():
    model = small_model().eval()
    tokens = torch.from_numpy(features(model, 2).astype(np.float32))
    losses = Losses(model, TrainingSettings())
    label = torch.tensor([0, 1])
    plain = losses(tokens, label).feature
    with worst_tokens(model, 0.5):
        assert losses(tokens, label).feature > plain
    assert torch.equal(losses(tokens, label).feature, plain)


# Neighbour-masked attention.


@pytest.mark.parametrize(("grid", "size"), [(5, 3), (8, 7), (6, 5), (4, 1)])
def test_tokens_see_what_lies_outside_the_neighbourhood(grid, size):
    seen = far_from_each_other(grid, size)
    for i in range(grid**2):
        for j in range(grid**2):
            rows, columns = abs(i // grid - j // grid), abs(i % grid - j % grid)
            assert bool(seen[i, j]) == (max(rows, columns) > size // 2)


def test_a_tokens_neighbours_do_not_reach_it_through_attention():
    model = small_model(side=80)  # a grid of 5 x 5
    attention = cast("Attention", cast("EncoderLayer", model.encoder[0]).self_attention)
    values = torch.randn(1, 25, 16, requires_grad=True)
    query = torch.randn(1, 25, 16)
    with neighbours_masked(model, size=3):
        attention(query, query, values)[0, 12].sum().backward()
    reached = values.grad[0].abs().sum(1).view(5, 5) > 0
    assert not reached[1:4, 1:4].any()
    assert int(reached.sum()) == 16
    assert torch.nn.functional.scaled_dot_product_attention is F.scaled_dot_product_attention


def test_the_mask_is_in_every_attention_and_gone_afterwards():
    model = small_model().eval()
    tokens = torch.from_numpy(features(model, 2).astype(np.float32))
    category = torch.tensor([0, 1])
    before = model.reconstruct(tokens, category)
    with neighbours_masked(model, size=3):
        masked = model.reconstruct(tokens, category)
    after = model.reconstruct(tokens, category)
    assert not torch.allclose(masked.features, before.features)
    assert torch.equal(after.features, before.features)


def test_a_neighbourhood_that_covers_the_grid_is_refused():
    with (
        pytest.raises(InputError, match="7x7 leaves nothing to see on a grid of 5x5"),
        neighbours_masked(small_model(side=80)),
    ):
        pass


# Attention to means.


def test_a_token_attends_to_means_of_its_grid():
    attend = F.scaled_dot_product_attention
    query = torch.randn(1, 2, 16, 3)
    key, value = torch.randn(2, 1, 2, 16, 3)
    with pooled_keys(small_model(side=64)):
        pooled = F.scaled_dot_product_attention(query, key, value)
    corners = [0, 2, 8, 10]  # of the four squares of a grid of 4x4
    of_keys = [key[:, :, [c, c + 1, c + 4, c + 5]].mean(2) for c in corners]
    of_values = [value[:, :, [c, c + 1, c + 4, c + 5]].mean(2) for c in corners]
    expected = attend(query, torch.stack(of_keys, 2), torch.stack(of_values, 2))
    assert torch.allclose(pooled, expected, atol=1e-6)
    assert F.scaled_dot_product_attention is attend


def test_a_grid_that_has_no_such_means_is_refused():
    with (
        pytest.raises(InputError, match="5x5 tokens has no means of 2x2"),
        pooled_keys(small_model(side=80)),
    ):
        pass


# The k-means start.


def test_kmeans_starts_nearer_to_the_tokens_than_random_tokens_do():
    fit = features(small_model())

    @torch.no_grad()
    def commitment(start) -> list[float]:
        model = small_model()
        start(model, fit, CATEGORY, 0)
        assert model.training  # as it was
        model.eval()
        outputs = model.encode(to_tensor(model, fit))
        label = torch.from_numpy(CATEGORY)
        *lower, top = cast("list[Codebooks]", list(model.codebooks))
        found = top(outputs[-1], label)
        losses = [float(found.commitment)]
        for level, books in enumerate(lower):
            tokens = torch.cat([outputs[level], found.codes], dim=2)
            losses.append(float(books(tokens, label).commitment))
        return losses

    for kmeans, random in zip(commitment(kmeans_start), commitment(start_codebooks), strict=True):
        assert kmeans < 0.95 * random


def test_kmeans_sees_the_own_category_only_and_counts_its_tokens():
    model = small_model()
    fit = features(model)
    kmeans_start(model, fit, CATEGORY, 0)
    changed = small_model()
    other = fit.copy()
    other[CATEGORY == 1] *= 3
    kmeans_start(changed, other, CATEGORY, 0)
    for one, other in zip(model.codebooks, changed.codebooks, strict=True):
        mine, theirs = cast("Codebooks", one), cast("Codebooks", other)
        torch.testing.assert_close(mine.codes[0], theirs.codes[0], rtol=0, atol=0)
        assert not torch.allclose(mine.codes[1], theirs.codes[1])
        torch.testing.assert_close(mine.usage.sum(1), torch.full((2,), 25.0))  # tokens an image
        torch.testing.assert_close(mine.sums, mine.codes * mine.usage[..., None])


# Flips.


def test_flips_are_allowed_where_flipped_images_lie_as_near_as_upright_ones():
    model = small_model()
    names = ("plain", "directed")
    fit = Images(features(model, seed=0), CATEGORY)
    held_out = Images(features(model, 4, seed=1), np.array([0, 0, 1, 1]))
    turned = features(model, 4, seed=2)
    turned[2:] += 3.0
    found = flip_distances(fit, held_out, {"vertical": turned}, names, "cpu")
    assert found["vertical"]["plain"] == pytest.approx(1, abs=0.03)
    assert found["vertical"]["directed"] > 1.5
    assert allowed_flips(found) == {"vertical": ["plain"]}
    edge = {"horizontal": {"in": 1 + FLIP_TOLERANCE, "out": 1.001 + FLIP_TOLERANCE}}
    assert allowed_flips(edge) == {"horizontal": ["in"]}


def test_flipped_images_join_with_their_category():
    model = small_model()
    fit = Images(features(model, seed=0), CATEGORY)
    chosen = {"horizontal": CATEGORY == 1, "vertical": np.arange(12) < 2}
    flipped = {"horizontal": features(model, 6, seed=1), "vertical": features(model, 2, seed=2)}
    joined = with_flips(fit, flipped, chosen)
    assert joined.category.tolist() == [*CATEGORY, *[1] * 6, *[0] * 2]
    assert np.array_equal(joined.features[:12], fit.features)
    assert np.array_equal(joined.features[12:18], flipped["horizontal"])
    assert with_flips(fit, {}, {}).category.tolist() == CATEGORY.tolist()
