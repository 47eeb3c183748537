"""Prototype-oriented optimal transport between an image's tokens and its category's codes.

HVQ-Trans (section 3.4) moves N tokens z of mass 1/N to K codes e at the cost 1 − cosine. Three
plans are here. The *conditional* one gives a token's mass to codes by softmax over codes: the
released score, which export makes a table. Taken *both ways* it also gives a code's mass to tokens
by softmax over tokens (Zheng & Zhou, NeurIPS 2021), which pulls a code that no token is near to
where tokens are. The *entropic* one keeps both masses (Sinkhorn; Guo et al., ICLR 2022; Li et al.,
ICML 2023). The last two are losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hvq_edge.model.device import full_precision

SINKHORN_ROUNDS = 20
"""Rounds of Sinkhorn's iteration in a training step. Whatever their number, tokens give their whole
mass; how far off what codes get still is stands in docs/explanation/transport.md."""
LEAST_MASS = 1e-6
"""Of a code whose usage is its mass: an unused one gets no more, and its logarithm is finite."""


def similarity(tokens: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Dot products and cosines of tokens and codes.

    Args:
        tokens: ``[batch, tokens, width]``.
        codebook: ``[batch, codes, width]``.

    Returns:
        ``[batch, tokens, codes]`` each; the cosine of a token or code of zeros is 0.
    """
    dots = tokens @ codebook.transpose(1, 2)
    norms = tokens.norm(dim=2)[..., None] * codebook.norm(dim=2)[:, None]
    return dots, dots / norms.clamp_min(torch.finfo(dots.dtype).tiny)


def transport_score(tokens: Tensor, codebook: Tensor, temperature: float) -> Tensor:
    """Transport cost of each token under the conditional plan, from tokens to codes.

    Sum over codes of (1 − cosine) weighted by softmax(dot / temperature).

    Args:
        tokens: ``[batch, tokens, width]``.
        codebook: ``[batch, codes, width]``.
        temperature: divisor of the dot products.

    Returns:
        ``[batch, tokens]``, between 0 and 2.
    """
    dots, cosine = similarity(tokens, codebook)
    weighted: Tensor = cosine * torch.softmax(dots / temperature, dim=2)
    return 1 - weighted.sum(2)


def conditional_loss(tokens: Tensor, codebook: Tensor, temperature: float) -> Tensor:
    """Mean cost of conditional transport over both ways and the batch, a scalar between 0 and 2.

    Args:
        tokens: ``[batch, tokens, width]``.
        codebook: ``[batch, codes, width]``.
        temperature: divisor of the dot products.
    """
    with full_precision(tokens.device):
        dots, cosine = similarity(tokens.float(), codebook.float())
        scaled, cost = dots / temperature, 1 - cosine
        to_codes = (torch.softmax(scaled, dim=2) * cost).sum(2).mean()
        to_tokens = (torch.softmax(scaled, dim=1) * cost).sum(1).mean()
    loss: Tensor = (to_codes + to_tokens) / 2
    return loss


def entropic_loss(
    tokens: Tensor,
    codebook: Tensor,
    epsilon: float,
    usage: Tensor | None = None,
    rounds: int = SINKHORN_ROUNDS,
) -> Tensor:
    """Mean cost of entropic optimal transport over the batch, a scalar between 0 and 2.

    The plan is held fixed for the gradient, which so is that of the regularised optimum (envelope
    theorem) and costs no pass through the iteration.

    Args:
        tokens: ``[batch, tokens, width]``.
        codebook: ``[batch, codes, width]``.
        epsilon: weight of the plan's entropy.
        usage: ``[batch, codes]``, how often each code is used; ``None``: codes have one mass.
        rounds: of Sinkhorn's iteration.
    """
    with full_precision(tokens.device):
        cost = 1 - similarity(tokens.float(), codebook.float())[1]
        plan = entropic_plan(cost.detach(), epsilon, code_masses(cost, usage), rounds)
        loss: Tensor = (plan * cost).sum((1, 2)).mean()
    return loss


def code_masses(cost: Tensor, usage: Tensor | None) -> Tensor:
    """Mass of each code, ``[batch, codes]`` with rows that sum to 1.

    Args:
        cost: ``[batch, tokens, codes]``.
        usage: as for :func:`entropic_loss`; before any code was used all have one mass.
    """
    if usage is None:
        return cost.new_full((len(cost), cost.shape[2]), 1 / cost.shape[2])
    share = usage / usage.sum(1, keepdim=True).clamp_min(torch.finfo(usage.dtype).tiny)
    share = share.clamp_min(LEAST_MASS)
    return share / share.sum(1, keepdim=True)


@torch.no_grad()
def entropic_plan(cost: Tensor, epsilon: float, masses: Tensor, rounds: int) -> Tensor:
    """Sinkhorn's plan, in logarithms: from tokens of one mass to codes of theirs.

    Args:
        cost: float32 ``[batch, tokens, codes]``.
        epsilon: weight of the plan's entropy.
        masses: ``[batch, codes]``, positive, rows sum to 1.
        rounds: of the iteration.

    Returns:
        ``[batch, tokens, codes]``: rows sum to 1 / tokens exactly, columns to ``masses`` the better
        the more rounds.
    """
    kernel = -cost / epsilon
    token_mass = -math.log(cost.shape[1])
    code_mass = masses.log()[:, None]
    of_codes = torch.zeros_like(code_mass)
    for _ in range(rounds):
        of_tokens = token_mass - torch.logsumexp(kernel + of_codes, dim=2, keepdim=True)
        of_codes = code_mass - torch.logsumexp(kernel + of_tokens, dim=1, keepdim=True)
    scaled = kernel + of_codes
    return (scaled - torch.logsumexp(scaled, dim=2, keepdim=True) + token_mass).exp()
