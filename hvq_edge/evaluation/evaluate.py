"""Judge a dataset's test images with an engine and measure how well it did."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hvq_edge.common.heat_map import upsample_map
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import Dataset, DatasetImage
from hvq_edge.data.images import read_frame, read_mask
from hvq_edge.errors import DatasetError, ImageError
from hvq_edge.evaluation.image_result import ImageResult
from hvq_edge.evaluation.metrics.pixel_tally import PixelTally
from hvq_edge.evaluation.metrics.results import (
    CategoryMetrics,
    Evaluation,
    Unreadable,
    category_metrics,
    mean_metrics,
)
from hvq_edge.run.tiling import FrameShape
from hvq_edge.runtime.engine import Engine, EngineInfo, Frames
from hvq_edge.runtime.run_ahead import run_ahead
from hvq_edge.verdict.image_checks import ImageChecks
from hvq_edge.verdict.judgement import Judgement, judgements, refusal

BATCH_SIZE = 8
"""Images that PyTorch judges at once."""


def evaluate(
    engine: Engine,
    dataset: Dataset,
    *,
    known_category: bool,
    thresholds: Mapping[str, float] | None = None,
    checks: ImageChecks | None = None,
    batch_size: int = BATCH_SIZE,
    on_progress: ProgressCallback = silent,
) -> Evaluation:
    """Evaluate an engine on the test images.

    Images are read as they are needed; pixel metrics compare the map, enlarged to the model's
    input side, with the mask at that size. Memory does not grow with the number of pixels.

    A category has pixel metrics where at least one of its test images has a mask. They are over
    its good images, all of whose pixels are good, and its defective images with a mask.
    A defective image whose mask is missing or cannot be read is left out of them, because nobody
    knows which of its pixels are good; it counts for the image metrics. Where a mask is there but
    marks nothing, all pixels are good: the mask says so, and published evaluations do the same.

    Args:
        engine: what judges; with category mode ``one``, only that category's images are used.
        dataset: its categories must be categories of the model.
        known_category: give the engine each image's category; else it chooses. See
            :func:`ways_of`.
        thresholds: by category; to count verdicts.
        checks: which images lead to no decision on the line; ``None``: nothing is known of that.
        batch_size: images judged at once.
        on_progress: told after each batch.

    Returns:
        Results by image, in the dataset's order, and metrics by category. Files that cannot be
        read are left out and listed.

    Raises:
        DatasetError: no test images, none that can be read, or a category unknown to the model.
        InputError: the engine cannot work in this way.
        MissingCapability: scikit-learn is not installed.
    """
    names = _categories_of(dataset, engine.info)
    total = sum(len(dataset.test(name)) for name in names)
    stage = f"Evaluating, category {'known' if known_category else 'chosen'}"
    done = 0
    results: list[ImageResult] = []
    unreadable: list[Unreadable] = []
    metrics: list[CategoryMetrics] = []
    for name in names:
        images = dataset.test(name)
        pixels = PixelTally() if any(image.mask for image in images) else None
        judged: list[ImageResult] = []
        without_mask = 0
        faults: list[Unreadable] = []
        for batch in _judge(
            engine, images, known_category, batch_size, checks or ImageChecks(None, {}), faults
        ):
            judged += batch
            if pixels is not None:
                counted = _count_pixels(pixels, batch, engine.info.frame_shape)
                without_mask += counted.without_mask
                unreadable += counted.faults
            on_progress(stage, done + len(judged), total, name)
        unreadable += faults
        done += len(images)
        if faults:
            on_progress(stage, done, total, name)
        if judged:
            metrics.append(
                category_metrics(
                    name,
                    judged,
                    pixels,
                    known_category=known_category,
                    thresholds=thresholds or {},
                    without_mask=without_mask,
                )
            )
        results += judged
    if not results:
        raise DatasetError(
            f"none of the {total} test images in {dataset.root} can be read; the first: "
            f"{unreadable[0].cause}",
            next_step="copy the images again",
        )
    return Evaluation(
        data=dataset.root,
        known_category=known_category,
        images=tuple(results),
        unreadable=tuple(unreadable),
        categories=tuple(metrics),
        mean=mean_metrics(metrics),
        thresholds=thresholds or {},
    )


def ways_of(info: EngineInfo) -> tuple[bool, ...]:
    """Return the values of ``known_category`` that an engine can be evaluated with.

    The PyTorch model takes a category and can choose one too; an exported graph does one of them.
    """
    if info.category_mode != "auto":
        return (True,)
    return (True, False) if info.backend == "torch" else (False,)


def _categories_of(dataset: Dataset, info: EngineInfo) -> tuple[str, ...]:
    """Return the dataset's categories with test images that the engine is to judge."""
    names = [name for name in dataset.categories if dataset.test(name)]
    known = ", ".join(info.categories)
    if not names:
        raise DatasetError(
            f"{dataset.root} has no test images.",
            next_step="put images in CATEGORY/test/good and CATEGORY/test/DEFECT",
        )
    if info.category_mode == "one":
        if info.categories[0] not in names:
            raise DatasetError(
                f"{dataset.root} has no test images of {known}, the one category of this "
                f"model; it has {', '.join(names)}.",
                next_step="give data of that category, or export with another --category",
            )
        return info.categories
    unknown = [name for name in names if name not in info.categories]
    if unknown:
        raise DatasetError(
            f"the model does not know the categor{'ies' if len(unknown) > 1 else 'y'} "
            f"{', '.join(unknown)} of {dataset.root}; it knows {known}.",
            next_step="rename the folder to the category's name, or train with that category",
        )
    return tuple(names)


