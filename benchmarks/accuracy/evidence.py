"""How good an anomaly map is: on test images, and on pseudo-defects that need none.

All maps are judged alike, whatever made them: the score is taken through the same window, pixels
through the same upsampling, and metrics are those of ``hvq-edge eval``. Means that leave one
category out tell whether a difference hangs on a single product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from hvq_edge.common.heat_map import upsample_map
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import Dataset, DatasetImage
from hvq_edge.data.images import read_mask
from hvq_edge.errors import DatasetError
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.image_metrics import auroc
from hvq_edge.evaluation.metrics.pixel_tally import PixelTally
from hvq_edge.evaluation.metrics.results import (
    CategoryMetrics,
    Metrics,
    category_metrics,
    mean_metrics,
)
from hvq_edge.model.codebook import perplexity
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.training.batches import Images
from hvq_edge.training.statistics import batches_of


class Verdict(NamedTuple):
    """What a judge says of a batch."""

    map: Tensor
    """``[batch, grid, grid]``."""
    score: Tensor
    """``[batch]``."""


Judge = Callable[[Tensor, int], Mapping[str, Verdict]]
"""Raw features ``[batch, tokens, channels]`` and their category -> verdicts by the name of what
made them."""
Range = tuple[float, float]
OURS = "hvq-edge"
"""The model's own map."""


class RawFeatures(Protocol):
    """Images whose raw features can be had; see ``image_sources.py``."""

    def batches(self, k: int) -> Iterator[Tensor]:
        """Yield those of one category, ``[batch, tokens, channels]``, in a fixed order."""


class ToJudge(NamedTuple):
    """All that evidence is gathered from."""

    categories: Sequence[str]
    """In the order of the category index."""
    test: RawFeatures
    images: Sequence[DatasetImage]
    """The test images; those of a category in the order of ``test``."""
    held_out: RawFeatures
    """Good images that were not learnt from."""
    pseudo: RawFeatures
    """The same with pseudo-defects."""
    side: int
    """Pixels a side at which pixels are compared with masks."""


class Evidence(BaseModel):
    """What one kind of map shows."""

    model_config = ConfigDict(frozen=True)

    categories: tuple[CategoryMetrics, ...]
    """On the test images, the category known."""
    mean: Metrics
    image_auroc_range: Range | None
    """Lowest and highest mean test image AUROC that leaving one category out gives."""
    pseudo: dict[str, float]
    """Image AUROC by category: held-out good images against pseudo-defects."""
    pseudo_mean: float
    pseudo_range: Range | None

    @property
    def image_auroc(self) -> dict[str, float]:
        """Test image AUROC of each category for which it is defined."""
        return {
            one.category: one.image_auroc for one in self.categories if one.image_auroc is not None
        }


class _Judged(NamedTuple):
    maps: NDArray[np.float32]
    """``[images, grid, grid]``."""
    scores: NDArray[np.float64]
    """``[images]``."""


@torch.no_grad()
def gather(
    judge: Judge, material: ToJudge, on_progress: ProgressCallback = silent
) -> dict[str, Evidence]:
    """Judge all images and measure every kind of map.

    Args:
        judge: makes maps from raw features; every kind of map sees the same.
        material: what to judge.
        on_progress: told after each category.

    Returns:
        Evidence by the names that ``judge`` gives.

    Raises:
        ImageError: an image or mask cannot be read.
        InputError: a score is not finite.
    """
    test: dict[str, list[CategoryMetrics]] = {}
    pseudo: dict[str, dict[str, float]] = {}
    for k, category in enumerate(material.categories):
        own = [image for image in material.images if image.category == category]
        masks = [mask_of(image, material.side) for image in own]
        for name, judged in _judge(judge, material.test, k).items():
            test.setdefault(name, []).append(image_metrics(category, own, masks, *judged))
        good = _judge(judge, material.held_out, k)
        bad = _judge(judge, material.pseudo, k)
        for name in good:
            area = _separation(good[name].scores, bad[name].scores)
            if area is not None:
                pseudo.setdefault(name, {})[category] = area
        on_progress("judging", k + 1, len(material.categories), category)
    return {name: _evidence(test.get(name, []), pseudo[name]) for name in pseudo}


def map_of(model: HVQTrans) -> Judge:
    """The model's own map, the category known."""

    def judge(raw: Tensor, k: int) -> dict[str, Verdict]:
        label = torch.full((len(raw),), k, device=raw.device)
        found = model.judge(model.standardise(raw), label)
        return {OURS: Verdict(found["map"], found["score"])}

    return judge


