"""What known defects bring, on kinds of defects that were among them and on kinds that were not.

    python -m benchmarks.accuracy.known_defects RUN [RUN ...]

Some of a product's defective test images are given to a finished run as known defects, and its
metric is fitted to them as training does it (hvq_edge/training/known_defects.py); the network stays
as it is. The other test images are judged: defects found where 5 % of the good test images are
rejected, in per cent. Draws:

- any kind: 5, 10 or 20 of all defective images, tested on the rest;
- all but one kind: 10 of the other kinds, tested on the kind left out;
- one kind: 10 of one kind, tested on the others, and on the rest of the same kind.

Scale and level of the map are fitted to up to 200 good images of a product, and as many of their
versions. Features are kept under OUT, so that a second call is quicker.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.image_sources import (
    FeatureStore,
    category_index,
    sources_of,
    training_sources,
)
from benchmarks.markdown_table import markdown_table
from hvq_edge.cli.console import progress_bars
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import DatasetImage, find_dataset
from hvq_edge.data.findings import LEAST_KNOWN_DEFECTS
from hvq_edge.data.splits import check_unchanged
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.metrics.image_metrics import auroc, recall_at
from hvq_edge.model.backbone_weights import load_backbone_weights
from hvq_edge.model.checkpoint import load_run
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import KnownDefect, recorded_data
from hvq_edge.training.batches import Images
from hvq_edge.training.known_defects import (
    FIT,
    HELD_OUT,
    KNOWN,
    LARGE,
    MOST,
    SMALL,
    VARIED,
    Group,
    coverage,
    learn,
    measure,
    pseudo_defects_of,
)
from hvq_edge.training.train_run import varied_images

Places = NDArray[np.int64]
GIVEN, OF_KINDS = (5, 10, 20), 10
"""Known defects of any kind, and where kinds are chosen."""
GOOD, DEFECTIVE = "good", "defective"


class Product(NamedTuple):
    """One category's images, measured once."""

    name: str
    k: int
    groups: Mapping[str, Group]
    covered: NDArray[np.float32]
    """Of the defective test images."""
    kinds: NDArray[np.str_]


class Draw(NamedTuple):
    """Known defects, and what is tested."""

    name: str
    given: Places
    tested: Places
    alike: Places
    """Defects of the given kinds that were not given."""


def products_of(
    run: Path, out: Path, on_progress: ProgressCallback = silent
) -> Iterator[tuple[HVQTrans, Product]]:
    """Measure the categories of a run that have both good and defective test images.

    Raises:
        RunError, DatasetError, ImageError, CheckpointError, MissingCapability, OutputError.
    """
    model, record = load_run(run)
    model.eval()
    load_backbone_weights(model.backbone, model.settings.backbone)
    data = recorded_data(run)
    check_unchanged(record.images, data, on_progress)
    dataset, names = find_dataset(data), record.categories
    store = FeatureStore(out, model.settings)

    def training(use: str) -> Images:
        sources = training_sources(record.images, data, "fit" if use == FIT else "held_out")
        return Images(store.features(use, sources, on_progress), category_index(sources, names))

    fit, held_out = training(FIT), training("held_out")
    with varied_images(out, record, model, data, on_progress) as (varied, _):
        for k, name in enumerate(names):
            tests = {
                GOOD: [image for image in dataset.test(name) if image.good],
                DEFECTIVE: [image for image in dataset.test(name) if not image.good],
            }
            if not all(tests.values()):
                continue
            others = [
                one for one in record.images if one.use == "held_out" and one.category == name
            ]
            small, large = pseudo_defects_of(model, others, names, data)
            groups = {
                FIT: measure(model, k, [some(fit, k)]),
                VARIED: measure(model, k, [some(images, k) for images in varied]),
                HELD_OUT: measure(model, k, [held_out]),
                SMALL: measure(model, k, [small]),
                LARGE: measure(model, k, [large]),
            }
            for use, images in tests.items():
                sources = sources_of(images)
                features = store.features(f"{use} {name}", sources, on_progress)
                index = category_index(sources, names)
                groups[use] = measure(model, k, [Images(features, index)])
            masks = coverage([_known(one) for one in tests[DEFECTIVE]], data, model.settings.grid)
            kinds = np.array([one.defect for one in tests[DEFECTIVE]])
            on_progress("products", k + 1, len(names))
            yield model, Product(name, k, groups, masks, kinds)


