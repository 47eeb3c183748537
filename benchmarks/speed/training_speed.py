"""Images a second of a training step, side by side with the form that the authors run.

    python -m benchmarks.speed.training_speed                 # generated images, edge and paper
    python -m benchmarks.speed.training_speed --data photos/ --sizes edge --rounds 12

Four forms of the same step (forward, backward, clipping, AdamW):

(a) the authors': backbone in every step, a loop over the images, dropout 0.1 (authors_form.py)
(b) that loop on cached features
(c) ours: the trainer's own loss, vectorised, on cached features
(d) ours with bfloat16 autocast; ``hvq-edge train`` takes (c) or (d) by the device

In each round every form takes one step, so that a busy moment of the machine meets all of them.
Printed: the median over the rounds, and the ratio to (a) as the median of the rounds' own ratios,
both with the lowest and the highest. What favours (a): its images are decoded beforehand.
EfficientNet-Lite0 has its published weights; other backbones have random ones, which take the same
time.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.speed.authors_form import AuthorsForm
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.errors import HvqEdgeError
from hvq_edge.model.backbone_weights import load_backbone_weights
from hvq_edge.model.device import choose_device
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.settings import Settings, TrainingSettings, load_settings
from hvq_edge.runtime.cpu.processor import processor_name
from hvq_edge.training.batches import shuffled_batches, to_tensor
from hvq_edge.training.features import feature_pass
from hvq_edge.training.statistics import fit_feature_statistics
from hvq_edge.training.trainer import Losses, uses_bfloat16

AUTHORS_DROPOUT = 0.1
BATCH, MANY = 8, 10_000
CATEGORIES = 5  # of generated images

FORMS = {
    "a": "authors: loop, backbone each step",
    "b": "authors' loop, cached features",
    "c": "ours, float32",
    "d": "ours, bfloat16 autocast",
}


class Images(NamedTuple):
    """What to train on."""

    frames: NDArray[np.uint8]
    """``[images, side, side, 3]``, RGB."""
    category: NDArray[np.int64]
    """``[images]``."""
    categories: int


class Speed(NamedTuple):
    """Images a second of one form, a value a round."""

    form: str
    values: NDArray[np.float64]


class Row(NamedTuple):
    """A form's row of the table: median, lowest and highest over the rounds."""

    form: str
    speed: tuple[float, float, float]
    """Images a second."""
    ratio: tuple[float, float, float]
    """To form (a) in the same round."""


def read_images(folder: Path, side: int, most: int) -> Images:
    """Read good training images of a folder, as many of each category as ``most`` allows."""
    dataset = find_dataset(folder)
    each = max(1, most // len(dataset.categories))
    chosen = [p for name in dataset.categories for p in dataset.train_good(name)[:each]]
    labels = [dataset.categories.index(image.category) for image in chosen]
    frames = np.stack([read_frame(image.path, side) for image in chosen])
    return Images(frames, np.array(labels, np.int64), len(dataset.categories))


def generate_images(side: int, count: int, seed: int = 0) -> Images:
    """Make textures: noise smoothed by another width for each category."""
    generator = np.random.default_rng(seed)
    category = np.arange(count) % min(CATEGORIES, count)
    frames = []
    for k in category:
        noise = generator.normal(size=(side, side, 3))
        smooth = cv2.GaussianBlur(noise, (0, 0), 1.0 + k)
        frames.append(np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8))
    return Images(np.stack(frames), category.astype(np.int64), int(category.max()) + 1)


def cache(model: HVQTrans, frames: NDArray[np.uint8], path: Path) -> tuple[float, float]:
    """Write raw backbone features as training does, float16, in both ways of computing them.

    Returns:
        Images a second by PyTorch's own operations, and how many times as many in the way that a
        training on many images takes: medians of batches in turns.
    """
    ways = [feature_pass(model, count) for count in (1, MANY)]
    parts, seconds = [], []
    for start in range(0, len(frames), BATCH):
        batch, taken = list(frames[start : start + BATCH]), []
        for compute in ways:
            compute(batch[:1])  # wakes its threads
            began = perf_counter()
            features = compute(batch)
            taken.append((perf_counter() - began) / len(batch))
        parts.append(features)
        seconds.append(taken)
    np.save(path, np.concatenate(parts))
    eager, compiled = np.array(seconds).T
    return 1 / float(np.median(eager)), float(np.median(eager / compiled))


