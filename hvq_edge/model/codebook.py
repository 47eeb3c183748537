"""Vector-quantised prototypes: one codebook for each category, learnt by moving averages.

van den Oord et al., "Neural Discrete Representation Learning" (2017), appendix A.1 for the moving
averages, equation 3 for codes that learn by gradient; HVQ-Trans keeps one such codebook a level and
a category.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist

from hvq_edge.model.device import full_precision
from hvq_edge.run.settings import CodebookLearning


class Quantised(NamedTuple):
    """What a lookup gives."""

    indices: Tensor
    """int64 ``[batch, tokens]``: the nearest code of each token."""
    codes: Tensor
    """``[batch, tokens, width]``; while training, straight-through: gradients reach the tokens."""
    commitment: Tensor
    """Scalar: mean squared distance of tokens to their codes (paper equation 6)."""
    codebook_loss: Tensor
    """Scalar: the same for the codes to learn from; zero where moving averages move them."""


class Codebooks(nn.Module):
    """The codebooks of one level, stacked over categories.

    Args:
        categories: number of product categories.
        codes: codes in each codebook.
        width: channels of a code.
        decay: of the moving averages, for each image.
        epsilon: Laplace smoothing of the cluster sizes.
        learning: what moves codes (:attr:`TrainingSettings.codebook_learning`).
    """

    codes: Tensor  # [categories, codes, width]
    usage: Tensor  # [categories, codes]: moving average of tokens an image gives to the code
    sums: Tensor  # [categories, codes, width]: moving average of the sum of these tokens

    def __init__(
        self,
        categories: int,
        codes: int,
        width: int,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        learning: CodebookLearning = "averages",
    ) -> None:
        super().__init__()
        self.decay = decay
        self.epsilon = epsilon
        self.learning = learning
        start = torch.randn(categories, codes, width)
        if learning == "averages":
            self.register_buffer("codes", start)
        else:  # under the same name in a checkpoint
            self.codes = nn.Parameter(start)
        self.register_buffer("usage", torch.zeros(categories, codes))
        self.register_buffer("sums", start.clone())

    def forward(self, tokens: Tensor, category: Tensor) -> Quantised:
        """Replace each token by its nearest code; while training, move the codes as well.

        Args:
            tokens: ``[batch, tokens, width]``.
            category: int64 ``[batch]``.
        """
        codebook = self.codes[category]  # [b, n, w]
        index = nearest_code(tokens.detach(), codebook.detach())
        codes = torch.gather(codebook, 1, index[..., None].expand(-1, -1, tokens.shape[2]))
        if self.training:
            # In the averages' own precision: bfloat16 knows no decay of 0.99, nor sums of many.
            self._update(tokens.detach().to(self.sums.dtype), index, category)
        commitment = (codes.detach() - tokens).square().mean()
        by_gradient = self.training and self.learning == "gradient"
        loss = (
            (codes - tokens.detach()).square().mean() if by_gradient else commitment.new_zeros(())
        )
        if self.training:
            codes = tokens + (codes - tokens).detach()
        return Quantised(index, codes, commitment, loss)

    @torch.no_grad()
    def _update(self, tokens: Tensor, index: Tensor, category: Tensor) -> None:
        # The authors update after every image. m images of a category at once move it by
        # decay**m towards their mean, which is the same half-life counted in images.
        categories, n, width = self.codes.shape
        flat = (category[:, None] * n + index).flatten()
        counts = torch.bincount(flat, minlength=categories * n).view(categories, n, 1)
        sums = tokens.new_zeros(categories * n, width).index_add_(0, flat, tokens.flatten(0, 1))
        sums = sums.view(categories, n, width)
        images = torch.bincount(category, minlength=categories)[:, None, None]
        counts, images = counts.to(tokens.dtype), images.to(tokens.dtype)
        if dist.is_available() and dist.is_initialized():  # the other processes' images as well
            for statistic in (counts, sums, images):
                dist.all_reduce(statistic)

        decay = self.decay**images
        share = (1 - decay) / images.clamp_min(1)
        usage = self.usage * decay[..., 0] + (share * counts)[..., 0]
        total = usage.sum(1, keepdim=True)
        smoothed = ((usage + self.epsilon) / (total + n * self.epsilon) * total)[..., None]
        before = self.sums * decay
        if self.learning == "both":
            # Go on from where the gradient has put the codes. What no token chooses stays there,
            # where the published averages let it shrink to nothing.
            before = self.codes * (smoothed - share * counts).clamp_min(0)
        mean = before + share * sums
        present = images[:, 0, 0] > 0
        self.usage[present] = usage[present]
        if self.learning != "gradient":
            self.sums[present] = mean[present]
            self.codes[present] = (mean / smoothed)[present]

    @torch.no_grad()
    def place(self, category: int, slots: Tensor, tokens: Tensor, usage: Tensor) -> None:
        """Put codes at the places of tokens, as if each had been used ``usage`` times an image.

        Args:
            category: whose codebook.
            slots: int64 ``[k]``: which codes.
            tokens: ``[k, width]``: their new places.
            usage: ``[k]`` or scalar, positive.
        """
        usage = usage.expand(len(slots)).to(self.usage.dtype)
        self.codes[category, slots] = tokens
        self.usage[category, slots] = usage
        self.sums[category, slots] = tokens * usage[:, None]


def perplexity(usage: Tensor) -> Tensor:
    """How many codes are in use, were all used alike: e to the entropy of their shares.

    Args:
        usage: ``[..., codes]``, not negative.

    Returns:
        ``[...]``, between 1 and the number of codes.
    """
    share = usage / usage.sum(-1, keepdim=True).clamp_min(torch.finfo(usage.dtype).tiny)
    entropy: Tensor = torch.special.entr(share).sum(-1)
    return entropy.exp()


def nearest_code(tokens: Tensor, codebook: Tensor) -> Tensor:
    """Return the index of the nearest code of each token in Euclidean distance.

    argmin ‖z − e‖² = argmax (z·e − ‖e‖²/2), with the codebook's mean taken from both sides: it
    leaves the result as it is and keeps the terms small, which low precision needs. Computed in
    float32 under autocast too: bfloat16 holds a distance to 0.4 %, and codes lie nearer together.

    Args:
        tokens: ``[batch, tokens, width]``.
        codebook: ``[batch, codes, width]``.

    Returns:
        int64 ``[batch, tokens]``.
    """
    mean = codebook.mean(1, keepdim=True)
    centred = codebook - mean
    bias = centred.square().sum(2)[:, None] / 2  # [b, 1, n]
    with full_precision(tokens.device):
        near = torch.baddbmm(bias, tokens - mean, centred.transpose(1, 2), beta=-1)
    return near.argmax(2)