def some(images: Images, k: int) -> Images:
    """Up to :data:`MOST` of a category's images, spread over all."""
    own = np.flatnonzero(images.category == k)
    own = own[:: max(1, -(-len(own) // MOST))]
    return Images(images.features[own], images.category[own])


def _known(image: DatasetImage) -> KnownDefect:
    mask = None if image.mask is None else str(image.mask.resolve())
    return KnownDefect(
        path=str(image.path), category=image.category, sha256="", defect=image.defect, mask=mask
    )


def draws_of(kinds: NDArray[np.str_], repeats: int, seed: int = 0) -> Iterator[Draw]:
    """Draw known defects in every way; never more than half of the images they are drawn from."""
    rng = np.random.default_rng(seed)
    everything = np.arange(len(kinds))

    def drawn(name: str, count: int, among: Places, tested: Places) -> Iterator[Draw]:
        for _ in range(repeats if 2 * count <= len(among) else 0):
            given = rng.permutation(among)[:count]
            alike = np.setdiff1d(among, given)
            yield Draw(name, given, np.setdiff1d(tested, given), alike)

    for count in GIVEN:
        yield from drawn(f"any kind, {count}", count, everything, everything)
    different = sorted(set(kinds))
    for kind in different if len(different) > 1 else []:
        own, others = np.flatnonzero(kinds == kind), np.flatnonzero(kinds != kind)
        yield from drawn("all but one kind", OF_KINDS, others, own)
        count = max(LEAST_KNOWN_DEFECTS, min(OF_KINDS, len(own) // 2))
        yield from drawn("one kind", count, own, others)


def numbers(model: HVQTrans, product: Product, draw: Draw) -> dict[str, list[float]]:
    """Judge a draw: AUROC and recall without and with known defects; in per cent."""
    groups = {**product.groups, KNOWN: product.groups[DEFECTIVE].some(draw.given)}
    covered, kinds = product.covered[draw.given], product.kinds[draw.given]
    learnt = learn(model, product.k, groups, covered, kinds)
    found = {}
    for name, places in (("tested", draw.tested), ("same kinds", draw.alike)):
        row = []
        for scores in (learnt.before, learnt.after):
            good, defective = scores[GOOD], scores[DEFECTIVE][places]
            labels = np.arange(len(good) + len(defective)) >= len(good)
            both = np.concatenate([good, defective])
            row += [
                100 * float(value or 0)
                for value in (auroc(both, labels), recall_at(both, labels, 0.05))
            ]
        found[name] = row
    return {**found, "used": [learnt.use.share > 0, learnt.use.power]}


def rows_of(
    product: str, each: Mapping[str, Sequence[dict[str, list[float]]]]
) -> Iterator[list[str]]:
    """Yield a row for each way of drawing."""
    for name, found in each.items():
        tested = np.array([one["tested"] for one in found])
        alike = np.array([one["same kinds"] for one in found])
        used = sum(bool(one["used"][0]) for one in found)
        change = tested[:, 3] - tested[:, 1]
        error = change.std(ddof=1) / len(change) ** 0.5 if len(change) > 1 else 0.0
        yield [
            product,
            name,
            f"{used} of {len(found)}",
            *(f"{value:.1f}" for value in tested.mean(0)[[0, 2, 1, 3]]),
            f"{change.mean():+.1f} ± {error:.1f}",
            f"{(alike[:, 3] - alike[:, 1]).mean():+.1f}" if name == "one kind" else "",
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, a product's rows as soon as they are known."""
    parser = argparse.ArgumentParser(description="What known defects bring.")
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs, with their images")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/known-defects"), help="keeps features"
    )
    parser.add_argument("--draws", type=int, default=5, help="of each way; default: 5")
    given = parser.parse_args(arguments)
    headings = ["product", "known defects", "used", "AUROC without", "with", "recall without"]
    headings += ["with", "change", "same kind"]
    rows: list[list[str]] = []
    try:
        with progress_bars() as bars, torch.inference_mode():
            for run in given.runs:
                for model, product in products_of(run, given.out, bars):
                    each: dict[str, list[dict[str, list[float]]]] = {}
                    draws = list(draws_of(product.kinds, given.draws))
                    for number, draw in enumerate(draws, 1):
                        each.setdefault(draw.name, []).append(numbers(model, product, draw))
                        bars(f"draws {product.name}", number, len(draws))
                    rows += rows_of(product.name, each)
                    print(markdown_table(headings, rows), flush=True)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
