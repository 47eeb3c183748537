"""Products that were left out of a training, added to it in every way that a benchmark compares."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.accuracy.accuracy import memories
from benchmarks.accuracy.evidence import Verdict, image_metrics, map_of, mask_of
from benchmarks.accuracy.image_sources import (
    FeatureStore,
    Source,
    Stored,
    category_index,
    sources_of,
    training_sources,
)
from benchmarks.accuracy.row_training import Plan
from hvq_edge.common.atomic import atomic_file
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.versions import version_of
from hvq_edge.evaluation.metrics.results import CategoryMetrics
from hvq_edge.model.checkpoint import with_categories
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.image_score import image_level
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.training.batches import Images, standardised
from hvq_edge.training.categories import learn
from hvq_edge.training.closed_form import level_of_good_images
from hvq_edge.training.codebook_start import start_codebooks
from hvq_edge.training.fit_prototypes import fit_prototypes
from hvq_edge.training.statistics import (
    batches_of,
    fit_centre,
    fit_classifier,
    fit_feature_statistics,
    fit_level,
    fit_map_scale,
    fit_residual_whitening,
)
from hvq_edge.training.trainer import train_epochs

ALL = 0
"""Stands for all of them."""
MEMORY = "nearest neighbour, level subtracted"


ADDED, TOGETHER = "added", "trained"
CLASSIFIER = "classifier"


def _no_epochs() -> AbstractContextManager[object]:
    return mock.patch.object(learn, "EPOCHS", 0)


def _mean_projection() -> AbstractContextManager[object]:
    return mock.patch.object(learn, "RIDGE", 1e9)


VARIANTS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    "codes stay where they start": _no_epochs,
    "projection of the others": _mean_projection,
}
"""What is lost without a part of what is learnt."""


class Drawn(NamedTuple):
    """Images of the new product, as places among its own."""

    fit: NDArray[np.int64]
    held_out: NDArray[np.int64]


class Product(NamedTuple):
    """A product's features, and what it is tested on."""

    name: str
    good: NDArray[np.float16]
    """Of its good training images, ``[images, tokens, channels]``."""
    kept_apart: NDArray[np.bool_]
    """Which of them a run of all images holds out."""
    versions: NDArray[np.float16]
    """``[images, versions, tokens, channels]``."""
    test: Stored
    tested_good: NDArray[np.bool_]
    """Which of its test images are good."""
    measure: Callable[[NDArray[np.float32], NDArray[np.float64]], CategoryMetrics]

    def draw(self, count: int, seed: int, held_out: float) -> Drawn:
        """Choose so many images; :data:`ALL`: as a training divides them."""
        if count == ALL:
            return Drawn(np.flatnonzero(~self.kept_apart), np.flatnonzero(self.kept_apart))
        chosen = np.random.default_rng((seed, count)).permutation(len(self.good))[:count]
        apart = max(1, round(held_out * count))
        return Drawn(np.sort(chosen[apart:]), np.sort(chosen[:apart]))

    def images(self, places: NDArray[np.int64], k: int) -> Images:
        """Those of them as images of category ``k``."""
        return Images(np.asarray(self.good[places]), np.full(len(places), k))

    def varied(self, places: NDArray[np.int64], k: int) -> Images:
        """All versions of them."""
        own = np.asarray(self.versions[places]).reshape(-1, *self.versions.shape[2:])
        return Images(own, np.full(len(own), k))


