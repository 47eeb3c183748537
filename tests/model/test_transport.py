"""Transport between tokens and codes: the score, and the two losses against references."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.model.codebook import nearest_code
from hvq_edge.model.transport import (
    code_masses,
    conditional_loss,
    entropic_loss,
    entropic_plan,
    similarity,
    transport_score,
)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cost_of(z: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
    return 1 - z @ e / (z.norm() * e.norm())


def shares(values: list[torch.Tensor], temperature: float) -> torch.Tensor:
    return torch.softmax(torch.stack(values) / temperature, 0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(1.0, 100.0))
def test_transport_score_by_its_definition(seed, temperature):
    tokens, codebook = random(seed, 1, 3, 6), random(seed + 1, 1, 5, 6)
    expected = torch.zeros(1, 3)
    for token, z in enumerate(tokens[0]):
        costs = torch.stack([cost_of(z, e) for e in codebook[0]])
        expected[0, token] = (costs * shares([z @ e for e in codebook[0]], temperature)).sum()
    score = transport_score(tokens, codebook, temperature)
    torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-5)


def test_transport_score_of_a_zero_token_is_finite():
    score = transport_score(torch.zeros(1, 1, 4), random(0, 1, 3, 4), 8.0)
    assert score.item() == pytest.approx(1.0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.5, 50.0))
def test_conditional_loss_is_that_of_a_loop_both_ways(seed, temperature):
    tokens, codebook = random(seed, 2, 4, 6), random(seed + 1, 2, 5, 6)
    costs = []
    for own, codes in zip(tokens, codebook, strict=True):
        for z in own:
            to_codes = shares([z @ e for e in codes], temperature)
            costs += [to_codes[k] * cost_of(z, e) / 4 / 2 for k, e in enumerate(codes)]
        for e in codes:
            to_tokens = shares([z @ e for z in own], temperature)
            costs += [to_tokens[i] * cost_of(z, e) / 5 / 2 for i, z in enumerate(own)]
    expected = torch.stack(costs).sum() / 2  # mean of two images
    found = conditional_loss(tokens, codebook, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def reference_plan(cost: torch.Tensor, epsilon: float, masses: torch.Tensor) -> np.ndarray:
    """POT's plan of one image, in float64."""
    tokens = np.full(len(cost), 1 / len(cost))
    codes = masses.double().numpy()
    codes = codes / codes.sum()  # to float64's last bit, else it never ends
    plan = ot.bregman.sinkhorn_log(tokens, codes, cost.double().numpy(), epsilon, 5000, 1e-10)
    return np.asarray(plan)


@pytest.mark.parametrize("epsilon", [0.05, 0.5])
@pytest.mark.parametrize("by_usage", [False, True])
def test_entropic_plan_and_loss_are_those_of_pot(epsilon, by_usage):
    tokens, codebook = random(0, 2, 12, 6), random(1, 2, 9, 6)
    usage = random(2, 2, 9).abs() if by_usage else None
    cost = 1 - similarity(tokens, codebook)[1]
    masses = code_masses(cost, usage)
    if usage is not None:
        torch.testing.assert_close(masses, usage / usage.sum(1, keepdim=True))
    plan = entropic_plan(cost, epsilon, masses, rounds=500)
    loss = entropic_loss(tokens, codebook, epsilon, usage, rounds=500)
    expected = [reference_plan(*one) for one in zip(cost, [epsilon] * 2, masses, strict=True)]
    for own, theirs in zip(plan, expected, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=2e-3, atol=1e-6)
    of_pot = np.mean([(plan * own.numpy()).sum() for plan, own in zip(expected, cost, strict=True)])
    assert loss.item() == pytest.approx(of_pot, rel=1e-4)


@pytest.mark.parametrize("reached", ["tokens", "codes"])
def test_entropic_gradient_is_that_of_the_regularised_optimum(reached):
    """POT's value of it, by differences: holding the plan fixed is no approximation."""
    epsilon = 0.2
    tokens, codebook = random(0, 1, 6, 4).double(), random(1, 1, 5, 4).double()
    moved = {"tokens": tokens, "codes": codebook}[reached]

    def optimum() -> float:
        cost = (1 - similarity(tokens, codebook)[1])[0]
        plan = reference_plan(cost, epsilon, torch.full((5,), 1 / 5))
        return float((plan * cost.numpy()).sum() + epsilon * (plan * np.log(plan)).sum())

    moved.requires_grad_()
    entropic_loss(tokens, codebook, epsilon, rounds=200).backward()
    gradient = moved.grad
    moved.requires_grad_(requires_grad=False)
    step = 1e-4
    for place in ((0, 0, 0), (0, 4, 1)):
        ends = []
        for sign in (1, -1):
            moved[place] += sign * step
            ends.append(optimum())
            moved[place] -= sign * step
        assert gradient[place].item() == pytest.approx((ends[0] - ends[1]) / 2 / step, abs=2e-5)


def test_whatever_the_rounds_tokens_give_their_whole_mass():
    cost = 1 - similarity(random(0, 2, 12, 6), random(1, 2, 9, 6))[1]
    masses = code_masses(cost, None)
    errors = []
    for rounds in (1, 5, 50):
        plan = entropic_plan(cost, 0.05, masses, rounds)
        torch.testing.assert_close(plan.sum(2), torch.full((2, 12), 1 / 12), rtol=1e-5, atol=0)
        errors.append((plan.sum(1) - masses).abs().max().item())
    assert errors[0] > errors[1] > errors[2]


def test_codes_that_were_never_used_have_a_mass_that_is_finite():
    cost = 1 - similarity(random(0, 1, 5, 4), random(1, 1, 3, 4))[1]
    for usage in (torch.zeros(1, 3), torch.tensor([[0.0, 4.0, 0.0]])):
        masses = code_masses(cost, usage)
        assert masses.sum().item() == pytest.approx(1)
        assert torch.isfinite(entropic_plan(cost, 0.05, masses, 20)).all()
    assert masses[0, 1] > 0.999


@pytest.mark.parametrize("loss", [conditional_loss, entropic_loss])
def test_losses_are_computed_in_float32_under_autocast(loss):
    tokens, codebook = random(0, 2, 12, 16), random(1, 2, 9, 16)
    expected = loss(tokens, codebook, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(tokens, codebook, 0.5), expected)


@pytest.mark.parametrize("loss", [conditional_loss, entropic_loss])
def test_a_code_that_no_token_is_near_is_pulled_to_tokens(loss):
    """What regulates: nearest codes alone would leave it where it is for ever."""
    tokens = random(0, 1, 20, 8) * 0.2 + torch.tensor([3.0, *[0.0] * 7])
    codes = random(1, 1, 4, 8) * 0.2 + torch.tensor([3.0, *[0.0] * 7])
    codes[0, 3] = torch.tensor([-1.0, 3.0, *[0.0] * 6])
    assert (nearest_code(tokens, codes) != 3).all()
    codes.requires_grad_()
    before = (1 - similarity(tokens, codes)[1])[0, :, 3].mean().item()
    optimizer = torch.optim.Adam([codes], 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss(tokens, codes, 0.5).backward()
        optimizer.step()
    after = (1 - similarity(tokens, codes)[1])[0, :, 3].mean().item()
    assert before > 1
    assert after < before / 4
