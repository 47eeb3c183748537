"""What known defects teach: in which directions a rebuilding error counts more.

The metric of a category's rebuilding error (:attr:`HVQTrans.residual_whitening`) makes all
directions of good images' errors count alike. Defects have more energy in some of them; there an
error counts more, by as much as cross-validation bears out. It is the same matrix, so it costs
nothing on the device. What was measured stands in docs/explanation/tried.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from hvq_edge.data.findings import LEAST_KNOWN_DEFECTS
from hvq_edge.data.layouts.plain_folder import DEFECTIVE
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.image_score import image_level
from hvq_edge.run.record import KnownDefectUse
from hvq_edge.training.batches import Images
from hvq_edge.training.closed_form import level_of_good_images, scale_of_parts
from hvq_edge.training.statistics import batches_of
from hvq_edge.verdict.calibrate.expected_rate import expected_rate
from hvq_edge.verdict.defaults import FALSE_REJECT

Scores = NDArray[np.float64]

STRENGTHS = ((0.2, 0.5), (0.5, 0.5), (0.5, 1.0), (0.8, 1.0))
"""Share of the defects' own moment in the metric, the rest of which is alike in all directions,
and the power that it is raised to: 0 would leave all directions alike."""
COVERED = 0.3
"""Share of a cell under the mask from which on the cell is one of the defect."""
EVIDENT = 24
"""Without a mask one cell of so many is taken for the defect: those that stand out most."""
GROUPS = 2
"""Of defects that are alike, where kinds are not told apart: cross-validation leaves out a group,
else a kind, so that it judges kinds that it does not know."""
FAR = 2.0
"""Times the threshold from which on a score that rises further is no gain."""
MOST = 200
"""Good images of a category that the strength is chosen with."""
FIT, VARIED, HELD_OUT, KNOWN = "fit", "versions", "held out", "known defects"
SMALL, LARGE = "small pseudo-defects", "large pseudo-defects"
_BATCH = 64


class Known(NamedTuple):
    """Known defects, as training needs them."""

    images: Images
    covered: NDArray[np.float32]
    """Share of each cell under the mask, ``[images, tokens]``; zeros: there is no mask."""
    kinds: Sequence[str]


class Learnt(NamedTuple):
    """What known defects do to a category."""

    use: KnownDefectUse
    scores: Scores
    """Of its known defects, each by a metric that was not fitted to it."""
    metric: Tensor | None
    """What the whitening is to be multiplied by, ``[channels, channels]``; ``None``: nothing."""
    before: Mapping[str, Scores]
    """By group, without the metric."""
    after: Mapping[str, Scores]
    """By group, with it."""


class Group(NamedTuple):
    """Images of one category, measured."""

    white: Tensor
    """Whitened rebuilding errors, ``[images, tokens, channels]``."""
    parts: Tensor
    """Of the map, ``[parts, images, tokens]``; the first is the length of ``white``."""

    def some(self, images: NDArray[np.int64]) -> Group:
        """Return some of the images."""
        return Group(self.white[images], self.parts[:, images])


@torch.no_grad()
def fit_known_defects(
    model: HVQTrans,
    known: Known,
    fit: Images,
    varied: Sequence[Images],
    held_out: Images,
    pseudo: tuple[Images, Images],
) -> dict[int, Learnt]:
    """Let rebuilding errors count more where known defects have theirs.

    For each category with :data:`LEAST_KNOWN_DEFECTS` of them, that one of :data:`STRENGTHS` that
    lifts known defects most towards and above the threshold: by cross-validation, by more than a
    standard error, and less what it lowers small and large pseudo-defects, which stand for kinds
    that are not known. Where there is none, nothing is changed; nor where all are of one kind, for
    nothing then tells what it would cost other kinds.

    Args:
        model: with fitted whitening; changed in place. Scale and level of the map are to be
            fitted afterwards.
        known: the known defects.
        fit: good images that the model learnt from.
        varied: versions of them.
        held_out: good images that it did not learn from.
        pseudo: such images with small, and with large pseudo-defects.

    Returns:
        What was done, by category.
    """
    model.eval()
    found = {}
    for k in range(model.categories):
        own = np.flatnonzero(known.images.category == k)
        if len(own) < LEAST_KNOWN_DEFECTS:
            continue
        groups = {
            FIT: measure(model, k, [_some(fit, k)]),
            VARIED: measure(model, k, [_some(images, k) for images in varied]),
            HELD_OUT: measure(model, k, [_some(held_out, k)]),
            SMALL: measure(model, k, pseudo[:1]),
            LARGE: measure(model, k, pseudo[1:]),
            KNOWN: measure(model, k, [known.images]),
        }
        kinds = np.array(known.kinds)[own]
        learnt = found[k] = learn(model, k, groups, known.covered[own], kinds)
        if learnt.metric is not None:
            whitening = model.residual_whitening[k].double()
            model.residual_whitening[k] = (whitening @ learnt.metric).float()
    return found


def measure(model: HVQTrans, k: int, images: Sequence[Images]) -> Group:
    """Compute rebuilding errors and parts of the map of one category's images."""
    white, parts = [], []
    for batch, label in batches_of(model, images, k):
        tokens = model.normalise(batch)
        rebuilt = model.reconstruct(tokens, label)
        white.append((rebuilt.features - tokens) @ model.residual_whitening[k])
        parts.append(model.map_parts(batch, rebuilt, label))
    if white:
        return Group(torch.cat(white), torch.cat(parts, dim=1))
    empty = model.feature_mean.new_zeros(0, model.tiling.tokens, len(model.feature_mean))
    return Group(empty, empty.new_zeros(len(model.part_weights), *empty.shape[:2]))