class Bench:
    """Trains networks and judges products, in a folder that keeps what was done.

    Args:
        plan: images and settings.
        folder: for features and weights.
    """

    def __init__(self, plan: Plan, folder: Path, on_progress: ProgressCallback = silent) -> None:
        self.plan, self.folder = plan, folder
        self.settings = plan.settings
        self.on_progress = on_progress
        store = FeatureStore(folder / "features", plan.settings.model)
        names = plan.categories
        sources = {
            use: training_sources(plan.records, plan.data, use) for use in ("fit", "held_out")
        }
        self.fit, self.held_out = (
            Images(
                store.features(use.replace("_", "-"), sources[use], on_progress),
                category_index(sources[use], names),
            )
            for use in ("fit", "held_out")
        )
        tested = sources_of(plan.images)
        features = store.features("test", tested, on_progress)
        index = category_index(tested, names)
        self.products = []
        for k, name in enumerate(names):
            good = [
                one for use in ("fit", "held_out") for one in sources[use] if one.category == name
            ]
            count = plan.settings.training.versions
            varied = store.features(f"versions-{name}", self._versions(name, count), on_progress)
            own = [self.fit.features[self.fit.category == k]]
            own.append(self.held_out.features[self.held_out.category == k])
            self.products.append(
                Product(
                    name,
                    np.concatenate(own),
                    np.repeat([False, True], [len(one) for one in own]),
                    varied.reshape(len(good), count, *varied.shape[1:]),
                    Stored(features[index == k], np.zeros(int((index == k).sum()), np.int64)),
                    np.array([one.good for one in plan.images if one.category == name]),
                    self._measure(name),
                )
            )

    def _versions(self, name: str, count: int) -> list[Source]:
        side = self.settings.model.input_side
        records = [
            one for use in ("fit", "held_out") for one in self.plan.records if one.use == use
        ]

        def reader(path: Path, number: int, seed: int) -> Callable[[int], NDArray[np.uint8]]:
            return lambda wanted: fit_image(
                version_of(read_image(path), side, number, seed), wanted
            )

        return [
            Source(
                f"{one.sha256} version {number}",
                name,
                reader(self.plan.data / one.path, number, int(one.sha256[:12], 16)),
            )
            for one in records
            if one.category == name
            for number in range(1, count + 1)
        ]

    def _measure(
        self, name: str
    ) -> Callable[[NDArray[np.float32], NDArray[np.float64]], CategoryMetrics]:
        own = [image for image in self.plan.images if image.category == name]
        masks = [mask_of(image, self.settings.model.input_side) for image in own]
        return lambda maps, scores: image_metrics(name, own, masks, maps, scores)

    def trained(self, name: str, fit: Images, held_out: Images, categories: int) -> HVQTrans:
        """Train a network, or read the one of that name."""
        path = self.folder / "weights" / f"{name}.pt"
        training = self.settings.training
        torch.manual_seed(training.seed)
        model = HVQTrans(self.settings.model, categories, codebook_decay=training.codebook_decay)
        if not path.exists():
            fit_feature_statistics(model, fit.features)
            start_codebooks(model, fit.features, fit.category, training.seed)
            with tempfile.TemporaryDirectory() as state:
                train_epochs(
                    Path(state),
                    model,
                    fit,
                    held_out,
                    training,
                    lambda one: self.on_progress(f"training {name}", one.epoch, training.epochs),
                )
            kept = {
                key: value
                for key, value in model.state_dict().items()
                if not key.startswith("backbone.")
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as temporary:
                torch.save(kept, temporary)
        model.load_state_dict(load_tensors(path), strict=False)
        return model.eval().requires_grad_(False)

    def without(self, k: int) -> HVQTrans:
        """The network of all products but one."""
        left = [self.others(images, k) for images in (self.fit, self.held_out)]
        name = f"without-{self.plan.categories[k]}"
        return self.trained(name, left[0], left[1], len(self.products) - 1)

    def others(self, images: Images, k: int) -> Images:
        """Those of all products but one, as :meth:`without` counts categories."""
        own = images.category != k
        category = images.category[own]
        return Images(images.features[own], category - (category > k))

    def together(self, k: int, count: int, seed: int) -> HVQTrans:
        """The network of all products, with so many images of one, which is the last category."""
        product, last = self.products[k], len(self.products) - 1
        drawn = product.draw(count, seed, self.settings.training.held_out)
        fit, held_out = (
            _joined(self.others(images, k), product.images(places, last))
            for images, places in zip((self.fit, self.held_out), drawn, strict=True)
        )
        name = "all" if count == ALL else f"{product.name}-{count}-{seed}"
        if count == ALL:  # the same for every product, whose order is then the plan's
            return self.trained(name, self.fit, self.held_out, last + 1)
        return self.trained(name, fit, held_out, last + 1)


def _joined(one: Images, other: Images) -> Images:
    return Images(
        np.concatenate([one.features, other.features]),
        np.concatenate([one.category, other.category]),
    )


class Way(NamedTuple):
    """How a product came to be known: judges raw features."""

    judge: Callable[[Tensor], Verdict]
    seconds: float
    """That learning the product took, once its features were there."""


def ways_of(
    bench: Bench, k: int, count: int, seed: int, *, parts: bool = False
) -> Iterator[tuple[str, Way]]:
    """Add a product in every way, with ``parts`` without a part of what is learnt as well."""
    product, base, training = bench.products[k], bench.without(k), bench.settings.training
    drawn = product.draw(count, seed, training.held_out)
    new = base.categories
    fit, held_out = product.images(drawn.fit, new), product.images(drawn.held_out, new)
    varied = [product.varied(drawn.fit, new)] if training.versions else []
    for name, changed in {ADDED: nullcontext, **(VARIANTS if parts else {})}.items():
        model = with_categories(base, [*range(new), None])
        began = time.perf_counter()
        with changed():
            learn.learn_category(model, new, fit, varied, held_out, training)
        seconds = time.perf_counter() - began
        yield name, Way(_judge_of(model, new), seconds)
        if name == ADDED:
            yield (
                "prototypes alone",
                Way(prototypes_alone(model, new, fit, held_out), seconds),
            )
    own = Images(fit.features, np.zeros(len(fit.features), np.int64))
    began = time.perf_counter()
    memory = memories(own, base.score_window, base.channels)
    seconds = time.perf_counter() - began
    yield "memory", Way(lambda raw: memory(raw, 0)[MEMORY], seconds)


def trained_together(bench: Bench, k: int, count: int, seed: int) -> Way:
    """The reference: the product was there from the start."""
    product, training = bench.products[k], bench.settings.training
    drawn = product.draw(count, seed, training.held_out)
    began = time.perf_counter()
    model = bench.together(k, count, seed)
    label = k if count == ALL else model.categories - 1
    fit, held_out = product.images(drawn.fit, label), product.images(drawn.held_out, label)
    groups = [fit, *([product.varied(drawn.fit, label)] if training.versions else [])]
    only = (label,)
    fit_prototypes(model, fit.features, fit.category, training.seed, only=only)
    fit_residual_whitening(model, *groups, only=only)
    fit_map_scale(model, *groups, only=only)
    fit_level(model, fit, held_out, only=only)
    return Way(_judge_of(model, label), time.perf_counter() - began)


@torch.no_grad()
def classified(bench: Bench, k: int, count: int, seed: int) -> dict[str, float]:
    """Ask a classifier that got one more centre for the product's good test images and others.

    Returns:
        Shares of the good test images that it knows, and of the other products' held-out images
        that it takes for the product; median margins of those images.
    """
    product, base = bench.products[k], bench.without(k)
    fit, held_out = (bench.others(images, k) for images in (bench.fit, bench.held_out))
    fit_classifier(base, fit.features, fit.category, held_out.features, held_out.category)
    new = base.categories
    model = with_categories(base, [*range(new), None])
    drawn = product.draw(count, seed, bench.settings.training.held_out)
    fit_centre(model, new, product.images(drawn.fit, new).features)
    own = model.classify(standardised(model, product.test.features[product.tested_good]))
    others = model.classify(standardised(model, held_out.features))
    known = (own.category == new) & (own.margin > 0)
    return {
        "known": known.float().mean().item(),
        "taken": (others.category == new).float().mean().item(),
        "margin": own.margin.median().item(),
        "margin of others": others.margin.median().item(),
    }


def _judge_of(model: HVQTrans, k: int) -> Callable[[Tensor], Verdict]:
    judge = map_of(model)
    return lambda raw: next(iter(judge(raw, k).values()))


@torch.no_grad()
def prototypes_alone(
    model: HVQTrans, k: int, fit: Images, held_out: Images
) -> Callable[[Tensor], Verdict]:
    """Judge by the distance to the nearest prototype alone, with a scale and a level of its own."""
    grid = model.settings.grid

    def found(standardised: Tensor) -> Verdict:
        assert model.prototypes is not None
        label = torch.full((len(standardised),), k)
        distance = model.prototypes(model.coarse(standardised), label)
        place = 1 + len(model.settings.transport_weights)
        scaled = (distance - model.map_centre[place, k]) / model.map_spread[place, k]
        scaled = scaled.unflatten(1, (grid, grid))
        return Verdict(scaled, model.highest_window(scaled))

    def points(images: Images) -> NDArray[np.float64]:
        each = []
        for batch, _ in batches_of(model, [images], k):
            one = found(batch)
            each.append(torch.stack([image_level(one.map.flatten(1))[:, 0], one.score], dim=1))
        return torch.cat(each).double().numpy()

    share, limit = level_of_good_images(points(fit), points(held_out))

    def judge(raw: Tensor) -> Verdict:
        one = found(model.standardise(raw))
        level = image_level(one.map.flatten(1))[:, 0].clamp_max(limit)
        return Verdict(one.map, one.score - share * level)

    return judge


@torch.no_grad()
def numbers_of(product: Product, way: Way) -> dict[str, float | None]:
    """Judge a product's test images."""
    maps, scores = [], []
    for raw in product.test.batches(0):
        verdict = way.judge(raw)
        maps.append(verdict.map)
        scores.append(verdict.score)
    found = product.measure(
        torch.cat(maps).numpy().astype(np.float32), torch.cat(scores).double().numpy()
    )
    return {
        "image": found.image_auroc,
        "pixel": found.pixel_auroc,
        "recall": found.image_recall_at_5,
        "seconds": way.seconds,
    }
