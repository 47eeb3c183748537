"""What a run's score would be with other choices, judged on maps whose parts are kept.

    python -m benchmarks.accuracy.choices RUN [RUN ...] [--without NAME]

The map is made of parts (distance to what was rebuilt, distance to prototypes) that are scaled,
weighted and averaged over a window; some of the image's own level is left out. None of it needs
training, so every choice here is judged on the very same network: one thing at a time differs from
the default. Scale, level and threshold are learnt anew for each choice, from good training images
alone (expected rate of 5 %). The test images are judged as they are and under four disturbances of
disturbances.py.

Prints a line a choice, in per cent: image AUROC, defects found where 5 or 1 % of the good test
images are rejected, then good images rejected / defects found at the threshold. Features are kept
under OUT, so a second call takes minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.kept_parts import (
    ALONE,
    CLEAN,
    OWN,
    PLAIN,
    STRENGTHS,
    Parts,
    Product,
    products_of,
)
from benchmarks.accuracy.verdicts import MOST_LEARNT, RATE
from benchmarks.markdown_table import markdown_table
from hvq_edge.cli.console import progress_bars
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.metrics.image_metrics import auroc, recall_at
from hvq_edge.model.image_score import POOLING_SIDE, image_level, score_window
from hvq_edge.run.settings import LARGEST_LEVEL
from hvq_edge.run.tiling import GRID_STRIDE
from hvq_edge.training.closed_form import LEVEL_REACH, level_of_good_images, scale_of_parts
from hvq_edge.verdict.calibrate.expected_rate import expected_rate

Scores = NDArray[np.float64]
_BATCH = 64
"""Maps at once: the enlarged ones are large."""


@dataclass(frozen=True)
class Choice:
    """How parts become a score; by default as training and the model have it."""

    whitening: str = OWN
    distance_weight: float = 1.0
    prototype_weight: float | None = None
    """``None``: as the run's settings say."""
    fine_weight: float | None = None
    """Likewise, where the run has fine prototypes."""
    scale: tuple[str, ...] = ("category", "position")
    scale_of_versions: bool = True
    """The scale is fitted to versions as well, where the run has any."""
    window: int = POOLING_SIDE
    share: float | None = None
    """Of the level that is left out, without a limit; ``None``: learnt."""
    reach: float = LEVEL_REACH


CHOICES: Mapping[str, Choice] = {
    "default": Choice(),
    "distances not whitened": Choice(whitening=PLAIN),
    "whitening of the images alone": Choice(whitening=ALONE),
    "scale of the images alone": Choice(scale_of_versions=False),
    "both of the images alone": Choice(whitening=ALONE, scale_of_versions=False),
    "no prototypes": Choice(prototype_weight=0.0),
    "weight of the prototypes 0.25": Choice(prototype_weight=0.25),
    "weight of the prototypes 1": Choice(prototype_weight=1.0),
    "prototypes alone": Choice(distance_weight=0.0, prototype_weight=1.0, fine_weight=0.0),
    "scale by category alone": Choice(scale=("category",)),
    "scale by position alone": Choice(scale=("position",)),
    "score over 8 px": Choice(window=8),
    "score over 24 px": Choice(window=24),
    "score over 32 px": Choice(window=32),
    "level kept": Choice(share=0.0),
    "half of the level left out": Choice(share=0.5),
    "all of the level left out": Choice(share=1.0),
    "limit of the level at 6 deviations": Choice(reach=6.0),
    "limit of the level at 8 deviations": Choice(reach=8.0),
    "limit of the level at 15 deviations": Choice(reach=15.0),
    "no limit of the level": Choice(reach=LARGEST_LEVEL),
}


