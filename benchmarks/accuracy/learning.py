"""Images called good after all: what learning from so many of them is worth, and what it may cost.

    python -m benchmarks.accuracy.learning RUN --category solar_cell_mono --unseen 24

So many of a category's good test images as are named, those least like the training images, are
taken for parts of an unseen kind. Some of them are called good, drawn at random, and learnt as
``hvq-edge learn`` does it; the others are what is measured on, with all other test images. The
second table has defective images among those that are called good. The third has new prototypes in
the place of old ones, as it is, beside places that were left free for them.

The run's model in float32 on PyTorch, with the functions of the command: what does not change is
computed once, so that many draws take minutes. A bundle's graphs are held to that model by
``hvq-edge verify``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.learnt import Compared, Side
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import thresholds_of
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.evaluation.metrics.image_metrics import auroc
from hvq_edge.export.learn.learn_bundle import folds_of
from hvq_edge.export.learn.new_prototypes import centres_of, learnt_centres, least_missed
from hvq_edge.export.learn.outcome import doubts, like_defects
from hvq_edge.model.checkpoint import load_run
from hvq_edge.model.prototypes import average_neighbours, nearest_distance
from hvq_edge.verdict.calibrate.expected_rate import expected_rate
from hvq_edge.verdict.defaults import FALSE_REJECT
from hvq_edge.verdict.judgement import exceeds
from hvq_edge.verdict.threshold import GoodPart, learn_threshold

CALLED_GOOD = (5, 10, 20)
DEFECTIVE = (0, 1, 3, 5)
"""Defective images among those called good, in the second table."""
BESIDE = 10
"""Good ones that they are among."""
SHARES = (1 / 16, 1 / 8, 1 / 4)
"""Of the table, in the third one."""

Numbers = NDArray[np.float64]
Places = NDArray[np.intp]


class Found(NamedTuple):
    """What one draw gave; shares in per cent."""

    kind: float
    """Image AUROC of the others of the kind against the defective images."""
    every: float
    """Of all good test images that were not learnt."""
    rejected: float
    """Of the others of the kind."""
    usual: float
    """Rejected of the other good test images."""
    recall: float
    unwarned: float
    """Defects found where the known defects are not at hand."""
    named_defective: int = 0
    """Of the defective images among those called good, so many were warned of."""
    named_good: int = 0


class Images(NamedTuple):
    """What does not change of images when prototypes do."""

    white: NDArray[np.float32]
    """``[images, tokens, channels]``: what meets the prototypes."""
    parts: torch.Tensor
    """``[parts, images, tokens]`` of the map."""
    margin: Numbers


class Product:
    """One category of a run, with its held-out and its test images.

    Args:
        run: folder of the run, with its bundle.
        name: of the category.
        unseen: how many good test images are of the unseen kind.
    """

    def __init__(self, run: Path, name: str, unseen: int) -> None:
        self.model, record = load_run(run)
        self.k = record.categories.index(name)
        if self.model.prototypes is None:
            raise SystemExit(f"{run} has no prototypes")
        data = Path(str(record.data))
        self.former = thresholds_of(open_bundle(run / "bundle"), "fp32")[name]
        test = [one for one in find_dataset(data).test() if one.category == name]
        good = [one.path for one in test if one.good]
        self.bad = self._look([one.path for one in test if not one.good])
        self.good = self._look(good)
        own = [one for one in record.images if one.category == name and one.use == "held_out"]
        self.held_out = self._look([data / one.path for one in own])
        order = np.argsort(self.good.margin)
        self.unseen, self.usual = order[:unseen], order[unseen:]

    @cached_property
    def centres(self) -> NDArray[np.float32]:
        """The category's prototypes as trained."""
        assert self.model.prototypes is not None
        return self.model.prototypes.centres[self.k].numpy()

    @torch.inference_mode()
    def _look(self, paths: Sequence[Path]) -> Images:
        model, prototypes = self.model, self.model.prototypes
        assert prototypes is not None
        white, parts, margins = [], [], []
        for path in paths:
            frame = torch.from_numpy(read_frame(path, model.tiling.frame_shape))[None]
            standardised = model.standardise(model.raw_features(frame))
            own = torch.tensor([self.k])
            margins.append(float(model.classify(standardised).margin))
            rebuilt = model.reconstruct(model.normalise(standardised), own)
            parts.append(model.map_parts(standardised, rebuilt, own))
            tokens = average_neighbours(model.coarse(standardised), prototypes.window)
            white.append(tokens @ prototypes.whitening[own] + prototypes.shift[own])
        return Images(torch.cat(white).numpy(), torch.cat(parts, 1), np.array(margins))

    @torch.inference_mode()
    def score(self, images: Images, centres: NDArray[np.float32]) -> Numbers:
        """Return the scores of images with these prototypes."""
        transports = len(self.model.settings.transport_weights)
        parts = images.parts.clone()
        white = torch.from_numpy(images.white)
        table = torch.from_numpy(centres)[None]
        nearest = [nearest_distance(one[None], table) for one in white]
        parts[1 + transports] = torch.cat(nearest)
        own = torch.full((len(white),), self.k)
        return self.model.score(self.model.join_parts(parts, own), own).double().numpy()

    def draw(self, count: int, defective: int, seed: int) -> Found:
        """Learn from so many images of the unseen kind, and defective ones among them."""
        rng = np.random.default_rng((seed, count))
        taken = rng.permutation(self.unseen)[:count]
        wrong = rng.permutation(len(self.bad.white))[:defective]
        learnt = Images(
            np.concatenate([self.good.white[taken], self.bad.white[wrong]]),
            torch.cat([self.good.parts[:, taken], self.bad.parts[:, wrong]], 1),
            np.zeros(0),
        )
        order = rng.permutation(count + defective)  # people do not judge defective ones last
        learnt = Images(learnt.white[order], learnt.parts[:, order], learnt.margin)
        centres = learnt_centres(self.centres, learnt.white)[1]
        crossed = np.zeros(len(order))
        for kept, left in folds_of(len(order)):
            others = learnt_centres(self.centres, learnt.white[kept])[1]
            part = Images(learnt.white[left], learnt.parts[:, left], learnt.margin)
            crossed[left] = self.score(part, others)
        good, bad = self.score(self.good, centres), self.score(self.bad, centres)
        bad = np.delete(bad, wrong)
        setting = crossed[crossed < like_defects(bad.tolist())]
        seen = np.concatenate([self.score(self.held_out, centres), setting])
        parts = [GoodPart(float(score), "") for score in seen]
        value = self.threshold(parts)
        others = np.setdiff1d(self.unseen, taken)
        found = self.measure(good[others], good[self.usual], bad, value)
        parts += [GoodPart(float(score), "") for score in np.setdiff1d(crossed, setting)]
        alone = self.threshold(parts)
        names = warned(crossed, bad, value)
        return found._replace(
            unwarned=100 * float(np.mean(bad > alone)),
            named_defective=int(names[order >= count].sum()),
            named_good=int(names[order < count].sum()),
        )

    def places(self, count: int, share: float, seed: int, *, free: bool) -> tuple[float, float]:
        """Return the first two numbers where another share of the table is for new prototypes.

        Args:
            count: images to learn.
            share: of the table.
            seed: of the draw.
            free: whether places were left free for them, so that none goes.
        """
        taken = np.random.default_rng((seed, count)).permutation(self.unseen)[:count]
        flat = self.good.white[taken].reshape(-1, self.centres.shape[1])
        new = centres_of(flat, int(share * len(self.centres)))
        kept = self.centres
        if not free:
            kept = np.delete(kept, least_missed(kept, len(new)), 0)
        centres = np.concatenate([kept, new])
        good, bad = self.score(self.good, centres), self.score(self.bad, centres)
        kind, usual = good[np.setdiff1d(self.unseen, taken)], good[self.usual]
        return _auroc(kind, bad), _auroc(np.concatenate([kind, usual]), bad)

    def threshold(self, parts: Sequence[GoodPart]) -> float:
        """Return the threshold that these good parts set, which never falls."""
        return max(
            learn_threshold(parts, asked=FALSE_REJECT, rule=expected_rate).value, self.former
        )

    def before(self) -> Found:
        """Return the same numbers where nothing was learnt."""
        good, bad = (self.score(one, self.centres) for one in (self.good, self.bad))
        return self.measure(good[self.unseen], good[self.usual], bad, self.former)

    def measure(self, kind: Numbers, usual: Numbers, bad: Numbers, threshold: float) -> Found:
        """Take the numbers out of scores."""

        def above(scores: Numbers) -> float:
            return 100 * float(np.mean([exceeds(one, threshold) for one in scores]))

        every = np.concatenate([kind, usual])
        return Found(
            _auroc(kind, bad), _auroc(every, bad), above(kind), above(usual), above(bad), 0
        )