def _judge(
    engine: Engine,
    images: Sequence[DatasetImage],
    known_category: bool,
    batch_size: int,
    checks: ImageChecks,
    faults: list[Unreadable],
) -> Iterator[list[ImageResult]]:
    """Read and judge one category's images, a batch at a time.

    Where the engine can, it computes one batch while the next is read.

    Args:
        engine: what judges.
        images: of one category.
        known_category: whether the engine is told it.
        batch_size: images judged at once.
        checks: which of them lead to no decision on the line.
        faults: those that cannot be read are added to it.
    """
    info = engine.info
    told = known_category and info.category_mode != "one"
    index = info.categories.index(images[0].category) if told else None
    given: deque[tuple[list[DatasetImage], list[Frames]]] = (
        deque()
    )  # batches whose result is still to come

    def batches() -> Iterator[Frames]:
        frames: list[Frames] = []
        readable: list[DatasetImage] = []
        for image in images:
            try:
                frames.append(read_frame(image.path, info.frame_shape))
                readable.append(image)
            except ImageError as error:
                faults.append(Unreadable(image.path, error.cause))
            if len(frames) == batch_size or (frames and image is images[-1]):
                given.append((readable, frames))
                yield np.stack(frames)
                frames, readable = [], []

    for output in run_ahead(engine, batches(), index):
        yield list(_results(*given.popleft(), judgements(output, info.categories), checks))


def _results(
    images: Sequence[DatasetImage],
    frames: Sequence[Frames],
    judged: Sequence[Judgement],
    checks: ImageChecks,
) -> Iterator[ImageResult]:
    for image, frame, judgement in zip(images, frames, judged, strict=True):
        yield ImageResult(
            image=image,
            chosen=judgement.category,
            score=judgement.score,
            map=judgement.map,
            margin=judgement.margin,
            refused=refusal(judgement, checks.fault(frame, judgement)),
        )


@dataclass(frozen=True)
class _Counted:
    without_mask: int
    faults: list[Unreadable]


def _count_pixels(
    pixels: PixelTally, results: Sequence[ImageResult], shape: FrameShape
) -> _Counted:
    """Count the pixels of good images and of defective ones with a mask that can be read."""
    faults: list[Unreadable] = []
    without_mask = 0
    for result in results:
        if not result.finite:
            continue
        mask = np.zeros(shape, dtype=np.bool_)
        if not result.image.good:
            if result.image.mask is None:
                without_mask += 1
                continue
            try:
                mask = read_mask(result.image.mask, *shape)
            except ImageError as error:
                faults.append(Unreadable(result.image.mask, error.cause))
                continue
        pixels.add(upsample_map(result.map, *shape), mask)
    return _Counted(without_mask + len(faults), faults)