def learn(
    model: HVQTrans,
    k: int,
    groups: Mapping[str, Group],
    covered: NDArray[np.float32],
    kinds: NDArray[np.str_],
) -> Learnt:
    """Choose what a category's known defects do to its metric.

    Args:
        model: scale and level of its map are left fitted to the metric that was judged last.
        k: index of the category.
        groups: good images, pseudo-defects and known defects; any others are judged as well.
        covered: of the known defects, see :class:`Known`.
        kinds: likewise.
    """
    return _Category(model, k, groups, covered, kinds).learn()


class _Category:
    """One category's images, and what they score with other metrics."""

    def __init__(
        self,
        model: HVQTrans,
        k: int,
        groups: Mapping[str, Group],
        covered: NDArray[np.float32],
        kinds: NDArray[np.str_],
    ) -> None:
        self.model, self.k, self.groups, self.kinds = model, k, groups, kinds
        evident, self.plain = self._judge({name: g.parts for name, g in groups.items()})
        most = max(1, covered.shape[1] // EVIDENT)
        self.cells = []
        for row, cells in zip(covered, evident, strict=True):
            enough = np.flatnonzero(row >= min(COVERED, float(row.max())))
            self.cells.append(torch.from_numpy(enough) if row.any() else cells.topk(most).indices)

    def learn(self) -> Learnt:
        """Choose a strength by cross-validation."""
        without = _heights(self.plain)
        groups = self._kept_together()
        crossed = self._cross_validated(groups)
        directions, weights = self._metrics(np.arange(len(self.kinds)))
        chosen, most, after = None, 0.0, self.plain
        fitted = self._scored(directions, weights, tuple(self.groups))
        for number, scores in enumerate(fitted if crossed else ()):
            more = crossed[number].heights - without[KNOWN]
            heights = _heights(scores)
            lost = sum(
                min(0.0, float((heights[size] - without[size]).mean())) for size in (SMALL, LARGE)
            )
            if more.mean() > more.std(ddof=1) / len(more) ** 0.5 and more.mean() + lost > most:
                chosen, most, after = number, float(more.mean()) + lost, scores
        crossed.append(_Crossed(self.plain[KNOWN], without[KNOWN]))
        share, power = (0.0, 0.0) if chosen is None else STRENGTHS[chosen]
        judged = crossed[-1 if chosen is None else chosen]
        use = KnownDefectUse(
            images=len(self.kinds),
            kinds=len(set(self.kinds)),
            unsorted=set(self.kinds) == {DEFECTIVE},
            share=share,
            power=power,
            found_without=int((without[KNOWN] > 1).sum()),
            found=int((judged.heights > 1).sum()),
        )
        metric = None
        if chosen is not None:
            metric = (directions * weights[:, chosen].sqrt()) @ directions.T
        return Learnt(use, judged.scores, metric, self.plain, after)

    def _metrics(self, given: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Directions ``[c, c]`` and their weights ``[c, strengths]``, from some known defects."""
        white = self.groups[KNOWN].white
        channels = white.shape[2]
        moment = torch.zeros(channels, channels, dtype=torch.float64, device=white.device)
        for i in given:
            cells = white[i, self.cells[i]].double()
            # Of one trace, so that strong and large defects do not outvote the others.
            energy = cells.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
            moment += cells.T @ cells * (channels / len(given) / energy)
        values, directions = torch.linalg.eigh(moment)
        values = values.clamp_min(0)
        each = [((1 - share) + share * values) ** power for share, power in STRENGTHS]
        return directions, torch.stack([weights / weights.mean() for weights in each], dim=1)

    def _scored(
        self, directions: Tensor, weights: Tensor, names: Sequence[str]
    ) -> Iterator[dict[str, Scores]]:
        """Yield the named groups' scores, for each column of ``weights``."""
        distances = {}
        for name in names:
            chunks = [
                ((white @ directions.float()).square() @ weights.float()).sqrt()
                for white in self.groups[name].white.split(_BATCH)
            ]
            distances[name] = torch.cat(chunks)
        for number in range(weights.shape[1]):
            parts = {
                name: torch.cat([distances[name][None, ..., number], self.groups[name].parts[1:]])
                for name in names
            }
            yield self._judge(parts)[1]

    def _judge(self, parts: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Scores]]:
        """Fit scale and level to the good images; return maps of known defects, and all scores."""
        model, k = self.model, self.k
        if model.settings.map_scale == "good_images":
            good = torch.cat([parts[FIT], parts[VARIED]], dim=1)
            centre, spread = map(torch.from_numpy, scale_of_parts(good.double().cpu().numpy()))
            model.map_centre[:, k], model.map_spread[:, k] = centre, spread
        maps = {}
        for name, own in parts.items():
            label = torch.full((own.shape[1],), k, device=own.device)
            maps[name] = model.join_parts(own, label)
        if model.settings.image_level == "learnt":
            learnt, others = (self._level_and_window(maps[name]) for name in (FIT, HELD_OUT))
            share, limit = level_of_good_images(learnt, others)
            model.level_share[k], model.level_limit[k] = share, limit
        scores = {}
        for name, own in maps.items():
            label = torch.full((len(own),), k, device=own.device)
            batches = zip(own.split(_BATCH), label.split(_BATCH), strict=True)
            found = [model.score(batch, labels) for batch, labels in batches]
            scores[name] = torch.cat(found).double().cpu().numpy()
        return maps[KNOWN].flatten(1), scores

    def _level_and_window(self, maps: Tensor) -> Scores:
        windows = torch.cat([self.model.highest_window(batch) for batch in maps.split(_BATCH)])
        level = image_level(maps.flatten(1))[:, 0]
        return torch.stack([level, windows], dim=1).double().cpu().numpy()

    def _kept_together(self) -> NDArray[np.generic]:
        """Name for each known defect the group that cross-validation leaves out at once."""
        return self._alike() if set(self.kinds) == {DEFECTIVE} else self.kinds

    def _cross_validated(self, groups: NDArray[np.generic]) -> list[_Crossed]:
        """Judge each known defect without its group, by strength; empty: all are of one."""
        if len(set(groups)) < GROUPS:
            return []
        count = len(groups)
        found = [_Crossed(np.zeros(count), np.zeros(count)) for _ in STRENGTHS]
        needed = (FIT, VARIED, HELD_OUT, KNOWN)
        for group in sorted(set(groups)):
            fold, rest = np.flatnonzero(groups == group), np.flatnonzero(groups != group)
            fitted = self._scored(*self._metrics(rest), needed)
            for crossed, scores in zip(found, fitted, strict=True):
                crossed.scores[fold] = scores[KNOWN][fold]
                crossed.heights[fold] = _heights(scores)[KNOWN][fold]
        return found

    def _alike(self) -> NDArray[np.int32]:
        """Group the known defects by the direction of their errors."""
        from sklearn.cluster import KMeans

        white = self.groups[KNOWN].white
        means = torch.stack(
            [normalize(white[i, cells], dim=1).mean(0) for i, cells in enumerate(self.cells)]
        )
        groups: NDArray[np.int32] = KMeans(GROUPS, n_init=5, random_state=0).fit_predict(
            means.cpu().numpy()
        )
        if len(set(groups)) < GROUPS:  # all the same
            groups = np.arange(len(means), dtype=np.int32) % GROUPS
        return groups


class _Crossed(NamedTuple):
    scores: Scores
    heights: Scores


def _heights(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """Tell how high scores are: 0 as the median good image, 1 as the threshold, at most FAR."""
    held_out, learnt = np.sort(scores[HELD_OUT]), np.sort(scores[FIT])
    middle = float(np.median(held_out))
    threshold = expected_rate(held_out, FALSE_REJECT, learnt=learnt).value
    unit = max(threshold - middle, np.finfo(np.float32).eps)
    return {name: np.minimum((one - middle) / unit, FAR) for name, one in scores.items()}


def _some(images: Images, k: int) -> Images:
    own = np.flatnonzero(images.category == k)
    own = own[:: -(-len(own) // MOST) or 1]
    return Images(images.features[own], images.category[own])
