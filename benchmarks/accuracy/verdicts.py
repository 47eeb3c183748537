"""Score rules and threshold rules side by side, judged by verdicts as well as by ranking.

    python -m benchmarks.accuracy.verdicts RUN [RUN ...]

For each category of finished runs: how much of an image's own level the score leaves out (none,
all, or the learnt share with its limit), and where the threshold stands (the largest held-out good
score, or the expected rate from held-out images alone, and with those learnt from). Every rule sees
the same maps of the same model, and no rule sees a test image. Good test images rejected, defects
found, image AUROC, and what is found of defects that cover the whole image, which are made from
held-out images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.markdown_table import markdown_table
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.evaluation.metrics.image_metrics import auroc, recall_at
from hvq_edge.model.checkpoint import load_run
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.image_score import image_level
from hvq_edge.run.record import RunRecord, recorded_data
from hvq_edge.verdict.calibrate.expected_rate import expected_rate
from hvq_edge.verdict.tolerance import share

RATE = 0.05
BATCH = 16
MOST_LEARNT = 200
Scores = NDArray[np.float64]
Frames = NDArray[np.uint8]


class Judged(NamedTuple):
    """Level and highest window of some images, float64 ``[images]`` each."""

    level: Scores
    window: Scores


class Product(NamedTuple):
    """One category's images, judged by one model."""

    name: str
    share: float
    limit: float
    learnt: Judged
    held_out: Judged
    good: Judged
    defective: Judged
    whole: Judged
    """Held-out images with a defect that covers all of the image."""


def large_defects(frame: Frames) -> Iterator[Frames]:
    """Change a whole image, uint8 ``[side, side, 3]``: darker, brighter, blurred, noisy, turned."""
    yield (frame * 0.6).astype(np.uint8)
    yield np.clip(frame.astype(np.float32) * 1.4 + 10, 0, 255).astype(np.uint8)
    yield cv2.GaussianBlur(frame, (0, 0), 4)
    noise = np.random.default_rng(0).normal(0, 25, frame.shape)
    yield np.clip(frame + noise, 0, 255).astype(np.uint8)
    yield np.ascontiguousarray(frame[::-1, :, ::-1])


@torch.inference_mode()
def judge(model: HVQTrans, frames: Iterator[Frames], category: int) -> Judged:
    """Judge frames of one category, batch by batch."""
    found: list[NDArray[np.float64]] = []
    batch: list[Frames] = []

    def flush() -> None:
        if batch:
            label = torch.full((len(batch),), category)
            maps = model(torch.from_numpy(np.stack(batch)), label)["map"]
            level = image_level(maps.flatten(1))[:, 0]
            found.append(torch.stack([level, model.highest_window(maps)], dim=1).double().numpy())
            batch.clear()

    for frame in frames:
        batch.append(frame)
        if len(batch) == BATCH:
            flush()
    flush()
    level, window = (np.concatenate(found) if found else np.zeros((0, 2))).T
    return Judged(level, window)


def products_of(run: Path) -> Iterator[Product]:
    """Judge the images of a run, category by category."""
    model, record = load_run(run)
    model.eval()
    data, dataset = recorded_data(run), find_dataset(recorded_data(run))
    side = record.settings.model.input_side
    for k, name in enumerate(record.categories):
        test = dataset.test(name)

        def read(paths: Sequence[Path]) -> Iterator[Frames]:
            return (read_frame(path, side) for path in paths)

        fit, held_out = (_paths(record, data, name, use) for use in ("fit", "held_out"))
        whole = (defect for frame in read(held_out) for defect in large_defects(frame))
        yield Product(
            name,
            float(model.level_share[k]),
            float(model.level_limit[k]),
            learnt=judge(model, read(fit[:: -(-len(fit) // MOST_LEARNT)]), k),
            held_out=judge(model, read(held_out), k),
            good=judge(model, read([one.path for one in test if one.good]), k),
            defective=judge(model, read([one.path for one in test if not one.good]), k),
            whole=judge(model, whole, k),
        )


def _paths(record: RunRecord, data: Path, name: str, use: str) -> list[Path]:
    return [data / one.path for one in record.images if one.category == name and one.use == use]


ScoreRule = Callable[[Product, Judged], Scores]
SCORES: Mapping[str, ScoreRule] = {
    "level kept": lambda _, judged: judged.window,
    "half of it left out": lambda _, judged: judged.window - 0.5 * judged.level,
    "all left out": lambda _, judged: judged.window - judged.level,
    "learnt share, no limit": lambda product, judged: judged.window - product.share * judged.level,
    "learnt share and limit": lambda product, judged: (
        judged.window - product.share * np.minimum(judged.level, product.limit)
    ),
}
ThresholdRule = Callable[[Scores, Scores], float]
THRESHOLDS: Mapping[str, ThresholdRule] = {
    "largest held-out": lambda held_out, _: float(held_out.max()),
    "expected rate, held-out": lambda held_out, _: expected_rate(np.sort(held_out), RATE).value,
    "expected rate, with those learnt from": lambda held_out, learnt: (
        expected_rate(np.sort(held_out), RATE, learnt=np.sort(learnt)).value
    ),
}


def row(products: Sequence[Product], score: ScoreRule, threshold: ThresholdRule) -> list[str]:
    """Return means over products in per cent, in the order of the columns."""
    numbers = []
    for product in products:
        good, defective, whole = (
            score(product, judged) for judged in (product.good, product.defective, product.whole)
        )
        limit = threshold(score(product, product.held_out), score(product, product.learnt))
        labels = np.repeat([False, True], [len(good), len(defective)])
        scores = np.concatenate([good, defective])
        numbers.append(
            (
                auroc(scores, labels),
                recall_at(scores, labels, RATE),
                (good > limit).mean(),
                (defective > limit).mean(),
                (whole > limit).mean(),
            )
        )
    return [f"{100 * value:.1f}" for value in np.mean(np.array(numbers, np.float64), axis=0)]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    products = [product for run in parser.parse_args().runs for product in products_of(run)]
    best_score, best_threshold = list(SCORES.values())[-1], list(THRESHOLDS.values())[-1]
    columns = ["image AUROC", "recall at 5 %", "good rejected", "defects found", "whole found"]
    print(f"Means over {len(products)} products, %\n")
    rows = [[name, *row(products, rule, best_threshold)] for name, rule in SCORES.items()]
    print(markdown_table(["score", *columns], rows), "\n")
    rows = [[name, *row(products, best_score, rule)] for name, rule in THRESHOLDS.items()]
    print(markdown_table(["threshold", *columns], rows), "\n")
    rows = []
    for product in products:
        good, defective = (best_score(product, one) for one in (product.good, product.defective))
        limit = best_threshold(
            best_score(product, product.held_out), best_score(product, product.learnt)
        )
        rejected, found = int((good > limit).sum()), int((defective > limit).sum())
        counted = share(rejected, len(good))
        interval = counted.interval if counted else None
        rows.append(
            [
                product.name,
                f"{product.share:.2f}",
                f"{rejected} of {len(good)}",
                f"{100 * interval.low:.0f} to {100 * interval.high:.0f}" if interval else "–",
                f"{found} of {len(defective)}",
                *row([product], best_score, best_threshold)[:2],
            ]
        )
    headings = ["product", "share", "good rejected", "95 % interval", "defects found", *columns[:2]]
    print(markdown_table(headings, rows))


if __name__ == "__main__":
    main()