def warned(crossed: Numbers, bad: Numbers, threshold: float) -> NDArray[np.bool_]:
    """Tell of each image called good whether the command would warn of it."""

    def row(name: str, score: float, good: bool) -> Compared:
        verdict = "reject" if exceeds(score, threshold) else "pass"
        side = Side(score=score, threshold=threshold, verdict=verdict, reason="")
        seen = "learnt" if good else "judged"
        return Compared(
            image=name, category="part", good=good, seen=seen, before=side, after=side,
            identical=False,
        )  # fmt: skip

    rows = [row(f"{number} ", float(score), True) for number, score in enumerate(crossed)]
    rows += [row("known ", float(score), False) for score in bad]
    said = doubts({"fp32": tuple(rows)}, ["part"])
    return np.array([any(one.startswith(f"{i} ") for one in said) for i in range(len(crossed))])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run with a bundle in it")
    parser.add_argument("--category", required=True)
    parser.add_argument("--unseen", type=int, required=True, help="images of the unseen kind")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--only", type=int, choices=(1, 2, 3), help="one of the tables")
    options = parser.parse_args(arguments)
    product = Product(options.run, options.category, options.unseen)
    counts = [count for count in CALLED_GOOD if count < options.unseen]
    beside = min(BESIDE, counts[-1])
    tables = {
        1: lambda: _first(product, counts, options.draws),
        2: lambda: _second(product, beside, options.draws),
        3: lambda: _third(product, beside, options.draws),
    }
    for number, table in tables.items():
        if options.only in (None, number):
            print(table(), end="\n\n", flush=True)


