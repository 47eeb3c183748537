"""Codebooks as tables: the nearest code by a product and a maximum, all that follows by Gather.

Codes are constants, so whatever is linear in a code is a table with one row a code. With ``z`` the
tokens, ``e`` a lower level's codes, split as the tokens are into the level's own half ``x`` and
the top code ``t``, and ``m`` the codebook's mean::

    argmin ‖z − e‖² = argmax (z − m)·(e − m) − ‖e − m‖²/2
                    = argmax z·(e − m) − [m·(e − m) + ‖e − m‖²/2]
                    = argmax x·(e − m)_x + [(t − m_t)·(e − m)_t − m_x·(e − m)_x − ‖e − m‖²/2]

The brackets are constants: a bias for each code, or, with the top code's share, one row for each
top code. Taking ``m`` off the codes keeps what is compared small. It is not taken off the tokens:
distances are float32 in every file, and OpenVINO cannot load a graph with INT8 attention that
subtracts a looked-up mean from a rounded layer's output.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from hvq_edge.export.fold.reductions import first_maximum
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import HVQTrans

MAX_TABLE_MB = 64.0
"""What tables may take in a graph of several categories: room for all of ``edge`` with ten.

With five categories, tables of 31 MB made it 1.12 times as fast on a CPU
(docs/explanation/folding.md)."""


class Fold(NamedTuple):
    """A map of codes that can be a table."""

    name: str
    """The module of :class:`FoldedHVQTrans` that it is part of."""
    bytes: int
    """Size of the table in float32."""
    multiply_adds: int
    """What an image saves with the table."""
    chosen: bool
    """Whether it is a table."""


def choose_folds(model: HVQTrans, *, one_category: bool, max_table_mb: float) -> list[Fold]:
    """Choose which maps of codes become tables.

    A table has one row for each code of each category. A graph of one category has few rows, and
    everything is folded; one of several categories trades megabytes for multiply-adds, and folds
    what saves most for its size until ``max_table_mb`` is used up.

    Args:
        model: its sizes count, not its weights.
        one_category: whether the graph serves a single category.
        max_table_mb: what tables may take together in a graph of several, in 10^6 bytes.

    Returns:
        All candidates, those that save most for their size first.
    """
    settings = model.settings
    tokens, codes, width = settings.tiling.tokens, settings.codes, settings.width
    rows = codes * (1 if one_category else model.categories)
    # Columns of the table, and inputs to each column that need no longer be multiplied.
    candidates = {f"codebooks.{level}": (codes, width) for level in range(settings.layers)}
    for level, weight in enumerate(settings.transport_weights):
        if weight and level < settings.layers:  # the top's tokens hold no other code
            candidates[f"transport.{level}"] = (codes, width)
    candidates["decoder.0.self_attention"] = (6 * width, 2 * width)
    for layer in range(settings.layers):
        candidates[f"decoder.{layer}.cross_attention"] = (4 * width, 2 * width)

    folds = [
        Fold(name, 4 * rows * columns, tokens * columns * inputs, one_category)
        for name, (columns, inputs) in candidates.items()
    ]
    folds.sort(key=lambda fold: fold.multiply_adds / fold.bytes, reverse=True)
    if one_category:
        return folds
    left = max_table_mb * 1e6
    decided = []
    for fold in folds:
        chosen = fold.bytes <= left
        left -= fold.bytes if chosen else 0
        decided.append(fold._replace(chosen=chosen))
    return decided


def own_part(table: Tensor, category: Tensor | None) -> Tensor:
    """Take each image's own part of a table; a single category's table is used as it is."""
    return table if category is None else table.index_select(0, category)


def table_row(index: Tensor, codes: int, category: Tensor | None) -> Tensor:
    """Return the row of a code in tables that hold all categories one after the other.

    Args:
        index: int64 ``[b, l]``, index of a code in its codebook.
        codes: number of codes in a codebook.
        category: int64 ``[b]``; ``None``: the only one.

    Returns:
        int64 ``[b, l]``.
    """
    return index if category is None else index + category[:, None] * codes


class NearestCode(nn.Module):
    """Finds the code that is nearest to a token.

    Args:
        books: one level's codebooks.
        kept: all categories, or the index of the only one, whose tables lack the first axis.
        top: the top level's codebooks where the tokens' second half is the top code and its share
            is to be looked up; ``None``: tokens are compared as a whole.
    """

    centred: Tensor  # [categories, width, codes]
    bias: Tensor  # [categories, 1, codes], where no share is looked up
    share: Tensor  # [categories * codes of the top, codes], where it is

    def __init__(self, books: Codebooks, kept: slice | int, top: Codebooks | None = None) -> None:
        super().__init__()
        codes = books.codes[kept].double()
        mean = codes.mean(-2, keepdim=True)
        centred = (codes - mean).transpose(-1, -2)
        bias = -centred.square().sum(-2, keepdim=True) / 2
        if top is not None:
            width = codes.shape[-1] - top.codes.shape[-1]  # of the level's own half
            of_top = (top.codes[kept].double() - mean[..., width:]) @ centred[..., width:, :]
            bias = bias + of_top
            mean, centred = mean[..., :width], centred[..., :width, :]
        bias = bias - mean @ centred
        if top is not None:
            self.register_buffer("share", bias.flatten(0, -2).float())
        else:
            self.register_buffer("bias", bias.float())
        self.looks_up_share = top is not None
        self.register_buffer("centred", centred.float().contiguous())

    def forward(
        self, tokens: Tensor, category: Tensor | None, top_row: Tensor | None = None
    ) -> Tensor:
        """Find the nearest code.

        Args:
            tokens: ``[b, l, w]``; where the share is looked up, the level's own half.
            category: int64 ``[b]``; ``None``: the only one.
            top_row: int64 ``[b, l]``: the top code's row, where the share is looked up.

        Returns:
            int64 ``[b, l]``: index in the codebook.
        """
        near = tokens @ own_part(self.centred, category)
        if self.looks_up_share:
            assert top_row is not None
            near = near + F.embedding(top_row, self.share)
        else:
            near = near + own_part(self.bias, category)
        return first_maximum(near)


class Codes(nn.Module):
    """Looks up the codes themselves."""

    table: Tensor  # [categories * codes, width]

    def __init__(self, books: Codebooks, kept: slice | int) -> None:
        super().__init__()
        codes = books.codes[kept]
        self.register_buffer("table", codes.reshape(-1, codes.shape[-1]).clone())

    def forward(self, row: Tensor) -> Tensor:
        """int64 ``[b, l]`` -> ``[b, l, width]``."""
        return F.embedding(row, self.table)


class MappedCodes(nn.Module):
    """Looks up a linear map of codes with the position's share: ``W e + b_position``.

    Args:
        books: the level's codebooks.
        kept: as for :class:`NearestCode`.
        weight: ``[width, out]``.
        position: ``[tokens, out]``; ``[out]`` where it is the same for all tokens, which then
            costs nothing.
    """

    table: Tensor  # [categories * codes, out]
    position: Tensor | None  # [tokens, out]

    def __init__(
        self, books: Codebooks, kept: slice | int, weight: Tensor, position: Tensor
    ) -> None:
        super().__init__()
        codes = books.codes[kept].reshape(-1, weight.shape[0]).double()
        table = codes @ weight.detach().double()
        everywhere = position.dim() == 1
        if everywhere:
            table = table + position.detach().double()
        self.register_buffer("table", table.float())
        self.register_buffer("position", None if everywhere else position.detach().clone())

    def forward(self, row: Tensor) -> Tensor:
        """int64 ``[b, l]`` -> ``[b, l, out]``."""
        found = F.embedding(row, self.table)
        return found if self.position is None else found + self.position