class Steps:
    """The four forms on the same images, each with weights and optimizer of its own.

    Args:
        model: starting weights of all four; features already standardised where settings say so.
        images: what to train on.
        features: float16 ``[images, tokens, channels]``, raw, memory-mapped.
        settings: of the training.
    """

    def __init__(
        self,
        model: HVQTrans,
        images: Images,
        features: NDArray[np.float16],
        settings: TrainingSettings,
    ) -> None:
        self.device = model.feature_mean.device
        self.grid = model.settings.grid
        self.images, self.features, self.settings = images, features, settings
        self.ours = {form: Losses(deepcopy(model), settings).train() for form in "cd"}
        self.loops = {form: AuthorsForm(deepcopy(model), AUTHORS_DROPOUT).train() for form in "ab"}
        self.optimizers = {
            form: torch.optim.AdamW(
                [p for p in trained.parameters() if p.requires_grad],
                settings.learning_rate,
                weight_decay=settings.weight_decay,
            )
            for form, trained in {**self.ours, **self.loops}.items()
        }

    def seconds(self, form: str, chosen: NDArray[np.int64]) -> float:
        """Take one step and return how long it took.

        Raises:
            ArithmeticError: the loss is not finite, so the time means nothing.
        """
        self._synchronise()
        began = perf_counter()
        label = torch.from_numpy(self.images.category[chosen]).to(self.device)
        loss: Tensor = getattr(self, f"_loss_{form}")(form, chosen, label)
        if not np.isfinite(loss.item()):
            raise ArithmeticError(f"the loss of form ({form}) is {loss.item()}")
        optimizer = self.optimizers[form]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = optimizer.param_groups[0]["params"]
        nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        optimizer.step()
        self._synchronise()
        return perf_counter() - began

    def _loss_a(self, form: str, chosen: NDArray[np.int64], label: Tensor) -> Tensor:
        frames = torch.from_numpy(self.images.frames[chosen]).to(self.device)
        loop = self.loops[form]
        return loop.loss(loop.features(frames), label, self.settings.latent_weight)

    def _loss_b(self, form: str, chosen: NDArray[np.int64], label: Tensor) -> Tensor:
        tokens = to_tensor(self.ours["c"].model, self.features[chosen])
        image = tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return self.loops[form].loss(image, label, self.settings.latent_weight)

    def _loss_c(self, form: str, chosen: NDArray[np.int64], label: Tensor) -> Tensor:
        ours = self.ours[form]
        found = ours(to_tensor(ours.model, self.features[chosen]), label)
        return found.total(self.settings.latent_weight)

    def _loss_d(self, form: str, chosen: NDArray[np.int64], label: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            return self._loss_c(form, chosen, label)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure(steps: Steps, batch_size: int, rounds: int, warm_up: int) -> list[Speed]:
    """Time ``rounds`` rounds of one step of each form, after some that are not counted."""
    values = {form: np.empty(rounds) for form in FORMS}
    count = len(steps.images.frames)
    for i in range(-warm_up, rounds):
        chosen = next(shuffled_batches(count, batch_size, seed=0, epoch=i + warm_up))
        for form in FORMS:
            seconds = steps.seconds(form, chosen)
            if i >= 0:
                values[form][i] = len(chosen) / seconds
    return [Speed(form, values[form]) for form in FORMS]


def spread(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return median, lowest and highest."""
    return float(np.median(values)), float(values.min()), float(values.max())


def rows(speeds: Sequence[Speed]) -> list[Row]:
    """Summarise the rounds; the first form is what the others are compared with."""
    reference = speeds[0].values
    return [Row(one.form, spread(one.values), spread(one.values / reference)) for one in speeds]


def print_table(table: Sequence[Row]) -> None:
    """Print a row a form."""
    print(f"  {'form':<40}{'images/s':>10}{'':>18}{'times (a)':>12}")
    for row in table:
        speed, ratio = row.speed, row.ratio
        print(
            f"  ({row.form}) {FORMS[row.form]:<36}{speed[0]:>10.1f}"
            f"{speed[1]:>9.1f} ..{speed[2]:6.1f}{ratio[0]:>12.2f}{ratio[1]:>8.2f} ..{ratio[2]:6.2f}"
        )


def build_model(settings: Settings, categories: int, device: str) -> tuple[HVQTrans, str]:
    """Return the model to start from, and what its backbone's weights are."""
    torch.manual_seed(0)
    model = HVQTrans(settings.model, categories)
    name = settings.model.backbone
    weights = "random weights"
    if name == "efficientnet_lite0":  # comes with hvq-edge[train]; the others would be fetched
        load_backbone_weights(model.backbone, name)
        weights = "published weights"
    return model.to(device), weights


def run_size(size: str, arguments: argparse.Namespace, device: str) -> None:
    """Measure one preset's sizes and print its table."""
    settings = load_settings(size)
    side = settings.model.input_side
    batch_size = arguments.batch or settings.training.batch_size
    count = max(arguments.images, batch_size)
    data: Path | None = arguments.data
    images = read_images(data, side, count) if data else generate_images(side, count)
    model, weights = build_model(settings, images.categories, device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        cached, faster = cache(model, images.frames, path)
        features = np.load(path, mmap_mode="r")
        if settings.model.standardise_features:
            fit_feature_statistics(model, features)
        steps = Steps(model, images, features, settings.training)
        speeds = measure(steps, batch_size, arguments.rounds, arguments.warm_up)
    m = settings.model
    source = data.name if data else "generated"
    print(
        f"\n{size}: {m.backbone} ({weights}), {side} px, width {m.width}, {m.layers} + {m.layers} "
        f"layers, {m.levels} x {m.codes} codes\n"
        f"  {len(images.frames)} images ({source}) of {images.categories} categories, batch "
        f"{min(batch_size, len(images.frames))}, {arguments.rounds} rounds"
    )
    print_table(rows(speeds))
    own = "d" if uses_bfloat16(settings.training, steps.device) else "c"
    print(
        f"  features for (b) to (d), once in a training: {cached:.1f} images/s by PyTorch, "
        f"{faster:.1f} times as many as a training on many images computes them"
    )
    print(f"  hvq-edge train --preset {size} takes ({own}) on this device")


def main(arguments: Sequence[str] | None = None) -> None:
    """Time all forms and print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of images; default: generated ones")
    parser.add_argument(
        "--sizes", nargs="+", default=["edge", "paper"], choices=["edge", "paper", "tiny"]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1, help="rounds that are not counted")
    parser.add_argument("--batch", type=int, help="images a step; default: the preset's")
    parser.add_argument("--images", type=int, default=48, help="use at most so many")
    parser.add_argument("--threads", type=int, help="default: PyTorch's choice")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    given = parser.parse_args(arguments)
    if min(given.rounds, given.images, given.batch or 1, given.threads or 1) < 1:
        parser.error("--rounds, --images, --batch and --threads must be at least 1")
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        device = choose_device(given.device)
        name = torch.cuda.get_device_name(device) if "cuda" in device else processor_name()
        print(f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
        for size in given.sizes:
            run_size(size, given, device)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