@torch.no_grad()
def code_use(model: HVQTrans, images: Images) -> tuple[tuple[float, float], ...]:
    """By level: share of the codes that images use, and perplexity; means over the categories."""
    categories = []
    for k in range(model.categories):
        counts = torch.zeros(model.settings.levels, model.settings.codes)
        for batch, label in batches_of(model, [images], k):
            for level, chosen in enumerate(
                model.reconstruct(model.normalise(batch), label).codes.transpose(0, 1)
            ):
                counts[level] += torch.bincount(chosen.flatten().cpu(), minlength=counts.shape[1])
        categories.append(torch.stack([(counts > 0).float().mean(1), perplexity(counts)], dim=1))
    return tuple((use, codes) for use, codes in torch.stack(categories).mean(0).tolist())


def image_metrics(
    category: str,
    images: Sequence[DatasetImage],
    masks: Sequence[NDArray[np.bool_] | None],
    maps: NDArray[np.float32],
    scores: NDArray[np.float64],
) -> CategoryMetrics:
    """Metrics of one category's test images, as ``hvq-edge eval`` has them.

    Args:
        category: its name.
        images: in the order of the others.
        masks: bool ``[side, side]``; ``None``: nobody knows which pixels are good.
        maps: ``[images, grid, grid]``.
        scores: ``[images]``.
    """
    pixels = PixelTally() if any(image.mask for image in images) else None
    results = [
        ImageResult(image, category, float(value), one)
        for image, value, one in zip(images, scores, maps, strict=True)
    ]
    if pixels is not None:
        for one, mask in zip(maps, masks, strict=True):
            if mask is not None:
                pixels.add(upsample_map(one, *mask.shape), mask)
    without = sum(mask is None for mask in masks)
    return category_metrics(
        category, results, pixels, known_category=True, thresholds={}, without_mask=without
    )


def mask_of(image: DatasetImage, side: int) -> NDArray[np.bool_] | None:
    """Which pixels are defective, bool ``[side, side]``; ``None`` where nobody knows.

    Raises:
        ImageError: the mask cannot be read.
    """
    if image.good:
        return np.zeros((side, side), dtype=np.bool_)
    return None if image.mask is None else read_mask(image.mask, side, side)


def mean_of(values: Mapping[str, float]) -> float:
    """Mean over the categories."""
    return float(np.mean(list(values.values())))


def leave_one_out(values: Mapping[str, float]) -> Range | None:
    """Lowest and highest of the means that leave one category out; ``None`` for a single one."""
    if len(values) < 2:
        return None
    listed = np.array(list(values.values()))
    means = (listed.sum() - listed) / (len(listed) - 1)
    return float(means.min()), float(means.max())


def images_to_judge(dataset: Dataset, categories: Sequence[str]) -> tuple[DatasetImage, ...]:
    """Return the test images of a dataset, all of known categories.

    Raises:
        DatasetError: none, or some of another category.
    """
    images = dataset.test()
    if not images:
        raise DatasetError(
            f"{dataset.root} has no test images.",
            next_step="put images in CATEGORY/test/good and CATEGORY/test/DEFECT",
        )
    unknown = sorted({image.category for image in images} - set(categories))
    if unknown:
        raise DatasetError(
            f"{dataset.root} has test images of {', '.join(unknown)}, which the model does not "
            f"know; it knows {', '.join(categories)}.",
            next_step="give the folder that the model was trained on",
        )
    return images


def _judge(judge: Judge, features: RawFeatures, k: int) -> dict[str, _Judged]:
    maps: dict[str, list[Tensor]] = {}
    scores: dict[str, list[Tensor]] = {}
    for raw in features.batches(k):
        for name, batch in judge(raw, k).items():
            maps.setdefault(name, []).append(batch.map.cpu())
            scores.setdefault(name, []).append(batch.score.cpu())
    return {
        name: _Judged(
            torch.cat(maps[name]).numpy().astype(np.float32, copy=False),
            torch.cat(scores[name]).numpy().astype(np.float64),
        )
        for name in maps
    }


def _separation(good: NDArray[np.float64], bad: NDArray[np.float64]) -> float | None:
    labels = np.repeat([False, True], [len(good), len(bad)])
    return auroc(np.concatenate([good, bad]), labels)


def _evidence(test: Sequence[CategoryMetrics], pseudo: dict[str, float]) -> Evidence:
    defined = {one.category: one.image_auroc for one in test if one.image_auroc is not None}
    return Evidence(
        categories=tuple(test),
        mean=mean_metrics(test),
        image_auroc_range=leave_one_out(defined),
        pseudo=pseudo,
        pseudo_mean=mean_of(pseudo),
        pseudo_range=leave_one_out(pseudo),
    )