def _first(product: Product, counts: Sequence[int], draws: int) -> str:
    """Learn from so many good images."""
    rows = [("none", *_ranges([product.before()]))]
    for count in counts:
        found = [product.draw(count, 0, seed) for seed in range(draws)]
        rows.append((str(count), *_ranges(found)))
    headings = (
        *("called good", "AUROC, others of the kind", "AUROC, all good"),
        *("others rejected", "usual ones rejected", "defects found"),
    )
    return markdown_table(headings, rows)


def _second(product: Product, count: int, draws: int) -> str:
    """Learn from as many good images, and defective ones among them."""
    rows = []
    for defective in DEFECTIVE:
        found = [product.draw(count, defective, seed) for seed in range(draws)]
        total = defective * draws
        named = f"{sum(one.named_defective for one in found)} of {total}" if total else "–"
        also = f"{sum(one.named_good for one in found)} of {count * draws}"
        alone = _range([one.unwarned for one in found])
        rows.append((str(defective), *_ranges(found), alone, named, also))
    headings = (
        *("defective among them", "AUROC, others of the kind", "AUROC, all good"),
        *("others rejected", "usual ones rejected", "defects found"),
        *("found, no known defects given", "defective warned of", "good warned of"),
    )
    return markdown_table(headings, rows)


def _third(product: Product, count: int, draws: int) -> str:
    """Leave places free, or replace."""
    rows = []
    for share in SHARES:
        for free in (True, False):
            found = [product.places(count, share, seed, free=free) for seed in range(draws)]
            cells = (_range(values) for values in zip(*found, strict=True))
            how = "added to" if free else "in the place of"
            rows.append((f"{share:.3g} {how} the old", *cells))
    headings = ("share of the table", "AUROC, others of the kind", "AUROC, all good")
    return markdown_table(headings, rows)


def _ranges(found: Sequence[Found]) -> tuple[str, ...]:
    return tuple(_range(values) for values in list(zip(*found, strict=True))[:5])


def _range(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def _auroc(good: Numbers, bad: Numbers) -> float:
    labels = np.array([False] * len(good) + [True] * len(bad))
    return 100 * float(auroc(np.concatenate([good, bad]), labels) or 0)


if __name__ == "__main__":
    main()