def scores_of(product: Product, choice: Choice) -> tuple[float, dict[str, Scores]]:
    """Threshold, and scores of the test images, clean and by disturbance."""
    how = choice.whitening
    good = [product.fit[how]]
    if choice.scale_of_versions and product.varied is not None:
        good.append(product.varied[how])
    both = scale_of_parts(torch.cat(good, dim=1).double().numpy(), choice.scale)
    centre, spread = map(torch.from_numpy, both)
    _, transport, prototypes, *fine = product.weights
    if choice.prototype_weight is not None:
        prototypes = choice.prototype_weight
    if choice.fine_weight is not None:
        fine = [choice.fine_weight] * len(fine)
    weights = torch.tensor([choice.distance_weight, transport, prototypes, *fine])[:, None, None]
    grid = round(centre.shape[1] ** 0.5)
    window = score_window(grid, GRID_STRIDE, choice.window)

    def level_and_window(parts: Parts) -> Scores:
        scaled = (parts[how] - centre.float()[:, None]) / spread.float()[:, None]
        found = []
        for maps in (weights * scaled).sum(0).split(_BATCH):
            highest = (window @ maps.unflatten(1, (grid, grid)) @ window.T).amax((1, 2))
            found.append(torch.stack([image_level(maps)[:, 0], highest], dim=1))
        return torch.cat(found).double().numpy()

    fit, held_out = level_and_window(product.fit), level_and_window(product.held_out)
    share, limit = level_of_good_images(fit, held_out, choice.reach)
    if choice.share is not None:
        share, limit = choice.share, LARGEST_LEVEL

    def score(found: Scores) -> Scores:
        return found[:, 1] - share * np.minimum(found[:, 0], limit)

    learnt = score(fit)[:: -(-len(fit) // MOST_LEARNT)]
    threshold = expected_rate(np.sort(score(held_out)), RATE, learnt=np.sort(learnt)).value
    return threshold, {
        condition: score(level_and_window(parts)) for condition, parts in product.test.items()
    }


def numbers(product: Product, choice: Choice) -> list[float]:
    """Shares, 0 to 1: AUROC, recall at 5 and 1 %; then rejected and found of each condition."""
    threshold, scores = scores_of(product, choice)
    defective, clean = product.defective, scores[CLEAN]
    ranking = (auroc(clean, defective), *(recall_at(clean, defective, r) for r in (0.05, 0.01)))
    verdicts = (
        float((one[kind] > threshold).mean())
        for one in scores.values()
        for kind in (~defective, defective)
    )
    return [*(value for value in ranking if value is not None), *verdicts]


def rows_of(found: Mapping[str, NDArray[np.float64]]) -> Iterator[list[str]]:
    """Yield a row a choice of what :func:`numbers` gave, ``[products, numbers]`` each."""
    for name, each in found.items():
        ranking, verdicts = np.split(100 * each.mean(0), [3])
        pairs = (f"{rejected:.1f} / {caught:.1f}" for rejected, caught in verdicts.reshape(-1, 2))
        yield [name, *(f"{value:.1f}" for value in ranking), *pairs]


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge every choice and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs, with their images")
    parser.add_argument("--out", type=Path, default=Path("runs/choices"), help="keeps features")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        help="a second table leaves this product out: CATEGORY, or RUN/CATEGORY; may be repeated",
    )
    given = parser.parse_args(arguments)
    try:
        with progress_bars() as bars:
            products = [one for run in given.runs for one in products_of(run, given.out, bars)]
            names = [{one.name, f"{one.run}/{one.name}"} for one in products]
            unknown = set(given.without).difference(*names)
            kept = [not name & set(given.without) for name in names]
            if unknown or not any(kept):
                known = ", ".join(f"{one.run}/{one.name}" for one in products)
                parser.error(f"--without must name some, not all, of {known}")
            found = {}
            for number, (name, choice) in enumerate(CHOICES.items(), 1):
                found[name] = np.array([numbers(product, choice) for product in products])
                bars("choices", number, len(CHOICES), name)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    headings = ["choice", "image AUROC", "recall at 5 %", "recall at 1 %", CLEAN]
    headings += [f"{name} {strength}" for name, strength in STRENGTHS.items()]
    for chosen in [np.ones(len(products), bool), np.array(kept)][: 2 if given.without else 1]:
        listed = ", ".join(
            f"{one.run}/{one.name}"
            for one, is_chosen in zip(products, chosen, strict=True)
            if is_chosen
        )
        rows = list(rows_of({name: each[chosen] for name, each in found.items()}))
        print(f"\nMeans over {chosen.sum()} products ({listed}), %\n")
        print(markdown_table(headings, rows))


if __name__ == "__main__":
    main()
