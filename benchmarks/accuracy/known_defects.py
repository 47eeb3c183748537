"""What known defects bring, on kinds of defects that were among them and on kinds that were not.

    python -m benchmarks.accuracy.known_defects RUN [RUN ...]

Some of a product's defective test images are given to a finished run as known defects, and its
metric is fitted to them as training does it (hvq_edge/training/known_defects/metric.py); the
network stays as it is. The other test images are judged: defects found where 5 % of the good test
images are rejected, in per cent. Draws:

- any kind: 5, 10 or 20 of all defective images, tested on the rest; where a product has one folder
  of defects, they count as not told apart;
- all but one kind: 10 of the other kinds, tested on the kind left out; kinds told apart, and not.

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
from hvq_edge.data.layouts.plain_folder import DEFECTIVE as UNSORTED
from hvq_edge.data.splits import check_unchanged
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.metrics.image_metrics import auroc, recall_at
from hvq_edge.model.backbone_weights import load_backbone_weights
from hvq_edge.model.checkpoint import load_run
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import KnownDefect, recorded_data
from hvq_edge.training.batches import Images
from hvq_edge.training.known_defects.images import coverage, pseudo_defects_of
from hvq_edge.training.known_defects.metric import (
    FIT,
    HELD_OUT,
    KNOWN,
    LARGE,
    MOST,
    SMALL,
    VARIED,
    Group,
    learn,
    measure,
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
    kinds: NDArray[np.str_]
    """Of those given."""


def products_of(
    run: Path, out: Path, only: Sequence[str] = (), on_progress: ProgressCallback = silent
) -> Iterator[tuple[HVQTrans, Product]]:
    """Measure the categories of a run that have both good and defective test images.

    Args:
        run: a finished run.
        out: keeps features.
        only: these categories; none: all.
        on_progress: told of every stage.

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
            if not all(tests.values()) or (only and name not in only):
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
            masks = coverage([_known(one) for one in tests[DEFECTIVE]], data, model.tiling)
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
    everything, unsorted = np.arange(len(kinds)), np.full(len(kinds), UNSORTED)
    different = sorted(set(kinds))
    told = kinds if len(different) > 1 else unsorted
    for count in GIVEN:
        for _ in range(repeats if 2 * count <= len(kinds) else 0):
            given = rng.permutation(everything)[:count]
            yield Draw(f"any kind, {count}", given, np.setdiff1d(everything, given), told[given])
    for kind in different if len(different) > 1 else []:
        others, own = np.flatnonzero(kinds != kind), np.flatnonzero(kinds == kind)
        for _ in range(repeats):
            given = rng.permutation(others)[:OF_KINDS]
            yield Draw("all but one kind", given, own, kinds[given])
            yield Draw("all but one kind, not told apart", given, own, unsorted[given])


def numbers(model: HVQTrans, product: Product, draw: Draw) -> list[float]:
    """Judge a draw: used or not, AUROC and recall without, and with known defects; in per cent."""
    groups = {**product.groups, KNOWN: product.groups[DEFECTIVE].some(draw.given)}
    learnt = learn(model, product.k, groups, product.covered[draw.given], draw.kinds)
    row = [float(learnt.use.share > 0)]
    for scores in (learnt.before, learnt.after):
        good, defective = scores[GOOD], scores[DEFECTIVE][draw.tested]
        both = np.concatenate([good, defective])
        labels = np.arange(len(both)) >= len(good)
        found = (auroc(both, labels), recall_at(both, labels, 0.05))
        row += [100 * value for value in found if value is not None]
    return row


def rows_of(product: str, each: Mapping[str, Sequence[list[float]]]) -> Iterator[list[str]]:
    """Yield a row for each way of drawing."""
    for name, found in each.items():
        used, auroc_before, recall_before, auroc_after, recall_after = np.array(found).T
        change = recall_after - recall_before
        error = change.std(ddof=1) / len(change) ** 0.5 if len(change) > 1 else 0.0
        yield [
            product,
            name,
            f"{used.sum():.0f} of {len(found)}",
            *(f"{v.mean():.1f}" for v in (auroc_before, auroc_after, recall_before, recall_after)),
            f"{change.mean():+.1f} ± {error:.1f}",
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, a product's rows as soon as they are known."""
    parser = argparse.ArgumentParser(description="What known defects bring.")
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs, with their images")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/known-defects"), help="keeps features"
    )
    parser.add_argument("--draws", type=int, default=5, help="of each way; default: 5")
    parser.add_argument(
        "--only", action="append", default=[], metavar="CATEGORY", help="may be repeated"
    )
    given = parser.parse_args(arguments)
    headings = ["product", "known defects", "used", "AUROC without", "with", "recall without"]
    headings += ["with", "change"]
    rows: list[list[str]] = []
    try:
        with progress_bars() as bars, torch.inference_mode():
            for run in given.runs:
                for model, product in products_of(run, given.out, given.only, bars):
                    each: dict[str, list[list[float]]] = {}
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
