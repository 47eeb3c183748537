"""The model as it is, for comparison: what export would write if it folded nothing."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from hvq_edge.bundle.manifest import CategoryMode
from hvq_edge.export.fold.fold_plan import Fold
from hvq_edge.model.hvq_trans import HVQTrans


class PlainHVQTrans(nn.Module):
    """:class:`HVQTrans` with the inputs and outputs of a graph.

    Args:
        model: in eval mode; not changed.
        mode: ``one``, ``input`` or ``auto``, as for :class:`FoldedHVQTrans`.
        category: index of the single category; with mode ``one`` only.
    """

    def __init__(self, model: HVQTrans, mode: CategoryMode, category: int | None = None) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.mode = mode
        self.category = category
        self.folds: list[Fold] = []

    def forward(self, frames: Tensor, category: Tensor | None = None) -> tuple[Tensor, ...]:
        """As :meth:`FoldedHVQTrans.forward`."""
        standardised = self.model.standardise(self.model.raw_features(frames))
        if self.category is not None:
            own = torch.full((frames.shape[0],), self.category, dtype=torch.int64)
        elif category is not None:
            own = category.to(torch.int64)
        else:
            own, margin = self.model.classifier(standardised)
        out = self.model.judge(standardised, own)
        found = (out["score"], out["map"], out["codes"])
        return (*found, out["category"], margin) if self.mode == "auto" else found
